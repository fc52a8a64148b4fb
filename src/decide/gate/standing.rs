//! When a plan is known to come out as the last one did. A replay asks for the plan at every evaluation of a week, and
//! most of the time all pods serve and no breaker objects.
//!
//! The proof is the state that [`Plan::stands`] asks for: without an entry in the ledger there is nothing to wait for, and
//! without an explanation every pod serves, is listed, and has no objection, so that no time is compared with the present
//! one. What is left of the verdicts is who has one, by which coverage and panic are counted.

use super::{Plan, ledger::Ledger};
use crate::decide::alarm_reason::AlarmReason;

impl Plan {
    /// Whether a plan at a later time for the same policy, fleet and `ledger`, which this plan was made for, differs in
    /// its time only, as long as each source is as calm as now.
    ///
    /// [`Source::is_as_calm_as`]: crate::decide::verdict::Source::is_as_calm_as
    pub fn stands(&self, ledger: &Ledger) -> bool {
        let unchanged = self.next.is_none() && self.actions.is_empty();
        let at_rest = ledger.entries.is_empty() && ledger.panic.is_none() && ledger.reverted_until.is_none();
        // A pod of a fight has an alarm for a time.
        let at_peace = ledger.returned.values().all(|returned| returned.set_backs == 0);
        // Its message lists breakers in the order of their last evaluation.
        let all_seen = !self.alarms.iter().any(|alarm| alarm.reason == AlarmReason::NoData);
        unchanged && at_rest && at_peace && all_seen && self.explanations.is_empty()
    }
}
