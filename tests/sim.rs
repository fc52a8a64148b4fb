//! The program on a simulated network, with an API server that answers late, twice, with 429 or not at all, and machines
//! that lose the network, die, jump in time and have clocks of different speeds.
//!
//! Network, time and faults come from the seed. `SIM_SEED=7 cargo test --test sim NAME` runs one seed, `SIM_SEEDS=500` so
//! many, `SIM_MINUTES=10` new ones for that long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

#[path = "sim/api_server.rs"]
mod api_server;
#[path = "sim/client.rs"]
mod client;
#[path = "sim/coordination.rs"]
mod coordination;
#[path = "sim/gated.rs"]
mod gated;
#[path = "sim/mutant.rs"]
mod mutant;
#[path = "sim/mutants.rs"]
mod mutants;
#[path = "sim/objects.rs"]
mod objects;
#[path = "sim/plan.rs"]
mod plan;
#[path = "sim/random.rs"]
mod random;
#[path = "sim/recorder.rs"]
mod recorder;
#[path = "sim/replica.rs"]
mod replica;
#[path = "sim/seeds.rs"]
mod seeds;
#[path = "sim/sharing.rs"]
mod sharing;
#[path = "sim/two_owners.rs"]
mod two_owners;
#[path = "sim/worker.rs"]
mod worker;
#[path = "sim/world.rs"]
mod world;
#[path = "sim/writes.rs"]
mod writes;
