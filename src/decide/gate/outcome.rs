//! The decisions as a ledger to store and actions to carry out.
//!
//! The ledger is stored first: a withdrawal without a stored reservation is missing in the budget of
//! the next plan. A plan over its own result has no actions and leaves the ledger unchanged.

use std::{borrow::Cow, time::Duration};

use super::{
    action::{Action, Guard, Verb, Write},
    assessment::{EntryAssessment, EntryDecision, ReleaseReason},
    ledger::{EntryState, Ledger, Returned, one_line},
    planning::Planning,
};
use crate::decide::{fleet::Traffic, time::Timestamp, verdict::Call};

/// Maximum age of the list of pods at the moment when a withdrawal is sent.
pub const LIST_AGE: Duration = Duration::from_secs(2);

/// The ledger to store; `None`: unchanged.
pub(super) fn next_ledger(planning: &Planning<'_>) -> Option<Ledger> {
    let changed = |slot: &EntryAssessment<'_>| matches!(slot.entry, Cow::Owned(_)) || !slot.held();
    let others = planning.panic != planning.ledger.panic
        || planning.kills != planning.ledger.kills
        || planning.reverted_until != planning.ledger.reverted_until
        || !planning.claims.is_empty();
    if !others && !planning.assessment.slots.iter().any(changed) {
        return None;
    }
    let mut next = planning.ledger.clone();
    next.serial = planning.write_fence.serial;
    next.panic = planning.panic;
    next.kills.clone_from(&planning.kills);
    next.reverted_until = planning.reverted_until.filter(|until| *until > planning.now);
    for slot in planning.assessment.slots.iter().filter(|slot| changed(slot)) {
        next.reserve(slot.entry.clone().into_owned());
        if let EntryDecision::Release(reason) = slot.decision {
            next.release(&slot.entry.uid, admitted(planning, slot, reason));
        }
    }
    forget(planning, &mut next);
    Some(next)
}

fn admitted(planning: &Planning<'_>, slot: &EntryAssessment<'_>, reason: ReleaseReason) -> Option<Timestamp> {
    let pod = planning.assessment.candidate_of(slot)?.pod;
    let at = pod
        .admitted_at
        .filter(|at| *at >= slot.entry.break_at && *at <= planning.now)
        .unwrap_or(planning.now);
    (reason == ReleaseReason::Admitted).then_some(at)
}

/// Drops returned pods that are deleted or whose withdrawals have all decayed.
fn forget(planning: &Planning<'_>, next: &mut Ledger) {
    let (now, fleet) = (planning.now, planning.fleet);
    next.returned.retain(|uid, pod| {
        let Returned { breaker, retry_count, admitted_at, spare_until, set_backs: _ } = pod;
        let period = planning.policy.activator(breaker).period;
        let counts = Ledger::decayed((*retry_count).max(1), *admitted_at, now, period) > 0;
        let gone = fleet.absence_proven && fleet.pod(uid.as_str()).is_none();
        !gone && (counts || spare_until.is_some_and(|until| until > now))
    });
}

/// The actions; those that raise capacity come first.
pub(super) fn actions(planning: &Planning<'_>) -> Vec<Action> {
    let mut actions: Vec<Action> = planning
        .assessment
        .slots
        .iter()
        .filter_map(|slot| action(planning, slot))
        .chain(claim_actions(planning))
        .collect();
    actions.sort_by_key(|action| rank(action.verb));
    actions
}

fn rank(verb: Verb) -> u8 {
    match verb {
        Verb::Cancel => 0,
        Verb::Admit => 1,
        Verb::Claim => 2,
        Verb::Pause => 3,
        Verb::Kill => 4,
        Verb::Withhold => 5,
        Verb::Release | Verb::Forget => 6,
    }
}

