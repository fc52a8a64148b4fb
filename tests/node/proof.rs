//! What the controller does to real traffic, installed by its chart in its own image.

#[path = "proof/errors.rs"]
pub(crate) mod errors;
#[path = "proof/installation.rs"]
pub(crate) mod installation;
#[path = "proof/lost.rs"]
pub(crate) mod lost;
#[path = "proof/places.rs"]
pub(crate) mod places;
