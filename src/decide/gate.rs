//! The gate: the only code that decides to take pods out of traffic, and that keeps the floor.
//!
//! [`plan`] is pure: production, the dry run, the simulation and the model run the same function. The
//! caller stores [`Plan::next`] by compare-and-swap before it carries out [`Plan::actions`]; after a
//! conflict it plans again, because an old plan over a new ledger can go below the floor.

pub mod action;
pub mod activator;
mod assessment;
mod breaker;
pub mod budget;
mod entry_assessment;
mod evidence;
pub mod explain;
pub mod fence;
mod fight;
pub mod fleet_alarms;
pub mod ledger;
mod outcome;
mod panic;
mod place;
mod planning;
mod request;
mod restore;
pub mod set_back;
mod standing;
pub mod verb;

use serde::Serialize;

use self::{
    action::Action, budget::Budget, explain::Explanation, fleet_alarms::FleetAlarm, ledger::Ledger,
    planning::Planning,
};
pub use self::{
    assessment::ADMISSION,
    ledger::{PERSON, SILENCE},
    outcome::LIST_AGE,
};
use super::{fleet::Fleet, policy::Policy, time::Timestamp, verdict::Verdicts};

/// A decision as immutable data: the executor either sends an action as it is or drops it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The time that the plan was made for.
    pub at: Timestamp,
    /// The ledger to store before any action is carried out; `None`: unchanged.
    pub next: Option<Ledger>,
    /// The actions, in the order of their execution.
    pub actions: Vec<Action>,
    /// The numbers of the floor, before the actions.
    pub budget: Budget,
    /// Why this plan withholds nothing; `None`: it may withhold.
    pub hold: Option<String>,
    /// Every pod that is withheld, not serving or objected to, in order of the UID.
    pub explanations: Vec<Explanation>,
    /// The alarms in force; an alarm that is missing here has ended.
    pub alarms: Vec<FleetAlarm>,
    /// When the plan changes without any new input.
    pub next_wakeup: Option<Timestamp>,
}

/// Plans for `fleet`, judged by `verdicts`, with the withdrawals of `ledger` under way.
pub fn plan(now: Timestamp, policy: &Policy, fleet: &Fleet, ledger: &Ledger, verdicts: &Verdicts) -> Plan {
    let mut planning = Planning::new(now, policy, fleet, ledger, verdicts);
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
        alarms: fleet_alarms::alarms(&planning),
        next_wakeup: planning.wakeup(),
    }
}

impl Plan {
    /// The ledger after this plan for a sink where storing it is the withdrawal (the endpoints file), so that every
    /// action lands with the store. `None`: unchanged.
    pub fn committed(&self, ledger: &Ledger) -> Option<Ledger> {
        outcome::committed(self.at, &self.actions, self.next.as_ref(), ledger)
    }

    /// Why a pod is or is not withheld; `None`: it serves and has no objection.
    pub fn explain(&self, uid: &str) -> Option<&Explanation> {
        let at = self.explanations.binary_search_by(|explanation| explanation.uid.as_str().cmp(uid)).ok()?;
        self.explanations.get(at)
    }
}

/// Plans for a dry run: the switches are those of the ledger `shadow`, `dryRun` is ignored, and nothing is carried
/// out. Returns the plan and the next shadow.
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
    // Nothing is sent, so the age of the list does not matter.
    (fleet.gated, fleet.absence_proven) = (true, true);
    let plan = plan(now, &policy, &fleet, shadow, verdicts);
    let next = plan.committed(shadow).unwrap_or_else(|| shadow.clone());
    (plan, next)
}
