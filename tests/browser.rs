//! The pages in a real Chromium: they are drawn, keep themselves up to date, and their pictures go into the docs.
//!
//! `make test-node` runs this; `UPDATE_DOCS=1` writes the pictures anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "support/backfill.rs"]
mod backfill;
#[path = "browser/chromium.rs"]
mod chromium;
#[path = "browser/live.rs"]
mod live;
#[path = "support/ports.rs"]
mod ports;
#[path = "browser/report.rs"]
mod report;
#[path = "support/scraper.rs"]
mod scraper;
#[path = "support/stage.rs"]
mod stage;
