//! The gate in a simulated fleet: scenarios as text files, and regression tests for defects of the original.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "gate/alarms.rs"]
mod alarms;
#[path = "gate/mistakes.rs"]
mod mistakes;
#[path = "gate/refused.rs"]
mod refused;
#[path = "gate/returns.rs"]
mod returns;
#[path = "gate/scenario.rs"]
mod scenario;
#[path = "support/world.rs"]
mod world;
