//! The endpoints file with its readers: Envoy's published schema, a real Prometheus, a real nginx, a concurrent reader, and
//! a full disk.

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
