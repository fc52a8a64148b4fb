//! `kubervisor report`: a replay decides as production does, and reads a real Prometheus whatever state it is in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "support/backfill.rs"]
mod backfill;
#[path = "report/detection.rs"]
mod detection;
#[path = "report/live.rs"]
mod live;
#[path = "support/scraper.rs"]
mod scraper;
#[path = "support/stage.rs"]
mod stage;
#[path = "support/traces.rs"]
mod traces;
#[path = "support/trial.rs"]
mod trial;
#[path = "support/world.rs"]
mod world;
