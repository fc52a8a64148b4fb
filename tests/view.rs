//! The web view: pages of real masters and controllers, as a browser and as its enemies ask for them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "support/controller.rs"]
mod controller;
#[path = "view/http.rs"]
mod http;
#[path = "view/load.rs"]
mod load;
#[path = "view/pages.rs"]
mod pages;
#[path = "support/plane.rs"]
mod plane;
#[path = "support/ports.rs"]
mod ports;
#[path = "view/readers.rs"]
mod readers;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/signals.rs"]
mod signals;
#[path = "support/stage.rs"]
mod stage;
