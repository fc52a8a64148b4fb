//! Third step: admits what must not be withheld now, independent of the activators.
//!
//! Where `keepOnePerNode` holds and no pod of a node serves, the best one of it. Below the floor exactly as many as are missing, the best first and paused ones last: admitting all
//! would put the worst pods into traffic for the sake of one good pod.

use super::{
    assessment::{Candidate, EntryDecision},
    ledger::EntryState,
    place,
    planning::Planning,
};

/// Admits all entries when nothing may be withheld, else as many as the floor or the budget requires.
pub(super) fn restore(planning: &mut Planning<'_>) {
    if !planning.fleet.gated || planning.fleet.leaving {
        return restore_all(planning, true, "gating is off: everything is given back");
    }
    let frozen = planning.policy.paused;
    if planning.policy.dry_run && !frozen {
        return restore_all(planning, true, "dry run: everything is given back");
    }
    if planning.panic.is_some() && !frozen {
        return restore_all(
            planning,
            false,
            "panic: most of the fleet looks bad, so a shared cause is assumed",
        );
    }
    if !frozen {
        restore_strangers(planning);
    }
    restore_missing(planning);
}

/// Pods that the Service selects no more: withheld they help nobody, and their breaker may never look at them again.
fn restore_strangers(planning: &mut Planning<'_>) {
    let candidates = &planning.assessment.candidates;
    for slot in &mut planning.assessment.slots {
        if slot.candidate.and_then(|at| candidates.get(at)).is_some_and(|candidate| !candidate.pod.selected) {
            slot.admit("the Service selects it no more: given back");
        }
    }
}

fn restore_all(planning: &mut Planning<'_>, paused_too: bool, why: &'static str) {
    for slot in &mut planning.assessment.slots {
        let paused = matches!(slot.entry.state, EntryState::Paused | EntryState::Pausing);
        if paused_too || !paused {
            slot.admit(why);
        }
    }
}

fn restore_missing(planning: &mut Planning<'_>) {
    let candidates = &planning.assessment.candidates;
    let (mut back, mut excess) = (0_u32, planning.budget.excess());
    let slots = planning.assessment.slots.iter().filter(|slot| slot.decision == EntryDecision::Cancel);
    for slot in slots.filter(|slot| !planning.assessment.has_left(slot)) {
        let candidate = slot.candidate.and_then(|at| candidates.get(at));
        back += u32::from(candidate.is_some_and(|candidate| candidate.routable() && !candidate.pod.barred()));
        excess = excess.saturating_sub(1);
    }
    let mut missing = planning.budget.missing().saturating_sub(back);
    let mut bare = place::bare(&planning.assessment);
    for index in best_first(planning) {
        if missing == 0 && excess == 0 && bare.is_empty() {
            break;
        }
        let candidates = &planning.assessment.candidates;
        let Some(slot) = planning.assessment.slots.get_mut(index) else { continue };
        let candidate = slot.candidate.and_then(|at| candidates.get(at));
        let serves = candidate.is_some_and(Candidate::able);
        let place = candidate.and_then(|candidate| candidate.pod.place.as_ref()).filter(|_| serves);
        let fills = place.is_some_and(|place| bare.contains(place));
        if excess == 0 && !fills && !(serves && missing > 0) {
            continue;
        }
        let why = if excess > 0 {
            "more is withheld than the budget allows"
        } else if missing > 0 {
            "the fleet is below its floor"
        } else {
            "no other pod serves on its node"
        };
        if slot.admit(why) {
            if let Some(place) = place {
                bare.remove(place);
            }
            excess = excess.saturating_sub(1);
            missing = missing.saturating_sub(u32::from(serves));
        }
    }
}

/// Indices of the entries that can be admitted: paused last, able to serve before unable, without objection before bad,
/// lower severity and fewer withdrawals first.
fn best_first(planning: &Planning<'_>) -> Vec<usize> {
    let slots = &planning.assessment.slots;
    let mut order: Vec<_> = slots
        .iter()
        .enumerate()
        .filter(|(_, slot)| {
            matches!(slot.decision, EntryDecision::Keep | EntryDecision::Pause | EntryDecision::Kill)
        })
        .filter_map(|(index, slot)| {
            let candidate = planning.assessment.candidate_of(slot)?;
            let paused = matches!(slot.entry.state, EntryState::Paused | EntryState::Pausing);
            // One that cannot be admitted now must not take another one's place.
            if candidate.pod.barred() {
                return None;
            }
            let severity = candidate.objection.map_or(-1.0, |objection| objection.severity);
            Some((index, paused, !candidate.able(), severity, slot.entry.retry_count))
        })
        .collect();
    order.sort_by(|a, b| {
        let milder = a.3.total_cmp(&b.3).then(a.4.cmp(&b.4));
        a.1.cmp(&b.1).then(a.2.cmp(&b.2)).then(milder).then(a.0.cmp(&b.0))
    });
    order.into_iter().map(|(index, ..)| index).collect()
}
