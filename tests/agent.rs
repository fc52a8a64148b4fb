//! The agent as a process: what masters hear of it, what it does with its payload file, which commands it runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "agent/commands.rs"]
mod commands;
#[path = "agent/crew.rs"]
mod crew;
#[path = "agent/desk.rs"]
mod desk;
#[path = "support/python.rs"]
mod interpreter;
#[path = "agent/keepalives.rs"]
mod keepalives;
#[path = "agent/originals.rs"]
mod originals;
#[path = "agent/payloads.rs"]
mod payloads;
#[path = "agent/usage.rs"]
mod usage;
