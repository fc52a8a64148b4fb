//! `kubervisor report`: a replay decides as production does, and reads a real Prometheus whatever state it is in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "support/backfill.rs"]
mod backfill;
#[path = "report/command.rs"]
mod command;
#[path = "report/compare.rs"]
mod compare;
#[path = "report/detection.rs"]
mod detection;
#[path = "report/faults.rs"]
mod faults;
#[path = "report/fleet.rs"]
mod fleet;
#[path = "report/front.rs"]
mod front;
#[path = "report/live.rs"]
mod live;
#[path = "report/page.rs"]
mod page;
#[path = "support/ports.rs"]
mod ports;
#[path = "report/samples.rs"]
mod samples;
#[path = "report/scan.rs"]
mod scan;
#[path = "support/scraper.rs"]
mod scraper;
#[path = "report/services.rs"]
mod services;
#[path = "report/shop.rs"]
mod shop;
#[path = "support/stage.rs"]
mod stage;
#[path = "report/stale.rs"]
mod stale;
#[path = "support/traces.rs"]
mod traces;
#[path = "support/trial.rs"]
mod trial;
#[path = "support/world.rs"]
mod world;
