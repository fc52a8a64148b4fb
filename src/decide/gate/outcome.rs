//! What was decided, as a ledger to store and actions to carry out.
//!
//! The ledger first: a withdrawal that is carried out before its reservation is stored is forgotten by
//! whoever takes over, and counted by nobody. Nothing changes when nothing was decided, so that a plan
//! made again on its own result writes nothing.

use std::{borrow::Cow, time::Duration};

use super::{
    action::{Action, Guard, Verb, Write},
    draft::Draft,
    ledger::{Ledger, Returned, State},
    survey::{Fate, Over, Slot},
};
use crate::decide::{fleet::Traffic, time::Timestamp};

/// A withdrawal is sent only while the list that it rests on is this young.
pub const LIST_AGE: Duration = Duration::from_secs(2);

/// The ledger to store, if anything in it changes.
pub(super) fn next_ledger(draft: &Draft<'_>) -> Option<Ledger> {
    let changed = |slot: &Slot<'_>| matches!(slot.entry, Cow::Owned(_)) || !slot.held();
    let others = draft.panic != draft.ledger.panic
        || draft.kills != draft.ledger.kills
        || draft.reverted_until != draft.ledger.reverted_until
        || !draft.claims.is_empty();
    if !others && !draft.survey.slots.iter().any(changed) {
        return None;
    }
    let mut next = draft.ledger.clone();
    next.serial = draft.stamp.serial;
    next.panic = draft.panic;
    next.kills.clone_from(&draft.kills);
    next.reverted_until = draft.reverted_until.filter(|until| *until > draft.now);
    for slot in draft.survey.slots.iter().filter(|slot| changed(slot)) {
        next.reserve(slot.entry.clone().into_owned());
        if let Fate::Release(over) = slot.fate {
            next.release(&slot.entry.uid, admitted(draft, slot, over));
        }
    }
    forget(draft, &mut next);
    Some(next)
}

fn admitted(draft: &Draft<'_>, slot: &Slot<'_>, over: Over) -> Option<Timestamp> {
    let pod = draft.survey.subjects.get(slot.subject?)?.pod;
    let at = pod.admitted_at.filter(|at| *at >= slot.entry.break_at && *at <= draft.now).unwrap_or(draft.now);
    (over == Over::Admitted).then_some(at)
}

/// Drops what need not be remembered: pods that are gone, cuts that good service has made forgotten.
fn forget(draft: &Draft<'_>, next: &mut Ledger) {
    let (now, fleet) = (draft.now, draft.fleet);
    next.returned.retain(|uid, pod| {
        let Returned { breaker, retry_count, admitted_at, spare_until } = pod;
        let period = draft.policy.activator(breaker).period;
        let counts = Ledger::decayed((*retry_count).max(1), *admitted_at, now, period) > 0;
        let gone = fleet.absence_proven && fleet.pod(uid.as_str()).is_none();
        !gone && (counts || spare_until.is_some_and(|until| until > now))
    });
}

/// The actions, those that give capacity back first.
pub(super) fn actions(draft: &Draft<'_>) -> Vec<Action> {
    let mut actions: Vec<Action> = draft
        .survey
        .slots
        .iter()
        .filter_map(|slot| action(draft, slot))
        .chain(claim_actions(draft))
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

fn action(draft: &Draft<'_>, slot: &Slot<'_>) -> Option<Action> {
    let entry = &slot.entry;
    let guard = |traffic| Guard { traffic, fence: Some(entry.fence), ours: false, until: None };
    let out = if entry.state == State::Paused { Traffic::Pause } else { Traffic::No };
    let fence = Some(entry.next);
    let (verb, guard, write) = match slot.fate {
        Fate::Keep | Fate::Wait => return None,
        Fate::Withhold => {
            let guard = Guard { ours: true, until: Some(draft.now + LIST_AGE), ..guard(Some(Traffic::Yes)) };
            let write = Write {
                traffic: Some(Traffic::No),
                strategy: Some(entry.breaker.clone()),
                break_at: Some(entry.break_at),
                retry_count: Some(entry.retry_count),
                ..Write::default()
            };
            (Verb::Withhold, guard, write)
        }
        Fate::Cancel => (Verb::Cancel, guard(None), Write { fence, ..Write::default() }),
        Fate::Admit => {
            let traffic = Some(Traffic::Yes);
            (
                Verb::Admit,
                guard(Some(out)),
                Write { traffic, fence, admitted_at: Some(draft.now), ..Write::default() },
            )
        }
        Fate::Pause => {
            let traffic = Some(Traffic::Pause);
            (Verb::Pause, guard(Some(Traffic::No)), Write { traffic, fence, ..Write::default() })
        }
        Fate::Kill => (Verb::Kill, guard(Some(Traffic::No)), Write::default()),
        Fate::Release(Over::Replaced) => (Verb::Forget, guard(None), Write::default()),
        Fate::Release(_) => (Verb::Release, guard(None), Write::default()),
    };
    let reason = if slot.fate == Fate::Withhold { entry.reason.clone() } else { slot.decision.to_owned() };
    let (uid, name, breaker) = (entry.uid.clone(), entry.name.clone(), entry.breaker.clone());
    Some(Action { verb, uid, name, guard, write, breaker, reason })
}

fn claim_actions<'d>(draft: &'d Draft<'_>) -> impl Iterator<Item = Action> + 'd {
    let pods = draft.claims.iter().filter_map(|&index| draft.survey.subjects.get(index));
    pods.map(|subject| {
        let pod = subject.pod;
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
            write: Write { traffic, fence: Some(draft.stamp), ..Write::default() },
            breaker: String::new(),
            reason: "a pod of the fleet without our name, fence or switch".to_owned(),
        }
    })
}

/// The ledger once all actions have landed together with it; see [`super::Plan::committed`].
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
            Verb::Admit => landed.release(&action.uid, Some(now)),
            Verb::Release | Verb::Forget | Verb::Claim | Verb::Kill => {}
        }
    }
    Some(landed)
}
