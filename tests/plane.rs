//! The control plane of the Kubernetes tests, and the CustomResourceDefinition on it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "plane/definition.rs"]
mod definition;
#[path = "plane/ends.rs"]
mod ends;
#[path = "plane/events.rs"]
mod events;
#[path = "plane/faults.rs"]
mod faults;
#[path = "support/plane.rs"]
mod plane;
#[path = "plane/secrets.rs"]
mod secrets;
#[path = "plane/status.rs"]
mod status;
#[path = "plane/workloads.rs"]
mod workloads;
