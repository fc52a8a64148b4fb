//! The agent as a process: its keepalives, its payload file, its commands.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "agent/command_queue.rs"]
mod command_queue;
#[path = "agent/commands.rs"]
mod commands;
#[path = "agent/fixture.rs"]
mod fixture;
#[path = "support/python.rs"]
mod interpreter;
#[path = "agent/keepalives.rs"]
mod keepalives;
#[path = "agent/originals.rs"]
mod originals;
#[path = "agent/output.rs"]
mod output;
#[path = "agent/payloads.rs"]
mod payloads;
#[path = "agent/signals.rs"]
mod signals;
#[path = "agent/usage.rs"]
mod usage;
