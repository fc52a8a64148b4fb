//! Last step: who is withheld now: the worst first, and no more than the budget has room for.
//!
//! Silent pods go first: they serve nobody, so leaving them listed costs requests and taking them out
//! costs no service, only room in the ledger. But they pass this gate like any other: when it is *we*
//! who are deaf, the floor and the panic threshold keep them listed.

use std::borrow::Cow;

use super::{
    assessment::{Candidate, SILENCE},
    budget::Budget,
    ledger::{CAP, Entry, EntryState, Ledger, one_line},
    planning::Planning,
};
use crate::decide::{
    fleet::Traffic,
    policy::Policy,
    verdict::{Evidence, Judgement, Opinion},
};

/// Why nothing is withheld by this plan, whoever is bad.
pub(super) fn hold<'a>(planning: &Planning<'a>) -> Option<&'a str> {
    let (policy, fleet) = (planning.policy, planning.fleet);
    let reasons = [
        (policy.paused, "frozen by spec.paused"),
        (policy.dry_run, "dry run"),
        (!fleet.gated || fleet.leaving, "gating is off"),
        (planning.panic.is_some(), "panic: most of the fleet looks bad"),
        (
            planning.reverted_until.is_some_and(|until| until > planning.now),
            "the last cut did not lower the share of bad pods: no new one for a while",
        ),
        (!planning.claims.is_empty(), "not every pod is claimed yet"),
        // it may show a pod as serving whose entry has come and gone since; where there is no room anyway, that is the
        // reason, and nobody asks for a better list
        (!fleet.absence_proven && has_room(planning), "the list of pods may be older than the ledger"),
    ];
    let own = reasons.into_iter().find_map(|(holds, why)| holds.then_some(why));
    own.or(fleet.hold.as_deref())
}

fn has_room(planning: &Planning<'_>) -> bool {
    planning.budget.may_withhold() > 0 || planning.budget.may_forget() > 0
}

/// Reserves and withholds.
pub(super) fn withhold(planning: &mut Planning<'_>) {
    if hold(planning).is_some() {
        return;
    }
    let silent: Vec<usize> = planning.places(|candidate| listed(candidate) && candidate.silent());
    let now = planning.now;
    let mut bad = planning.places(|candidate| {
        candidate.serving && candidate.objection.is_some() && !spared(candidate, now) && listed(candidate)
    });
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

/// It gets traffic and no entry is about to change that.
pub(super) fn listed(candidate: &Candidate<'_>) -> bool {
    candidate.pod.traffic == Traffic::Yes && candidate.slot.is_none() && !candidate.pod.terminating
}

/// A person gave it its traffic back a moment ago.
pub(super) fn spared(candidate: &Candidate<'_>, now: crate::decide::time::Timestamp) -> bool {
    candidate.returned.and_then(|returned| returned.spare_until).is_some_and(|until| until > now)
}

/// What is left of the budget, and of the ledger's size, while reservations are made.
struct RemainingBudget {
    budget: Budget,
    bytes: usize,
    bad_share: Option<u16>,
}

impl RemainingBudget {
    fn of(planning: &Planning<'_>) -> Self {
        let bad_share = planning.policy.revert_if_no_better.map(|_| planning.bad_share());
        let grown = planning.assessment.slots.iter().filter(|slot| matches!(slot.entry, Cow::Owned(_)));
        let grown: usize = grown.map(|slot| slot.entry.size()).sum();
        Self { budget: planning.budget, bytes: planning.ledger.size() + grown, bad_share }
    }

    /// Reserves the pod, if there is room. `false`: nobody else either.
    fn take(&mut self, planning: &mut Planning<'_>, index: usize, serves: bool) -> bool {
        let allowed = if serves { self.budget.may_withhold() } else { self.budget.may_forget() };
        let Some(candidate) = planning.assessment.candidates.get(index).copied() else { return true };
        if allowed == 0 {
            return false;
        }
        let Some(entry) = reservation(planning, &candidate, self.bad_share) else { return true };
        self.bytes += entry.size();
        if self.bytes > CAP {
            planning.full = true;
            return false;
        }
        self.budget.entries += 1;
        self.budget.serving -= u32::from(serves);
        planning.reserve(index, entry);
        true
    }
}

fn reservation(planning: &Planning<'_>, candidate: &Candidate<'_>, bad_share: Option<u16>) -> Option<Entry> {
    let pod = candidate.pod;
    let fence = pod.fence.filter(|fence| planning.write_fence.newer(*fence))?;
    let (breaker, reason, cuts) = match &candidate.objection {
        Some(objection) => (objection.breaker, said(objection.opinion), 1),
        None => (SILENCE, "silent for longer than its TTL".to_owned(), 0),
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
    })
}

/// The cuts that still count, less those that good service has made forgotten.
fn earlier_cuts(policy: &Policy, planning: &Planning<'_>, candidate: &Candidate<'_>, breaker: &str) -> u32 {
    let remembered = candidate.returned.map(|returned| returned.retry_count);
    let cuts = remembered.max(candidate.pod.retry_count).unwrap_or(0);
    let period = policy.activator(breaker).period;
    candidate.admitted_at().map_or(cuts, |back| Ledger::decayed(cuts, back, planning.now, period))
}

/// An opinion in words.
pub(super) fn said(opinion: &Opinion) -> String {
    match opinion {
        Opinion::Judged(Judgement::Bad { evidence, .. }) => Evidence::to_string(evidence),
        Opinion::Judged(_) => String::new(),
        Opinion::Called { reason, .. } if reason.is_empty() => "a callback says so".to_owned(),
        Opinion::Called { reason, .. } => reason.clone(),
    }
}
