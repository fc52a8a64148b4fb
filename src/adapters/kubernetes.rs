//! The Kubernetes API, as much of it as decisions need: how to reach it, what its objects say, and a cache
//! that knows how old it may be.

pub mod cluster;
pub mod connect;
pub mod events;
pub mod objects;
pub mod rights;
pub mod secrets;
