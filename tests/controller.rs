//! The rules of a KubervisorService and of its activator, on a real control plane with a real `kubervisor controller`
//! process: what its users rely on, and the original's mistakes that must not come back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "controller/activator.rs"]
mod activator;
#[path = "controller/checked.rs"]
mod checked;
#[path = "controller/closed_loop.rs"]
mod closed_loop;
#[path = "support/controller.rs"]
mod controller;
#[path = "controller/explained.rs"]
mod explained;
#[path = "controller/floor.rs"]
mod floor;
#[path = "controller/labels.rs"]
mod labels;
#[path = "controller/notified.rs"]
mod notified;
#[path = "controller/overlap.rs"]
mod overlap;
#[path = "controller/owners.rs"]
mod owners;
#[path = "controller/people.rs"]
mod people;
#[path = "support/plane.rs"]
mod plane;
#[path = "support/ports.rs"]
mod ports;
#[path = "controller/rehearsal.rs"]
mod rehearsal;
#[path = "controller/release.rs"]
mod release;
#[path = "controller/requests.rs"]
mod requests;
#[path = "controller/restarts.rs"]
mod restarts;
#[path = "controller/scene.rs"]
mod scene;
#[path = "controller/selector.rs"]
mod selector;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/signals.rs"]
mod signals;
#[path = "controller/stored.rs"]
mod stored;
#[path = "controller/workloads.rs"]
mod workloads;
