//! The wire against real peers: Python's zerorpc (2.7 and 3), curl, and malicious peers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "wire/bad_input.rs"]
mod bad_input;
#[path = "wire/golden.rs"]
mod golden;
#[path = "wire/house.rs"]
mod house;
#[path = "wire/http.rs"]
mod http;
#[path = "support/python.rs"]
mod interpreter;
#[path = "wire/limits.rs"]
mod limits;
#[path = "wire/ours.rs"]
mod ours;
#[path = "wire/python.rs"]
mod python;
