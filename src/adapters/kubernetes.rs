//! The part of the Kubernetes API that decisions need: the client, slim records of objects, caches that watches fill, and
//! Events.

pub mod cluster;
pub mod connect;
pub mod events;
pub mod objects;
pub mod reviews;
pub mod rights;
pub mod secrets;
pub(crate) mod untyped;
