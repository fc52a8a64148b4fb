//! The gate: the only function that takes pods out of traffic, and why it never takes too many.
//!
//! [`plan`] is pure: production, the dry run, the simulation and the model run the same function. Its
//! caller stores [`Plan::next`] first (by compare-and-swap) and only then carries out
//! [`Plan::actions`]; on a conflict it plans again. It never replays an old plan over a new ledger.

pub mod action;
pub mod budget;
pub mod explain;
pub mod fence;
pub mod ledger;

use serde::Serialize;

use self::{
    action::Action,
    budget::Budget,
    explain::{Alarm, Explanation},
    ledger::Ledger,
};
use super::{fleet::Fleet, policy::Policy, time::Timestamp, verdict::Verdicts};

/// What to do now: immutable data that leaves the executor no choice but to send or to leave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// When it was made.
    pub at: Timestamp,
    /// The ledger to store before any action is carried out; `None`: it stays as it is.
    pub next: Option<Ledger>,
    /// What to do then, in this order.
    pub actions: Vec<Action>,
    /// The arithmetic, before the actions.
    pub budget: Budget,
    /// Pods that are not simply serving, in order of their UID.
    pub explanations: Vec<Explanation>,
    /// What a human must know now; what is not in here is over.
    pub alarms: Vec<Alarm>,
    /// Time alone changes something then.
    pub next_wakeup: Option<Timestamp>,
}

/// Decides what may be done about `verdicts` to `fleet`, given what `ledger` says is under way.
#[must_use]
pub fn plan(now: Timestamp, policy: &Policy, fleet: &Fleet, ledger: &Ledger, verdicts: &Verdicts) -> Plan {
    let _ = (policy, fleet, ledger, verdicts);
    Plan {
        at: now,
        next: None,
        actions: Vec::new(),
        budget: Budget::default(),
        explanations: Vec::new(),
        alarms: Vec::new(),
        next_wakeup: None,
    }
}

impl Plan {
    /// The ledger after this plan, where storing the ledger is the withdrawal itself (the endpoints file): every
    /// action has landed with it. `None`: nothing changes.
    #[must_use]
    pub fn committed(&self, ledger: &Ledger) -> Option<Ledger> {
        let _ = ledger;
        self.next.clone()
    }
}

/// The same decision on a fleet that only exists in `shadow`: nothing is to be carried out, the second value is
/// the next shadow. For dry runs.
#[must_use]
pub fn rehearse(
    now: Timestamp,
    policy: &Policy,
    fleet: &Fleet,
    shadow: &Ledger,
    verdicts: &Verdicts,
) -> (Plan, Ledger) {
    let plan = plan(now, policy, fleet, shadow, verdicts);
    (plan, shadow.clone())
}
