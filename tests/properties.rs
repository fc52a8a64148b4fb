//! Properties of the core, for generated inputs and orders of events.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "properties/canonical.rs"]
mod canonical;
#[path = "properties/detection.rs"]
mod detection;
#[path = "properties/ensemble.rs"]
mod ensemble;
#[path = "properties/gate.rs"]
mod gate;
#[path = "properties/standing.rs"]
mod standing;
#[path = "support/traces.rs"]
mod traces;
#[path = "support/trial.rs"]
mod trial;
#[path = "support/world.rs"]
mod world;
