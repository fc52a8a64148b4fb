//! `kubectl kubervisor` on a real API server, through a real kubectl.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "plugin/access.rs"]
mod access;
#[path = "plugin/completion.rs"]
mod completion;
#[path = "plugin/errors.rs"]
mod errors;
#[path = "plugin/explain.rs"]
mod explain;
#[path = "plugin/fixture.rs"]
mod fixture;
#[path = "plugin/formats.rs"]
mod formats;
#[path = "plugin/list.rs"]
mod list;
#[path = "support/plane.rs"]
mod plane;
#[path = "plugin/report.rs"]
mod report;
#[path = "plugin/switch.rs"]
mod switch;
#[path = "plugin/tree.rs"]
mod tree;
#[path = "plugin/watch.rs"]
mod watch;
