//! The web view: pages of real masters and controllers, as a browser and as its enemies ask for them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "view/http.rs"]
mod http;
#[path = "view/load.rs"]
mod load;
#[path = "view/pages.rs"]
mod pages;
#[path = "support/stage.rs"]
mod stage;
