//! One step of a plan: what is tested on the pod ([`Guard`]) and what is written if that holds ([`Write`]).
//!
//! Without its guard an action could land on a pod that has changed since the plan; the model goes
//! below the floor that way in four steps.

use serde::Serialize;

use super::fence::Fence;
pub use super::verb::Verb;
use crate::decide::{
    fleet::{Traffic, Uid},
    time::Timestamp,
};

/// What the write tests on the pod, besides its UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Guard {
    /// The value of the switch; `None`: any.
    pub traffic: Option<Traffic>,
    /// The fence; `None`: the pod has none (claims only).
    pub fence: Option<Fence>,
    /// `kubervisor/name` is this resource.
    pub ours: bool,
    /// The last time at which it may be sent; afterwards the reservation is cancelled.
    pub until: Option<Timestamp>,
}

/// What is written; `None`: unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Write {
    /// The switch.
    pub traffic: Option<Traffic>,
    /// The fence.
    pub fence: Option<Fence>,
    /// The breaker that withheld the pod.
    pub strategy: Option<String>,
    /// When the pod was withheld.
    pub break_at: Option<Timestamp>,
    /// Number of withdrawals of this pod.
    pub retry_count: Option<u32>,
    /// When the pod was admitted.
    pub admitted_at: Option<Timestamp>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Action {
    /// What is done.
    pub verb: Verb,
    /// The pod.
    pub uid: Uid,
    /// The pod's name, for display.
    pub name: String,
    /// The tests of the write.
    pub guard: Guard,
    /// The values to write.
    pub write: Write,
    /// The breaker whose entry this is.
    pub breaker: String,
    /// Why, in one line of text.
    pub reason: String,
}
