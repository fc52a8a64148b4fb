//! The endpoints file, as those who read it see it: Envoy's published schema, a real Prometheus, a real nginx,
//! a reader that races the writer, and an operator whose disk is full.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "endpoints/envoy.rs"]
mod envoy;
#[path = "endpoints/file.rs"]
mod file;
#[path = "endpoints/memory.rs"]
mod memory;
#[path = "endpoints/nginx.rs"]
mod nginx;
#[path = "endpoints/prometheus.rs"]
mod prometheus;
#[path = "endpoints/roster_gate.rs"]
mod roster_gate;
#[path = "endpoints/stage.rs"]
mod stage;
