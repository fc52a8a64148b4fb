//! The I/O-free core: the pods of the ensemble and the fleet, the detectors, and the gate's plan.
//!
//! No clock, socket, file or random number is read here (except the hash key of `ensemble::fingerprint`).
//! Time is a parameter: a [`Moment`](time::Moment) or a [`Timestamp`](time::Timestamp). Later work is returned
//! as the next wake-up. Production, the simulation, the model and a dry run therefore run the same code.

#[macro_use]
mod string_conversions;

pub mod alarm_reason;
pub mod assignment;
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
pub mod label;
pub mod measurements;
pub mod policy;
pub mod replay;
pub mod roster;
pub mod sequence;
pub mod time;
pub mod verdict;
