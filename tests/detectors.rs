//! The detectors that query services, against a real Prometheus and a faulty server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "detectors/faults.rs"]
mod faults;
#[path = "detectors/fleet.rs"]
mod fleet;
#[path = "detectors/hosted.rs"]
mod hosted;
#[path = "detectors/login.rs"]
mod login;
#[path = "support/ports.rs"]
mod ports;
#[path = "detectors/prometheus.rs"]
mod prometheus;
#[path = "support/scraper.rs"]
mod scraper;
#[path = "detectors/sources.rs"]
mod sources;
#[path = "support/stage.rs"]
mod stage;
