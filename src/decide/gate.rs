//! The gate: the only function that takes pods out of traffic, and why it never takes too many.
//!
//! [`plan`] is pure: production, the dry run, the simulation and the model run the same function. Its
//! caller stores [`Plan::next`] first (by compare-and-swap) and only then carries out
//! [`Plan::actions`]; on a conflict it plans again. It never replays an old plan over a new ledger.

pub mod action;
pub mod activator;
mod assessment;
mod breaker;
pub mod budget;
mod evidence;
pub mod explain;
pub mod fence;
pub mod ledger;
mod outcome;
mod panic;
mod planning;
mod restore;

use serde::Serialize;

use self::{
    action::Action,
    budget::Budget,
    explain::{Explanation, FleetAlarm},
    ledger::Ledger,
    planning::Planning,
};
pub use self::{
    assessment::{ADMISSION, SILENCE},
    outcome::LIST_AGE,
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
    /// Why nothing may be withheld at the moment, if so.
    pub hold: Option<String>,
    /// Pods that are not simply serving, in order of their UID.
    pub explanations: Vec<Explanation>,
    /// What a human must know now; what is not in here is over.
    pub alarms: Vec<FleetAlarm>,
    /// Time alone changes something then.
    pub next_wakeup: Option<Timestamp>,
}

/// Decides what may be done about `verdicts` to `fleet`, given what `ledger` says is under way.
#[must_use]
pub fn plan(now: Timestamp, policy: &Policy, fleet: &Fleet, ledger: &Ledger, verdicts: &Verdicts) -> Plan {
    let mut planning = Planning::open(now, policy, fleet, ledger, verdicts);
    restore::restore(&mut planning);
    activator::activate(&mut planning);
    breaker::withhold(&mut planning);
    Plan {
        at: now,
        next: outcome::next_ledger(&planning),
        actions: outcome::actions(&planning),
        budget: planning.budget,
        hold: breaker::hold(&planning).map(str::to_owned),
        explanations: explain::explanations(&planning),
        alarms: explain::alarms(&planning),
        next_wakeup: planning.wakeup(),
    }
}

impl Plan {
    /// The ledger after this plan, where storing the ledger is the withdrawal itself (the endpoints file): every
    /// action has landed with it. `None`: nothing changes.
    #[must_use]
    pub fn committed(&self, ledger: &Ledger) -> Option<Ledger> {
        outcome::committed(self.at, &self.actions, self.next.as_ref(), ledger)
    }

    /// Why that pod is or is not withheld; `None`: it serves, and nobody objects to it.
    #[must_use]
    pub fn explain(&self, uid: &str) -> Option<&Explanation> {
        let at = self.explanations.binary_search_by(|explanation| explanation.uid.as_str().cmp(uid)).ok()?;
        self.explanations.get(at)
    }
}

/// The same decision on a fleet whose switches exist only in `shadow`: nothing of it is to be carried out, the second
/// value is the next shadow. For dry runs, of a policy or of one breaker.
#[must_use]
pub fn rehearse(
    now: Timestamp,
    policy: &Policy,
    fleet: &Fleet,
    shadow: &Ledger,
    verdicts: &Verdicts,
) -> (Plan, Ledger) {
    let mut policy = policy.clone();
    policy.dry_run = false;
    policy.breakers.iter_mut().for_each(|breaker| breaker.dry_run = false);
    let mut fleet = fleet.clone().map(|pod| shadow.project(pod));
    // Nothing follows it, so that any list is good enough.
    (fleet.gated, fleet.absence_proven) = (true, true);
    let plan = plan(now, &policy, &fleet, shadow, verdicts);
    let next = plan.committed(shadow).unwrap_or_else(|| shadow.clone());
    (plan, next)
}
