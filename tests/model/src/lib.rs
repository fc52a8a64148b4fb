//! The gate's protocol as a model over the product's own `plan`: every order of events in small worlds.
//!
//! `decide` is a link to the product's folder.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

pub mod bridge;
#[allow(dead_code, reason = "the whole core is compiled, only the gate is checked")]
pub mod decide;
pub mod mutant;
pub mod protocol;
pub mod recovery;
pub mod world;
