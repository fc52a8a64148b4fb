//! Simpler gates that were considered: each replaces one decision of the real gate from outside, and must violate a promise.

use crate::{
    bridge::{Floor, PackedPlan, View, plan_packed},
    world::{Kind, Message, PODS, PackedEntry, PackedFence, PackedLedger, Pod, Switch},
};

/// The decision that is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// Patches do not test the fence.
    NoFence,
    /// Any other fence counts as a newer one.
    UnequalIsNewer,
    /// After a conflict the old plan is applied to the new ledger.
    ReplayAfterConflict,
    /// The ledger is written without a test of the stored version.
    NoCompareAndSwap,
    /// A lost ledger is replaced without claiming every pod again.
    NoSweep,
    /// Each breaker counts only its own withdrawals.
    BudgetPerBreaker,
    /// The floor is a share of the serving pods.
    FloorOverServing,
    /// A pod without a fence may be reserved and gets none.
    AbsentFenceReservable,
    /// A pod that is missing in a list older than the ledger counts as deleted.
    AbsenceFromStaleRead,
    /// The fence is a number that restarts with the resource.
    FenceRestarts,
    /// A reserved pod counts as serving until its withdrawal is seen to land.
    ReservedCountsAsServing,
    /// A reservation that was not carried out is sent again later.
    RecoveryRepeats,
    /// An entry is released on a newer fence without traffic=yes.
    ReleaseWithoutYes,
    /// The entries are not subtracted from the budget.
    EntriesLeftOut,
    /// A ready pod counts as serving for a cut although no slice lists it.
    UnlistedCounts,
    /// A pod whose claim is refused counts as serving with the fence of another ledger, too.
    RefusedClaimCounts,
}

/// The plan of the mutant; of the real gate without one.
#[must_use]
pub fn decide(mutant: Option<Mutant>, view: &View) -> PackedPlan {
    match mutant {
        Some(Mutant::UnequalIsNewer) => unequal(view),
        Some(Mutant::BudgetPerBreaker) => per_breaker(view),
        Some(Mutant::FloorOverServing) => {
            let floor = Floor { count: view.floor.of(serving(view)), ratio: 0 };
            plan_packed(&View { floor, ..*view })
        }
        Some(Mutant::AbsentFenceReservable) => absent(view),
        Some(Mutant::AbsenceFromStaleRead) => plan_packed(&View { proven: true, ..*view }),
        Some(Mutant::ReservedCountsAsServing) => reserved(view),
        Some(Mutant::RecoveryRepeats) => repeat(view),
        Some(Mutant::ReleaseWithoutYes) => release(view),
        Some(Mutant::EntriesLeftOut) => plan_packed(&View {
            desired: view.desired + u32::try_from(view.ledger.count()).unwrap_or(0),
            ..*view
        }),
        Some(Mutant::UnlistedCounts) => {
            let mut seen = *view;
            seen.pods.iter_mut().for_each(|pod| pod.listed = pod.routable());
            plan_packed(&seen)
        }
        Some(Mutant::RefusedClaimCounts) => refused_counts(view),
        _ => plan_packed(view),
    }
}

/// Shows pods whose claim is refused without their fence.
fn refused_counts(view: &View) -> PackedPlan {
    let mut seen = *view;
    seen.pods.iter_mut().filter(|pod| pod.claim_refused).for_each(|pod| pod.fence = PackedFence::default());
    let mut plan = plan_packed(&seen);
    for message in plan.messages.iter_mut().filter(|message| message.kind == Kind::Claim) {
        message.fence = view.pods[usize::from(message.slot)].fence;
    }
    plan
}

fn entry_of<'b>(ledger: &'b PackedLedger, slot: usize, pod: &Pod) -> Option<&'b PackedEntry> {
    ledger.entries[slot].get(usize::from(pod.life)).filter(|entry| entry.state != 0)
}

fn serving(view: &View) -> u32 {
    let free = |(slot, pod): &(usize, &Pod)| pod.serves() && entry_of(&view.ledger, *slot, pod).is_none();
    u32::try_from(view.pods.iter().enumerate().filter(free).count()).unwrap_or(0)
}

