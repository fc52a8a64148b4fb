//! Several controllers on one plane share the resources: each is worked on once, whoever comes and goes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "support/controller.rs"]
mod controller;
#[path = "support/plane.rs"]
mod plane;
#[path = "support/ports.rs"]
mod ports;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/signals.rs"]
mod signals;

#[path = "support/fleet.rs"]
mod fleet;

#[path = "replicas/balanced.rs"]
mod balanced;
#[path = "replicas/cluster.rs"]
mod cluster;
#[path = "replicas/command.rs"]
mod command;
#[path = "replicas/failures.rs"]
mod failures;
#[path = "replicas/keepalives.rs"]
mod keepalives;
#[path = "replicas/sharing.rs"]
mod sharing;
