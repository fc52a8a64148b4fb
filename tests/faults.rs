//! Faults between a controller and its cluster, with a real controller on a real control plane: the API server freezes,
//! refuses requests, loses data or is restored from a backup; the endpoint controller hangs; rights are missing; the ledger is missing or unreadable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "faults/away.rs"]
mod away;
#[path = "safety/checker.rs"]
mod checker;
#[path = "support/controller.rs"]
mod controller;
#[path = "faults/definition.rs"]
mod definition;
#[path = "safety/history.rs"]
mod history;
#[path = "faults/ledger.rs"]
mod ledger;
#[path = "safety/objects.rs"]
mod objects;
#[path = "faults/owners.rs"]
mod owners;
#[path = "support/plane.rs"]
mod plane;
#[path = "support/ports.rs"]
mod ports;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "faults/refused.rs"]
mod refused;
#[path = "faults/rights.rs"]
mod rights;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/signals.rs"]
mod signals;
#[path = "faults/slices.rs"]
mod slices;
#[path = "safety/spans.rs"]
mod spans;
#[path = "faults/stage.rs"]
mod stage;
#[path = "safety/stored.rs"]
mod stored;
#[path = "faults/twins.rs"]
mod twins;
#[path = "safety/violation.rs"]
mod violation;
#[path = "faults/watches.rs"]
mod watches;
#[path = "faults/writes.rs"]
mod writes;
