//! The promise, shown on a real control plane: whatever crashes, lags, repeats or runs twice, no withdrawal of ours
//! leaves fewer pods serving than the floor, and in the end nothing is stuck or left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "safety/checker.rs"]
mod checker;
#[path = "support/controller.rs"]
mod controller;
#[path = "safety/crash.rs"]
mod crash;
#[path = "safety/cycle.rs"]
mod cycle;
#[path = "safety/driver.rs"]
mod driver;
#[path = "safety/fabricated.rs"]
mod fabricated;
#[path = "safety/fabricated_switches.rs"]
mod fabricated_switches;
#[path = "safety/faults.rs"]
mod faults;
#[path = "safety/history.rs"]
mod history;
#[path = "safety/mischief.rs"]
mod mischief;
#[path = "safety/objects.rs"]
mod objects;
#[path = "safety/plan.rs"]
mod plan;
#[path = "support/plane.rs"]
mod plane;
#[path = "support/ports.rs"]
mod ports;
#[path = "safety/proxied.rs"]
mod proxied;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/signals.rs"]
mod signals;
#[path = "safety/spans.rs"]
mod spans;
#[path = "safety/stored.rs"]
mod stored;
#[path = "safety/story.rs"]
mod story;
#[path = "safety/switches.rs"]
mod switches;
#[path = "safety/violation.rs"]
mod violation;
