//! The policy room from outside: manifests good and bad, the breaker as a real process, detectors on
//! labelled traces, the reload of a changed file.

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
