//! Fourth step: gives back whatever must not be withheld now, whatever the activator thinks.
//!
//! The best first, the paused last. Exactly as many as are missing: who restores everything below the
//! floor lets the worst pods in to gain one good one.

use super::{
    draft::Draft,
    ledger::State,
    survey::{Fate, Slot, Subject},
};
use crate::decide::fleet::Traffic;

/// Restores for good reason, in this order: all, because nothing may be withheld; else what is missing.
pub(super) fn restore(draft: &mut Draft<'_>) {
    if !draft.fleet.gated || draft.fleet.leaving {
        return restore_all(draft, true, "gating is off: everything is given back");
    }
    let frozen = draft.policy.paused;
    if draft.policy.dry_run && !frozen {
        return restore_all(draft, true, "dry run: everything is given back");
    }
    if draft.panic.is_some() && !frozen {
        return restore_all(draft, false, "panic: most of the fleet looks bad, so it is not the pods");
    }
    restore_missing(draft);
}

fn restore_all(draft: &mut Draft<'_>, paused_too: bool, why: &'static str) {
    for slot in &mut draft.survey.slots {
        let paused = matches!(slot.entry.state, State::Paused | State::Pausing);
        if paused_too || !paused {
            give_back(slot, why);
        }
    }
}

fn restore_missing(draft: &mut Draft<'_>) {
    let subjects = &draft.survey.subjects;
    let (mut back, mut excess) = (0_u32, draft.budget.excess());
    for slot in draft.survey.slots.iter().filter(|slot| slot.fate == Fate::Cancel) {
        let subject = slot.subject.and_then(|at| subjects.get(at));
        back +=
            u32::from(subject.is_some_and(|subject| subject.able() && subject.pod.traffic == Traffic::Yes));
        excess = excess.saturating_sub(1);
    }
    // admitted, but not yet counted: on their way, too
    back += draft.uncounted();
    let mut missing = draft.budget.missing().saturating_sub(back);
    if missing == 0 && excess == 0 {
        return;
    }
    for index in best_first(draft) {
        if missing == 0 && excess == 0 {
            break;
        }
        let subjects = &draft.survey.subjects;
        let Some(slot) = draft.survey.slots.get_mut(index) else { continue };
        let serves = slot.subject.and_then(|at| subjects.get(at)).is_some_and(Subject::able);
        if !serves && excess == 0 {
            continue;
        }
        let why = if excess > 0 {
            "more is withheld than the budget allows"
        } else {
            "the fleet is below its floor"
        };
        if give_back(slot, why) {
            excess = excess.saturating_sub(1);
            missing = missing.saturating_sub(u32::from(serves));
        }
    }
}

/// Places of the slots that could be given back: those that can serve before those that cannot, those that nobody
/// objects to before the bad, the mildest before the worst, paused ones last.
fn best_first(draft: &Draft<'_>) -> Vec<usize> {
    let slots = &draft.survey.slots;
    let mut order: Vec<_> = slots
        .iter()
        .enumerate()
        .filter(|(_, slot)| matches!(slot.fate, Fate::Keep | Fate::Pause | Fate::Kill))
        .filter_map(|(index, slot)| {
            let subject = draft.survey.subjects.get(slot.subject?)?;
            let paused = matches!(slot.entry.state, State::Paused | State::Pausing);
            let severity = subject.objection.map_or(-1.0, |objection| objection.severity);
            Some((index, paused, !subject.able(), severity, slot.entry.retry_count))
        })
        .collect();
    order.sort_by(|a, b| {
        let milder = a.3.total_cmp(&b.3).then(a.4.cmp(&b.4));
        a.1.cmp(&b.1).then(a.2.cmp(&b.2)).then(milder).then(a.0.cmp(&b.0))
    });
    order.into_iter().map(|(index, ..)| index).collect()
}

/// Admits what is out. What may still land is cancelled already; a person's pause stays.
pub(super) fn give_back(slot: &mut Slot<'_>, why: &'static str) -> bool {
    let open = matches!(slot.fate, Fate::Keep | Fate::Admit | Fate::Pause | Fate::Kill);
    let out = !matches!(slot.entry.state, State::Reserved | State::Cancelling);
    if !open || !out || slot.entry.human {
        return false;
    }
    if matches!(slot.entry.state, State::Killing | State::Pausing) {
        slot.turn(State::Withheld);
    }
    slot.decide(Fate::Admit, why);
    true
}
