//! Why a pod is or is not withheld, in numbers.
//!
//! Kept as values and put into words only when somebody asks: a plan over ten thousand pods must not
//! write ten thousand sentences. A pod that serves and that nobody objects to has no entry here.

use std::fmt;

use serde::Serialize;

use crate::decide::{fleet::Uid, time::Timestamp};

/// What a human must know of the whole fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// Static: it labels a metric.
    pub reason: &'static str,
    /// What, where, what to do.
    pub message: String,
}

/// Every reason that a plan may alarm with; what is not in a plan's alarms is to be cleared.
pub const ALARMS: &[&str] = &[
    "below_floor",
    "floor_reached",
    "foreign_no",
    "ledger_full",
    "no_data",
    "odd_switch",
    "panic",
    "unclaimed",
    "unknown_listed",
    "withheld_for_good",
];

/// Where a pod stands after the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// It serves.
    Serving,
    /// It would serve, but is not ready, is deleted, or is not yet counted.
    NotServing,
    /// Silent, and listed all the same.
    ListedUnknown,
    /// On its way out.
    Leaving,
    /// Out.
    Withheld,
    /// Out until somebody says otherwise.
    Paused,
    /// On its way back.
    Returning,
    /// About to end.
    Ending,
    /// Somebody else took it out.
    Foreign,
}

/// What happens to it next, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NextStep {
    /// What.
    pub what: &'static str,
    /// When, if time alone decides.
    pub at: Option<Timestamp>,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Which.
    pub uid: Uid,
    /// For people.
    pub name: String,
    /// Where it stands.
    pub standing: Standing,
    /// The breaker or callback that objects, or withheld it.
    pub breaker: Option<String>,
    /// Its rule, value and threshold, or the callback's reason.
    pub why: Option<String>,
    /// Why this and not that, by the gate.
    pub decision: &'static str,
    /// What is next.
    pub next: Option<NextStep>,
    /// How often it was cut.
    pub retry_count: u32,
    /// Since when.
    pub since: Option<Timestamp>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.decision)?;
        if let Some(breaker) = &self.breaker {
            write!(f, "; {breaker}")?;
        }
        if let Some(why) = &self.why {
            write!(f, ": {why}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "; next: {}", next.what)?;
            next.at.iter().try_for_each(|at| write!(f, " at {at}"))?;
        }
        Ok(())
    }
}