/// Shows every fence that differs from the entry's as a newer one.
fn unequal(view: &View) -> PackedPlan {
    let mut seen = *view;
    for (slot, pod) in seen.pods.iter_mut().enumerate() {
        let Some(entry) = entry_of(&view.ledger, slot, pod) else { continue };
        if pod.fence != entry.fence && pod.fence.unpack().is_some() {
            pod.fence = PackedFence(entry.fence.0 + 1);
        }
    }
    plan_packed(&seen)
}

/// Shows the pods of the other breaker as serving, and restores their entries afterwards.
fn per_breaker(view: &View) -> PackedPlan {
    let mut seen = *view;
    let own = view.verdict.breaker;
    for (slot, pod) in seen.pods.iter_mut().enumerate() {
        let Some(entry) = entry_of(&view.ledger, slot, pod).copied() else { continue };
        if entry.breaker != own {
            pod.switch = Switch::Yes;
            seen.ledger.entries[slot][usize::from(pod.life)] = PackedEntry::default();
        }
    }
    restored(view, plan_packed(&seen), |entry| entry.breaker != own)
}

/// Hides reservations.
fn reserved(view: &View) -> PackedPlan {
    let mut seen = *view;
    let open = |entry: &PackedEntry| matches!(entry.state, 1 | 2);
    for entry in seen.ledger.entries.iter_mut().flatten().filter(|entry| open(entry)) {
        *entry = PackedEntry::default();
    }
    restored(view, plan_packed(&seen), open)
}

/// Restores the entries that were hidden from the plan, unless it made its own.
fn restored(view: &View, mut plan: PackedPlan, hidden: impl Fn(&PackedEntry) -> bool) -> PackedPlan {
    if let Some(next) = &mut plan.next {
        let both = next.entries.iter_mut().flatten().zip(view.ledger.entries.iter().flatten());
        both.filter(|(now, was)| now.state == 0 && was.state != 0 && hidden(was))
            .for_each(|(now, was)| *now = *was);
    }
    plan
}

/// Shows pods without a fence with the first one of the epoch, and makes the patch test its absence.
fn absent(view: &View) -> PackedPlan {
    let mut seen = *view;
    let first = 1 + view.ledger.epoch * 84;
    let without = |pod: &Pod| pod.ours && pod.fence == PackedFence::default();
    for pod in seen.pods.iter_mut().filter(|pod| without(pod)) {
        pod.fence = PackedFence(first);
    }
    let mut plan = plan_packed(&seen);
    for message in &mut plan.messages {
        if without(&view.pods[usize::from(message.slot)]) && message.fence == PackedFence(first) {
            message.fence = PackedFence::default();
        }
    }
    plan
}

/// Sends a reserved withdrawal again instead of cancelling it.
fn repeat(view: &View) -> PackedPlan {
    let mut plan = plan_packed(view);
    for message in plan.messages.iter_mut().filter(|message| message.kind == Kind::Cancel) {
        let entry = view.ledger.entries[usize::from(message.slot)][usize::from(message.life)];
        if entry.state != 1 {
            continue;
        }
        if let Some(next) = &mut plan.next {
            next.entries[usize::from(message.slot)][usize::from(message.life)] = entry;
        }
        *message = Message {
            kind: Kind::Withhold,
            switch: Switch::Yes,
            ours: true,
            new_fence: PackedFence::default(),
            new_switch: Switch::No,
            withheld_by: entry.breaker + 1,
            ledger_fence: entry.next,
            ..*message
        };
    }
    plan
}

/// Releases the entries of pods with a newer fence, independent of their switch.
fn release(view: &View) -> PackedPlan {
    let mut plan = plan_packed(view);
    let mut next = plan.next.unwrap_or(PackedLedger { serial: view.ledger.serial + 1, ..view.ledger });
    let mut dropped = false;
    for (slot, pod) in view.pods.iter().enumerate().take(PODS) {
        let Some(entry) = entry_of(&view.ledger, slot, pod) else { continue };
        let newer = pod.fence.unpack().zip(entry.fence.unpack()).is_some_and(|(pod, entry)| pod.newer(entry));
        if newer {
            next.entries[slot][usize::from(pod.life)] = PackedEntry::default();
            dropped = true;
        }
    }
    if dropped {
        plan.next = Some(next);
    }
    plan
}
