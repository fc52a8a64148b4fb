//! One entry of the ledger and what the plan does about it.

use std::borrow::Cow;

use super::ledger::{Entry, EntryState};
use crate::decide::time::Timestamp;

/// What the plan does about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryDecision {
    Keep,
    /// Nothing is done until the pod is listed or claimed again.
    Wait,
    Withhold,
    Cancel,
    Admit,
    Pause,
    Kill,
    /// The withdrawal cannot land any more.
    Release(ReleaseReason),
}

/// Why an entry is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReleaseReason {
    /// The pod serves again.
    Admitted,
    /// The pod is deleted or terminating.
    Gone,
    /// The pod is silent, and it was replaced or the fleet was scaled down.
    Replaced,
    /// Another writer set the switch.
    Foreign,
}

/// What happens to an entry at which time.
pub(super) type Due = (&'static str, Timestamp);

/// One entry and the decision about it. A changed entry is `Owned`.
#[derive(Clone, Debug)]
pub(super) struct EntryAssessment<'a> {
    pub(super) entry: Cow<'a, Entry>,
    /// Index of its pod among the candidates.
    pub(super) candidate: Option<usize>,
    pub(super) decision: EntryDecision,
    pub(super) reason: &'static str,
    pub(super) due: Option<Due>,
    /// Its return is the activator's, so that the withdrawal counts as a retry.
    pub(super) counts: bool,
}

impl<'a> EntryAssessment<'a> {
    pub(super) fn new(
        entry: Cow<'a, Entry>,
        candidate: Option<usize>,
        decision: EntryDecision,
        reason: &'static str,
    ) -> Self {
        Self { entry, candidate, decision, reason, due: None, counts: false }
    }

    pub(super) fn decide(&mut self, decision: EntryDecision, reason: &'static str) {
        (self.decision, self.reason, self.due) = (decision, reason, None);
    }

    pub(super) fn set_state(&mut self, state: EntryState) {
        if self.entry.state != state {
            self.entry.to_mut().state = state;
        }
    }

    /// Admits an entry that is withheld; not one that may still land (it is cancelled) nor a person's pause.
    pub(super) fn admit(&mut self, why: &'static str) -> bool {
        let open = matches!(
            self.decision,
            EntryDecision::Keep | EntryDecision::Admit | EntryDecision::Pause | EntryDecision::Kill
        );
        let out = !matches!(self.entry.state, EntryState::Reserved | EntryState::Cancelling);
        if !open || !out || self.entry.human {
            return false;
        }
        if matches!(self.entry.state, EntryState::Killing | EntryState::Pausing) {
            self.set_state(EntryState::Withheld);
        }
        self.decide(EntryDecision::Admit, why);
        true
    }

    /// Whether the entry stays in the ledger.
    pub(super) fn held(&self) -> bool {
        !matches!(self.decision, EntryDecision::Release(_))
    }
}
