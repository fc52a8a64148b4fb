//! Last step: who is withheld now: the worst first, and no more than the budget has room for.
//!
//! Silent pods go first: they serve nobody, so leaving them listed costs requests and taking them out
//! costs no service, only room in the ledger. But they pass this gate like any other: when it is *we*
//! who are deaf, the floor and the panic threshold keep them listed.

use std::borrow::Cow;

use super::{
    budget::Budget,
    draft::Draft,
    ledger::{CAP, Entry, Ledger, State, one_line},
    survey::{SILENCE, Subject},
};
use crate::decide::{
    fleet::Traffic,
    policy::Policy,
    verdict::{Evidence, Judgement, Opinion},
};

/// Why nothing is withheld by this plan, whoever is bad.
pub(super) fn hold<'a>(draft: &Draft<'a>) -> Option<&'a str> {
    let (policy, fleet) = (draft.policy, draft.fleet);
    let reasons = [
        (policy.paused, "frozen by spec.paused"),
        (policy.dry_run, "dry run"),
        (!fleet.gated || fleet.leaving, "gating is off"),
        (draft.panic.is_some(), "panic: most of the fleet looks bad"),
        (
            draft.reverted_until.is_some_and(|until| until > draft.now),
            "the last cut did not lower the share of bad pods: no new one for a while",
        ),
        (!draft.claims.is_empty(), "not every pod is claimed yet"),
        // it may show a pod as serving whose entry has come and gone since; where there is no room anyway, that is the
        // reason, and nobody asks for a better list
        (!fleet.absence_proven && has_room(draft), "the list of pods may be older than the ledger"),
    ];
    let own = reasons.into_iter().find_map(|(holds, why)| holds.then_some(why));
    own.or(fleet.hold.as_deref())
}

fn has_room(draft: &Draft<'_>) -> bool {
    draft.budget.may_withhold() > 0 || draft.budget.may_forget() > 0
}

/// Reserves and withholds.
pub(super) fn withhold(draft: &mut Draft<'_>) {
    if hold(draft).is_some() {
        return;
    }
    let silent: Vec<usize> = draft.places(|subject| listed(subject) && subject.silent());
    let now = draft.now;
    let mut bad = draft.places(|subject| {
        subject.serving && subject.objection.is_some() && !spared(subject, now) && listed(subject)
    });
    if silent.is_empty() && bad.is_empty() {
        return;
    }
    let mut room = Room::of(draft);
    for index in silent {
        if !room.take(draft, index, false) {
            return;
        }
    }
    draft.worst_first(&mut bad);
    for index in bad {
        if !room.take(draft, index, true) {
            return;
        }
    }
}

/// It gets traffic and no entry is about to change that.
pub(super) fn listed(subject: &Subject<'_>) -> bool {
    subject.pod.traffic == Traffic::Yes && subject.slot.is_none() && !subject.pod.terminating
}

/// A person gave it its traffic back a moment ago.
pub(super) fn spared(subject: &Subject<'_>, now: crate::decide::time::Timestamp) -> bool {
    subject.returned.and_then(|returned| returned.spare_until).is_some_and(|until| until > now)
}

/// What is left of the budget, and of the ledger's size, while reservations are made.
struct Room {
    budget: Budget,
    bytes: usize,
    bad_share: Option<u16>,
}

impl Room {
    fn of(draft: &Draft<'_>) -> Self {
        let bad_share = draft.policy.revert_if_no_better.map(|_| draft.bad_share());
        let grown = draft.survey.slots.iter().filter(|slot| matches!(slot.entry, Cow::Owned(_)));
        let grown: usize = grown.map(|slot| slot.entry.size()).sum();
        Self { budget: draft.budget, bytes: draft.ledger.size() + grown, bad_share }
    }

    /// Reserves the pod, if there is room. `false`: nobody else either.
    fn take(&mut self, draft: &mut Draft<'_>, index: usize, serves: bool) -> bool {
        let allowed = if serves { self.budget.may_withhold() } else { self.budget.may_forget() };
        let Some(subject) = draft.survey.subjects.get(index).copied() else { return true };
        if allowed == 0 {
            return false;
        }
        let Some(entry) = reservation(draft, &subject, self.bad_share) else { return true };
        self.bytes += entry.size();
        if self.bytes > CAP {
            draft.full = true;
            return false;
        }
        self.budget.entries += 1;
        self.budget.serving -= u32::from(serves);
        draft.reserve(index, entry);
        true
    }
}

fn reservation(draft: &Draft<'_>, subject: &Subject<'_>, bad_share: Option<u16>) -> Option<Entry> {
    let pod = subject.pod;
    let fence = pod.fence.filter(|fence| draft.stamp.newer(*fence))?;
    let (breaker, reason, cuts) = match &subject.objection {
        Some(objection) => (objection.breaker, said(objection.opinion), 1),
        None => (SILENCE, "silent for longer than its TTL".to_owned(), 0),
    };
    Some(Entry {
        uid: pod.uid.clone(),
        name: one_line(&pod.name),
        fence,
        next: draft.stamp,
        state: State::Reserved,
        breaker: one_line(breaker),
        reason: one_line(&reason),
        break_at: draft.now,
        retry_count: earlier_cuts(draft.policy, draft, subject, breaker).saturating_add(cuts),
        desired: draft.fleet.desired,
        human: false,
        spare: None,
        bad_before: bad_share.filter(|_| cuts > 0),
    })
}

/// The cuts that still count, less those that good service has made forgotten.
fn earlier_cuts(policy: &Policy, draft: &Draft<'_>, subject: &Subject<'_>, breaker: &str) -> u32 {
    let remembered = subject.returned.map(|returned| returned.retry_count);
    let cuts = remembered.max(subject.pod.retry_count).unwrap_or(0);
    let period = policy.activator(breaker).period;
    subject.admitted_at().map_or(cuts, |back| Ledger::decayed(cuts, back, draft.now, period))
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
