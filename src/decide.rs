//! The I/O-free core: the pods of the ensemble and the fleet, the detectors, and the gate's plan.
//!
//! No clock, socket, file or random number is read here (except the hash key of `ensemble::fingerprint`).
//! Time is a parameter: a [`Moment`](time::Moment) or a [`Timestamp`](time::Timestamp). Later work is returned
//! as the next wake-up. Production, the simulation, the model and a dry run therefore run the same code.

/// What `#[serde(try_from, into)]` needs of a type that is written as a text.
macro_rules! string_conversions {
    ($($kind:ty: $error:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(value: $kind) -> Self {
                value.to_string()
            }
        }
    )*};
}

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
pub mod policy;
pub mod roster;
pub mod sequence;
pub mod time;
pub mod verdict;
