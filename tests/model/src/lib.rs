//! The gate's protocol as a model over the product's own `plan`: every order of events in small worlds.
//!
//! `decide` is the product's folder itself (a link), so that what is checked is what runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

pub mod bridge;
#[allow(dead_code, reason = "the whole core is compiled, the gate is looked at")]
pub mod decide;
pub mod heal;
pub mod mutant;
pub mod protocol;
pub mod world;
