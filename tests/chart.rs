//! The Helm chart: what it renders, what it refuses, and how it is installed and upgraded on a real control plane.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "support/controller.rs"]
mod controller;
#[path = "chart/documented.rs"]
mod documented;
#[path = "support/helm.rs"]
mod helm;
#[path = "chart/installed.rs"]
mod installed;
#[path = "chart/objects.rs"]
mod objects;
#[path = "support/plane.rs"]
mod plane;
#[path = "support/ports.rs"]
mod ports;
#[path = "chart/refused.rs"]
mod refused;
#[path = "chart/rendered.rs"]
mod rendered;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/signals.rs"]
mod signals;
