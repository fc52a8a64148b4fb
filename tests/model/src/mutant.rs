//! Simpler gates, each of which was once thought of: one decision of the real one is replaced, from outside.

use crate::{
    bridge::{Floor, Thought, View, think},
    world::{Book, Held, Kind, Mark, Message, PODS, Pod, Switch},
};

/// What is done otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// Patches do not test the fence.
    NoFence,
    /// Any other fence counts as a newer one.
    UnequalIsNewer,
    /// After a conflict the old plan is put over the new ledger.
    ReplayAfterConflict,
    /// The ledger is written whatever is stored.
    NoCompareAndSwap,
    /// A ledger that was lost begins anew without claiming every pod anew.
    NoSweep,
    /// Each breaker counts its own cuts only.
    BudgetPerBreaker,
    /// The floor is a share of the pods that serve.
    FloorOverServing,
    /// A pod without a fence may be reserved, and stays without.
    AbsentFenceReservable,
    /// A pod that is missing in a list older than the ledger counts as gone.
    AbsenceFromStaleRead,
    /// The fence is a number that begins anew with the resource.
    FenceRestarts,
    /// A reserved pod counts as serving until its withdrawal is known.
    ReservedCountsAsServing,
    /// What was reserved and not carried out is carried out later.
    RecoveryRepeats,
    /// A newer fence alone ends an entry.
    ReleaseWithoutYes,
    /// The entries are not subtracted from the budget.
    EntriesLeftOut,
}

/// The plan of that gate.
#[must_use]
pub fn decide(mutant: Option<Mutant>, view: &View) -> Thought {
    match mutant {
        Some(Mutant::UnequalIsNewer) => unequal(view),
        Some(Mutant::BudgetPerBreaker) => per_breaker(view),
        Some(Mutant::FloorOverServing) => {
            let floor = Floor { count: view.floor.of(serving(view)), ratio: 0 };
            think(&View { floor, ..*view })
        }
        Some(Mutant::AbsentFenceReservable) => absent(view),
        Some(Mutant::AbsenceFromStaleRead) => think(&View { proven: true, ..*view }),
        Some(Mutant::ReservedCountsAsServing) => reserved(view),
        Some(Mutant::RecoveryRepeats) => repeat(view),
        Some(Mutant::ReleaseWithoutYes) => release(view),
        Some(Mutant::EntriesLeftOut) => {
            think(&View { desired: view.desired + u32::try_from(view.book.count()).unwrap_or(0), ..*view })
        }
        _ => think(view),
    }
}

fn entry<'b>(book: &'b Book, slot: usize, pod: &Pod) -> Option<&'b Held> {
    book.held[slot].get(usize::from(pod.life)).filter(|held| held.state != 0)
}

fn serving(view: &View) -> u32 {
    let free = |(slot, pod): &(usize, &Pod)| pod.serves() && entry(&view.book, *slot, pod).is_none();
    u32::try_from(view.pods.iter().enumerate().filter(free).count()).unwrap_or(0)
}

/// Shows every fence that differs from the entry's as one that is newer.
fn unequal(view: &View) -> Thought {
    let mut seen = *view;
    for (slot, pod) in seen.pods.iter_mut().enumerate() {
        let Some(held) = entry(&view.book, slot, pod) else { continue };
        if pod.mark != held.mark && pod.mark.fence().is_some() {
            pod.mark = Mark(held.mark.0 + 1);
        }
    }
    think(&seen)
}

/// Shows the pods of the other breaker as if they served, and puts their entries back afterwards.
fn per_breaker(view: &View) -> Thought {
    let mut seen = *view;
    let own = view.verdict.breaker;
    for (slot, pod) in seen.pods.iter_mut().enumerate() {
        let Some(held) = entry(&view.book, slot, pod).copied() else { continue };
        if held.breaker != own {
            pod.switch = Switch::Yes;
            seen.book.held[slot][usize::from(pod.life)] = Held::default();
        }
    }
    restored(view, think(&seen), |held| held.breaker != own)
}

/// Hides what is reserved.
fn reserved(view: &View) -> Thought {
    let mut seen = *view;
    let open = |held: &Held| matches!(held.state, 1 | 2);
    for held in seen.book.held.iter_mut().flatten().filter(|held| open(held)) {
        *held = Held::default();
    }
    restored(view, think(&seen), open)
}

/// Puts back the entries that the plan was not shown, where it did not make its own.
fn restored(view: &View, mut thought: Thought, hidden: impl Fn(&Held) -> bool) -> Thought {
    if let Some(next) = &mut thought.next {
        let both = next.held.iter_mut().flatten().zip(view.book.held.iter().flatten());
        both.filter(|(now, was)| now.state == 0 && was.state != 0 && hidden(was))
            .for_each(|(now, was)| *now = *was);
    }
    thought
}

/// Shows pods without a fence as pods with the first one, and tests its absence.
fn absent(view: &View) -> Thought {
    let mut seen = *view;
    let first = 1 + view.book.epoch * 84;
    let without = |pod: &Pod| pod.ours && pod.mark == Mark::default();
    for pod in seen.pods.iter_mut().filter(|pod| without(pod)) {
        pod.mark = Mark(first);
    }
    let mut thought = think(&seen);
    for message in &mut thought.messages {
        if without(&view.pods[usize::from(message.slot)]) && message.mark == Mark(first) {
            message.mark = Mark::default();
        }
    }
    thought
}

/// Sends what was reserved once more instead of taking it back.
fn repeat(view: &View) -> Thought {
    let mut thought = think(view);
    for message in thought.messages.iter_mut().filter(|message| message.kind == Kind::Cancel) {
        let held = view.book.held[usize::from(message.slot)][usize::from(message.life)];
        if held.state != 1 {
            continue;
        }
        if let Some(next) = &mut thought.next {
            next.held[usize::from(message.slot)][usize::from(message.life)] = held;
        }
        *message = Message {
            kind: Kind::Withhold,
            switch: Switch::Yes,
            ours: true,
            new_mark: Mark::default(),
            new_switch: Switch::No,
            cut: held.breaker + 1,
            stamp: held.next,
            ..*message
        };
    }
    thought
}

/// Drops the entries of pods that show a newer fence, whatever their switch says.
fn release(view: &View) -> Thought {
    let mut thought = think(view);
    let mut next = thought.next.unwrap_or(Book { serial: view.book.serial + 1, ..view.book });
    let mut dropped = false;
    for (slot, pod) in view.pods.iter().enumerate().take(PODS) {
        let Some(held) = entry(&view.book, slot, pod) else { continue };
        let newer = pod.mark.fence().zip(held.mark.fence()).is_some_and(|(pod, held)| pod.newer(held));
        if newer {
            next.held[slot][usize::from(pod.life)] = Held::default();
            dropped = true;
        }
    }
    if dropped {
        thought.next = Some(next);
    }
    thought
}
