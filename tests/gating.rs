//! From a signal to a pod's label: a real Prometheus with a login that scrapes real targets, and keepalives that the
//! controller receives itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "support/controller.rs"]
mod controller;
#[path = "gating/keepalives.rs"]
mod keepalives;
#[path = "support/plane.rs"]
mod plane;
#[path = "support/ports.rs"]
mod ports;
#[path = "gating/prometheus.rs"]
mod prometheus;
#[path = "support/scraper.rs"]
mod scraper;
#[path = "support/shop.rs"]
mod shop;
