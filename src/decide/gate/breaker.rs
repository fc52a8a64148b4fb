//! Last step: withholds the worst pods, as many as the budget allows.
//!
//! Silent pods first: they fail requests while listed, and withholding them lowers no capacity. Floor
//! and panic threshold hold for them too, because a partition of the master makes live pods silent.

use std::borrow::Cow;

use super::{
    assessment::Candidate,
    budget::Budget,
    ledger::{CAP, Entry, EntryState, Ledger, PERSON, SILENCE, one_line},
    place::Places,
    planning::Planning,
};
use crate::decide::{
    fleet::Traffic,
    policy::Policy,
    time::Timestamp,
    verdict::{Call, Evidence, Judgement, Opinion},
};

/// Why this plan withholds nothing, independent of the verdicts.
pub(super) fn hold<'a>(planning: &Planning<'a>) -> Option<&'a str> {
    let (policy, fleet) = (planning.policy, planning.fleet);
    let reasons = [
        (policy.paused, "paused by spec.paused or a person's request"),
        (policy.dry_run, "dry run"),
        (!fleet.gated || fleet.leaving, "gating is off"),
        (planning.panic.is_some(), "panic: most of the fleet looks bad"),
        (
            planning.reverted_until.is_some_and(|until| until > planning.now),
            "the last cut did not lower the share of bad pods: no new one for a while",
        ),
        (!planning.unclaimed.is_empty(), "not every pod is claimed yet"),
        // Such a list may show a pod as serving that was withheld and released since. Without room it does not matter.
        (!fleet.absence_proven && has_room(planning), "the list of pods may be older than the ledger"),
    ];
    let own = reasons.into_iter().find_map(|(holds, why)| holds.then_some(why));
    own.or(fleet.hold.as_deref())
}

fn has_room(planning: &Planning<'_>) -> bool {
    planning.budget.may_withhold() > 0 || planning.budget.room_for_unserving() > 0
}

/// Reserves the pods to withhold.
pub(super) fn withhold(planning: &mut Planning<'_>) {
    if hold(planning).is_some() {
        return;
    }
    let silent: Vec<usize> = planning.indices(|candidate| listed(candidate) && candidate.silent());
    let now = planning.now;
    let mut bad = planning.indices(|candidate| to_withhold(candidate, now));
    if silent.is_empty() && bad.is_empty() {
        return;
    }
    let mut room = RemainingBudget::of(planning);
    for index in silent {
        if !room.take(planning, index, false) {
            return;
        }
    }
    planning.worst_first(&mut bad);
    for index in bad {
        if !room.take(planning, index, true) {
            return;
        }
    }
}

/// traffic=yes, no entry, and not terminating.
pub(super) fn listed(candidate: &Candidate<'_>) -> bool {
    candidate.pod.traffic == Traffic::Yes && candidate.slot.is_none() && !candidate.pod.terminating
}

/// It cannot be claimed, or nothing may be written to it yet.
pub(super) fn refused(candidate: &Candidate<'_>) -> bool {
    candidate.pod.claim_refused() || candidate.pod.barred()
}

/// Bad and serving, and only budget, panic or hold keep it from being withheld.
pub(super) fn bad_and_serving(candidate: &Candidate<'_>, now: Timestamp) -> bool {
    candidate.objection.is_some() && !spared(candidate, now) && can_be_withheld(candidate)
}

/// As [`bad_and_serving`], or a person asks for it.
fn to_withhold(candidate: &Candidate<'_>, now: Timestamp) -> bool {
    let asked = candidate.is_asked_to(Call::Withhold) && can_be_withheld(candidate);
    asked || bad_and_serving(candidate, now)
}

fn can_be_withheld(candidate: &Candidate<'_>) -> bool {
    candidate.serving && listed(candidate) && !candidate.is_asked_to(Call::Admit) && !refused(candidate)
}

/// A person admitted it less than one activator period ago.
pub(super) fn spared(candidate: &Candidate<'_>, now: Timestamp) -> bool {
    candidate.returned.and_then(|returned| returned.spare_until).is_some_and(|until| until > now)
}

