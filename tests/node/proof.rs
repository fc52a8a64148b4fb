//! What the controller does to real traffic, installed by its chart in its own image. `make node-demo` plays these.

#[path = "proof/errors.rs"]
pub(crate) mod errors;
#[path = "proof/installation.rs"]
pub(crate) mod installation;
#[path = "proof/upkeep.rs"]
pub(crate) mod upkeep;
