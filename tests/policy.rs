//! Manifests, valid and invalid; `kubervisor breaker` as a process; detectors on labelled traces; reload of the file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "policy/breaker.rs"]
mod breaker;
#[path = "policy/manifests.rs"]
mod manifests;
#[path = "policy/mutations.rs"]
mod mutations;
#[path = "policy/reload.rs"]
mod reload;
#[path = "policy/traces.rs"]
mod traces;
