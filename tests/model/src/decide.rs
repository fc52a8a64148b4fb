//! The pure core: what is true of the fleet, what is wrong with whom, and what may be done about it.
//!
//! Nothing in here reads a clock, a socket, a file or a random number. Time comes in as a
//! [`Moment`](time::Moment) or a [`Timestamp`](time::Timestamp); what should happen later goes out
//! as the next wake-up. So production, the simulation, the model and a dry run are one function.

#[macro_use]
mod string_conversions;

pub mod alarm_reason;
pub mod canonical;
pub mod damper;
pub mod detect;
pub mod digest;
pub mod ensemble;
pub mod fleet;
pub mod fleet_report;
pub mod gate;
pub mod keepalive;
pub mod key;
pub mod measurements;
pub mod policy;
pub mod roster;
pub mod sequence;
pub mod time;
pub mod verdict;