fn action(planning: &Planning<'_>, slot: &EntryAssessment<'_>) -> Option<Action> {
    let writes = !matches!(slot.decision, EntryDecision::Release(_));
    if writes && planning.assessment.candidate_of(slot).is_some_and(|candidate| candidate.pod.barred()) {
        return None;
    }
    let entry = &slot.entry;
    let guard = |traffic| Guard { traffic, fence: Some(entry.fence), ours: false, until: None };
    let withheld = if entry.state == EntryState::Paused { Traffic::Pause } else { Traffic::No };
    let fence = Some(entry.next);
    // Only a return by the activator counts its withdrawal.
    let marked = planning.assessment.candidate_of(slot).and_then(|candidate| candidate.pod.retry_count);
    let uncounted =
        Some(entry.earlier_retries()).filter(|earlier| marked.is_some_and(|count| count > *earlier));
    let (verb, guard, write) = match slot.decision {
        EntryDecision::Keep | EntryDecision::Wait => return None,
        EntryDecision::Withhold => {
            let guard =
                Guard { ours: true, until: Some(planning.now + LIST_AGE), ..guard(Some(Traffic::Yes)) };
            let write = Write {
                traffic: Some(Traffic::No),
                strategy: Some(entry.breaker.clone()),
                break_at: Some(entry.break_at),
                retry_count: Some(entry.retry_count),
                ..Write::default()
            };
            (Verb::Withhold, guard, write)
        }
        EntryDecision::Cancel => {
            (Verb::Cancel, guard(None), Write { fence, retry_count: uncounted, ..Write::default() })
        }
        EntryDecision::Admit => {
            let traffic = Some(Traffic::Yes);
            let write = Write {
                traffic,
                fence,
                retry_count: uncounted.filter(|_| !slot.counts),
                admitted_at: Some(planning.now),
                ..Write::default()
            };
            (Verb::Admit, guard(Some(withheld)), write)
        }
        EntryDecision::Pause => {
            let traffic = Some(Traffic::Pause);
            (Verb::Pause, guard(Some(Traffic::No)), Write { traffic, fence, ..Write::default() })
        }
        EntryDecision::Kill => (Verb::Kill, guard(Some(Traffic::No)), Write::default()),
        EntryDecision::Release(ReleaseReason::Replaced) => (Verb::Forget, guard(None), Write::default()),
        EntryDecision::Release(_) => (Verb::Release, guard(None), Write::default()),
    };
    let asked = planning.assessment.candidate_of(slot).and_then(|candidate| candidate.asked);
    let reason = match (slot.decision, asked) {
        (EntryDecision::Withhold, _) => entry.reason.clone(),
        (EntryDecision::Admit, Some(asked)) if asked.call == Call::Admit => one_line(asked.reason),
        _ => slot.reason.to_owned(),
    };
    let (uid, name, breaker) = (entry.uid.clone(), entry.name.clone(), entry.breaker.clone());
    Some(Action { verb, uid, name, guard, write, breaker, reason })
}

fn claim_actions<'d>(planning: &'d Planning<'_>) -> impl Iterator<Item = Action> + 'd {
    let pods = planning.claims.iter().filter_map(|&index| planning.assessment.candidates.get(index));
    pods.map(|candidate| {
        let pod = candidate.pod;
        let unlabelled = pod.traffic == Traffic::Unlabelled;
        let traffic = unlabelled.then_some(Traffic::Yes);
        Action {
            verb: Verb::Claim,
            uid: pod.uid.clone(),
            name: pod.name.clone(),
            guard: Guard {
                traffic: unlabelled.then_some(pod.traffic),
                fence: pod.fence,
                ours: false,
                until: None,
            },
            write: Write { traffic, fence: Some(planning.write_fence), ..Write::default() },
            breaker: String::new(),
            reason: "a pod without our name, fence or switch".to_owned(),
        }
    })
}

/// See [`super::Plan::committed`].
pub(super) fn committed(
    now: Timestamp,
    actions: &[Action],
    next: Option<&Ledger>,
    ledger: &Ledger,
) -> Option<Ledger> {
    let lands =
        |action: &&Action| !matches!(action.verb, Verb::Release | Verb::Forget | Verb::Claim | Verb::Kill);
    if next.is_none() && !actions.iter().any(|action| lands(&action)) {
        return None;
    }
    let mut landed = next.cloned().unwrap_or_else(|| Ledger { serial: ledger.serial + 1, ..ledger.clone() });
    for action in actions.iter().filter(lands) {
        match action.verb {
            Verb::Withhold => landed.landed(&action.uid),
            Verb::Pause => landed.paused(&action.uid),
            Verb::Cancel => landed.release(&action.uid, None),
            Verb::Admit => {
                if let (Some(count), Some(entry)) =
                    (action.write.retry_count, landed.entries.get_mut(&action.uid))
                {
                    entry.retry_count = count;
                }
                landed.release(&action.uid, Some(now));
            }
            Verb::Release | Verb::Forget | Verb::Claim | Verb::Kill => {}
        }
    }
    Some(landed)
}