/// The budget and the ledger's size in bytes, while reservations are made.
struct RemainingBudget {
    budget: Budget,
    bytes: usize,
    places: Places,
    bad_share: Option<u16>,
}

impl RemainingBudget {
    fn of(planning: &Planning<'_>) -> Self {
        let bad_share = planning.policy.revert_if_no_better.map(|_| planning.bad_share());
        let grown = planning.assessment.slots.iter().filter(|slot| matches!(slot.entry, Cow::Owned(_)));
        let grown: usize = grown.map(|slot| slot.entry.size()).sum();
        let places = Places::of(&planning.assessment);
        Self { budget: planning.budget, bytes: planning.ledger.size() + grown, places, bad_share }
    }

    /// Reserves the pod if there is room. `false`: there is none for any other pod either.
    fn take(&mut self, planning: &mut Planning<'_>, index: usize, serves: bool) -> bool {
        let allowed = if serves { self.budget.may_withhold() } else { self.budget.room_for_unserving() };
        let Some(candidate) = planning.assessment.candidates.get(index).copied() else { return true };
        if allowed == 0 {
            return false;
        }
        if self.places.is_last(&candidate) {
            return true;
        }
        let Some(entry) = reservation(planning, &candidate, self.bad_share) else { return true };
        self.bytes += entry.size();
        if self.bytes > CAP {
            planning.full = true;
            return false;
        }
        self.budget.entries += 1;
        self.budget.serving -= u32::from(serves);
        self.places.withhold(&candidate);
        planning.reserve(index, entry);
        true
    }
}

fn reservation(planning: &Planning<'_>, candidate: &Candidate<'_>, bad_share: Option<u16>) -> Option<Entry> {
    let pod = candidate.pod;
    let fence = pod.fence.filter(|fence| planning.write_fence.newer(*fence))?;
    let asked = candidate.asked.filter(|asked| asked.call == Call::Withhold && !candidate.silent());
    let (breaker, reason, cuts) = match (asked, &candidate.objection) {
        (Some(asked), _) => (PERSON, asked.reason.to_owned(), 0),
        (None, Some(objection)) => (objection.breaker, describe(objection.opinion), 1),
        (None, None) => (SILENCE, "silent for longer than its TTL".to_owned(), 0),
    };
    Some(Entry {
        uid: pod.uid.clone(),
        name: one_line(&pod.name),
        fence,
        next: planning.write_fence,
        state: EntryState::Reserved,
        breaker: one_line(breaker),
        reason: one_line(&reason),
        break_at: planning.now,
        retry_count: earlier_cuts(planning.policy, planning, candidate, breaker).saturating_add(cuts),
        desired: planning.fleet.desired,
        human: false,
        spare: None,
        bad_before: bad_share.filter(|_| cuts > 0),
        set_backs: candidate.returned.map_or(0, |returned| returned.set_backs),
    })
}

/// Earlier withdrawals of the pod that still count (see [`Ledger::decayed`]).
fn earlier_cuts(policy: &Policy, planning: &Planning<'_>, candidate: &Candidate<'_>, breaker: &str) -> u32 {
    let remembered = candidate.returned.map(|returned| returned.retry_count);
    let cuts = remembered.or(candidate.pod.retry_count).unwrap_or(0);
    let period = policy.activator(breaker).period;
    candidate.admitted_at().map_or(cuts, |back| Ledger::decayed(cuts, back, planning.now, period))
}

/// The evidence of an objection as text.
pub(super) fn describe(opinion: &Opinion) -> String {
    match opinion {
        Opinion::Judged(Judgement::Bad { evidence, .. }) => Evidence::to_string(evidence),
        Opinion::Judged(_) => String::new(),
        Opinion::Requested { reason, .. } => reason.clone(),
        Opinion::Called { reason, .. } if reason.is_empty() => "a callback, without a reason".to_owned(),
        Opinion::Called { reason, .. } => reason.clone(),
    }
}
