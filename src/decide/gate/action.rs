//! One step of a plan, so exact that the executor can only send it or leave it.
//!
//! Each action carries what must still be true of the pod (its [`Guard`]) and what is written then.
//! An action without its guards would be replayed over a pod that has changed meanwhile: four steps
//! are enough to go below the floor that way.

use serde::Serialize;

use super::fence::Fence;
use crate::decide::{
    fleet::{Traffic, Uid},
    time::Timestamp,
};

/// What is done to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// Puts our name and a fence on it; traffic=yes where there is no switch.
    Claim,
    /// traffic=no. Only after the ledger with its reservation is stored.
    Withhold,
    /// Takes back a withdrawal that may or may not land: a new fence, the switch as it is.
    Cancel,
    /// traffic=yes and a new fence; the breaker's name and breakAt go (a cancel leaves them: the withdrawal may have
    /// landed, and without them it would look like somebody else's).
    Admit,
    /// traffic=pause and a new fence.
    Pause,
    /// Ends the pod's life.
    Kill,
    /// The entry is gone from the ledger; nothing is written to the pod.
    Release,
    /// As `Release`, of a pod that is silent and whose place is filled: it is no pod of the fleet any more (without
    /// Kubernetes: drop it from the roster, or it would be listed again).
    Forget,
}

/// What must be true of the pod at the moment of the write, beside its UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Guard {
    /// The switch says this; `None`: whatever it says.
    pub traffic: Option<Traffic>,
    /// The fence is exactly this; `None`: there is none (claims only).
    pub fence: Option<Fence>,
    /// It carries our name.
    pub ours: bool,
    /// Send only until then; later, cancel.
    pub until: Option<Timestamp>,
}

/// What is written; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Write {
    /// The switch.
    pub traffic: Option<Traffic>,
    /// The fence.
    pub fence: Option<Fence>,
    /// The breaker that cut it.
    pub strategy: Option<String>,
    /// When it was cut.
    pub break_at: Option<Timestamp>,
    /// How often.
    pub retry_count: Option<u32>,
    /// When it was given its traffic back.
    pub admitted_at: Option<Timestamp>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Action {
    /// What.
    pub verb: Verb,
    /// To whom.
    pub uid: Uid,
    /// For people.
    pub name: String,
    /// If this still holds.
    pub guard: Guard,
    /// Then this is written.
    pub write: Write,
    /// The breaker on whose account.
    pub breaker: String,
    /// Why, in one line.
    pub reason: String,
}
