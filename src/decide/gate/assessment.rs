//! First step: joins pods and ledger by UID, and finds out what became of each withdrawal.
//!
//! Both are needed: a reservation may have landed since, or a person may have set the switch, so the
//! ledger alone would leave pods without traffic; the pods alone do not show what is under way.

use std::{borrow::Cow, time::Duration};

pub(super) use super::entry_assessment::{Due, EntryAssessment, EntryDecision, ReleaseReason};
use super::{
    fence::Fence,
    ledger::{Entry, EntryState, Ledger, Returned, one_line},
    set_back,
};
use crate::decide::{
    fleet::{Epoch, Fleet, PodView, Presence, Traffic, Uid, count},
    policy::Policy,
    time::Timestamp,
    verdict::{Call, Opinion},
};

/// A pod that could serve and is not listed counts for a restore for this long, so that a rollout's new pods, which are
/// listed a moment later, restore none. For a cut it never counts: an endpoint controller that hangs lists none of them.
pub const ADMISSION: Duration = Duration::from_secs(5);

/// A person's request about a pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) call: Call,
    /// Who asks, until when and why.
    pub(super) reason: &'a str,
    pub(super) until: Timestamp,
}

/// The strictest verdict in force against a pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Objection<'a> {
    pub(super) breaker: &'a str,
    pub(super) severity: f64,
    pub(super) call: Call,
    pub(super) opinion: &'a Opinion,
}

/// One pod with its entry and the verdicts on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) pod: &'a PodView,
    pub(super) slot: Option<usize>,
    pub(super) returned: Option<&'a Returned>,
    /// It serves, and is listed.
    pub(super) serving: bool,
    /// It serves, and was listed by none for less than [`ADMISSION`].
    pub(super) joining: bool,
    pub(super) objection: Option<Objection<'a>>,
    /// The breaker in dry run that objects to it.
    pub(super) rehearsed: Option<&'a str>,
    /// A source in force has a verdict on it.
    pub(super) judged: bool,
    /// A callback's call is `admit`.
    pub(super) admit: bool,
    /// A person's request about it that is in force.
    pub(super) asked: Option<Asked<'a>>,
}

impl Candidate<'_> {
    pub(super) fn silent(&self) -> bool {
        self.pod.presence == Presence::Unknown
    }

    /// Whether a person's request in force is this one.
    pub(super) fn is_asked_to(&self, call: Call) -> bool {
        self.asked.is_some_and(|asked| asked.call == call)
    }

    /// When it was last admitted.
    pub(super) fn admitted_at(&self) -> Option<Timestamp> {
        self.returned.map(|returned| returned.admitted_at).max(self.pod.admitted_at)
    }

    /// Whether it could serve with traffic=yes.
    pub(super) fn able(&self) -> bool {
        self.pod.selected && self.pod.ready && !self.pod.terminating && !self.silent()
    }

    /// Whether it could serve and has traffic=yes.
    pub(super) fn routable(&self) -> bool {
        self.able() && self.pod.traffic == Traffic::Yes
    }
}

/// Pods and entries, joined.
pub(super) struct Assessment<'a> {
    pub(super) candidates: Vec<Candidate<'a>>,
    pub(super) slots: Vec<EntryAssessment<'a>>,
}

/// Joins the fleet with the ledger and finds out what became of each entry.
pub(super) fn assessment<'a>(
    now: Timestamp,
    policy: &Policy,
    fleet: &'a Fleet,
    ledger: &'a Ledger,
    write_fence: Fence,
) -> Assessment<'a> {
    let mut slots: Vec<EntryAssessment<'a>> = ledger
        .entries
        .values()
        .map(|entry| EntryAssessment::new(Cow::Borrowed(entry), None, EntryDecision::Keep, "withheld"))
        .collect();
    let candidates = join(now, fleet, ledger, write_fence, &mut slots);
    let mut assessment = Assessment { candidates, slots };
    assessment.reconcile(now, policy, fleet, write_fence);
    assessment.count_serving(now, write_fence.epoch);
    assessment
}

/// Every pod with the index of its entry; adds an entry for each pod that is adopted.
fn join<'a>(
    now: Timestamp,
    fleet: &'a Fleet,
    ledger: &'a Ledger,
    write_fence: Fence,
    slots: &mut Vec<EntryAssessment<'a>>,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::with_capacity(fleet.pods().len());
    let mut held = UidJoin::new(ledger.entries.keys().zip(0_usize..));
    let mut returned = UidJoin::new(ledger.returned.iter());
    for (index, pod) in fleet.pods().iter().enumerate() {
        let mut slot = held.at(&pod.uid);
        if let Some(slot) = slot.and_then(|slot| slots.get_mut(slot)) {
            slot.candidate = Some(index);
        } else if let Some(entry) = adopted(now, fleet, pod, write_fence) {
            let reason = "withheld by us before this ledger began: adopted";
            slot = Some(slots.len());
            let entry = Cow::Owned(entry);
            slots.push(EntryAssessment::new(entry, Some(index), EntryDecision::Keep, reason));
        }
        candidates.push(Candidate {
            pod,
            slot,
            returned: returned.at(&pod.uid),
            serving: false,
            joining: false,
            objection: None,
            rehearsed: None,
            judged: false,
            admit: false,
            asked: None,
        });
    }
    candidates
}

impl<'a> Assessment<'a> {
    pub(super) fn slot_of(&self, candidate: &Candidate<'_>) -> Option<&EntryAssessment<'a>> {
        self.slots.get(candidate.slot?)
    }

    pub(super) fn candidate_of(&self, slot: &EntryAssessment<'_>) -> Option<&Candidate<'a>> {
        self.candidates.get(slot.candidate?)
    }

    /// Its pod has left the fleet: it holds no room.
    pub(super) fn has_left(&self, slot: &EntryAssessment<'_>) -> bool {
        self.candidate_of(slot).is_some_and(|candidate| !candidate.pod.selected)
    }

    fn reconcile(&mut self, now: Timestamp, policy: &Policy, fleet: &Fleet, write_fence: Fence) {
        let refilled = count(self.candidates.iter().filter(|candidate| candidate.able())) >= fleet.desired;
        let context = FleetContext { now, policy, fleet, refilled, write_fence };
        for slot in &mut self.slots {
            if slot.entry.break_at > now {
                slot.entry.to_mut().break_at = now; // a time in the future counts from now
            }
            match slot.candidate.and_then(|index| self.candidates.get(index)) {
                Some(candidate) => reconcile(slot, candidate, &context),
                None if fleet.absence_proven => {
                    slot.decide(EntryDecision::Release(ReleaseReason::Gone), "the pod is gone")
                }
                None => {
                    slot.decide(EntryDecision::Wait, "not in this list, which may be older than the ledger")
                }
            }
        }
    }

    fn count_serving(&mut self, now: Timestamp, epoch: Epoch) {
        for candidate in &mut self.candidates {
            let held = candidate.slot.and_then(|slot| self.slots.get(slot));
            let counts = candidate.routable() && held.is_none_or(|slot| !slot.held());
            let unlisted = candidate.pod.unlisted_since;
            candidate.serving = counts && unlisted.is_none() && vouched(candidate.pod, epoch);
            candidate.joining = counts
                && unlisted.is_some_and(|since| now.since(since) < ADMISSION)
                && !candidate.pod.claim_refused();
        }
    }
}

/// A pod whose claim is refused does not count with the fence of another ledger: a withdrawal of that ledger may still land.
fn vouched(pod: &PodView, epoch: Epoch) -> bool {
    !pod.claim_refused() || pod.fence.is_none_or(|fence| fence.epoch == epoch)
}

/// What is the same for every entry.
struct FleetContext<'a> {
    now: Timestamp,
    policy: &'a Policy,
    fleet: &'a Fleet,
    /// At least `desired` pods are able to serve.
    refilled: bool,
    write_fence: Fence,
}

/// Decides about an entry by the pod's fence and switch.
fn reconcile(slot: &mut EntryAssessment<'_>, candidate: &Candidate<'_>, context: &FleetContext<'_>) {
    let FleetContext { now, policy, fleet, refilled, write_fence } = *context;
    let pod = candidate.pod;
    let taken_over = pod.taken_over(write_fence.epoch);
    if taken_over && !pod.selected {
        return slot.decide(EntryDecision::Release(ReleaseReason::Gone), "another resource has claimed it");
    }
    let Some(fence) = pod.fence.filter(|fence| fence.epoch == write_fence.epoch) else {
        let dark = pod.break_at.is_some() && matches!(pod.traffic, Traffic::No | Traffic::Pause);
        // Nobody claims a pod for a resource that ends, unless it has to be given back.
        if fleet.leaving && fleet.absence_proven && (taken_over || !pod.claimed && !dark) {
            return slot
                .decide(EntryDecision::Release(ReleaseReason::Gone), "nothing of this resource is on it");
        }
        return slot.decide(EntryDecision::Wait, "its fence is not of this ledger: to be claimed again");
    };
    let moved = fence.newer(slot.entry.fence);
    if slot.entry.fence.newer(fence) {
        return slot.decide(EntryDecision::Wait, "this list is older than the ledger");
    }
    if moved && pod.traffic == Traffic::Yes {
        set_back::on_return(slot, pod, now, policy);
        return slot.decide(EntryDecision::Release(ReleaseReason::Admitted), "its traffic is back");
    }
    if pod.terminating && pod.traffic != Traffic::Yes {
        return slot.decide(EntryDecision::Release(ReleaseReason::Gone), "it is being deleted");
    }
    if candidate.silent() && slot.entry.state.landed() && (refilled || fleet.desired < slot.entry.desired) {
        return slot.decide(
            EntryDecision::Release(ReleaseReason::Replaced),
            "silent, and replaced or not needed any more",
        );
    }
    match pod.traffic {
        Traffic::Yes => reconcile_yes(slot, now, policy),
        Traffic::No => reconcile_no(slot, pod, moved),
        Traffic::Pause => reconcile_pause(slot),
        Traffic::Unlabelled => {
            slot.decide(EntryDecision::Wait, "its switch was removed: to be claimed again")
        }
        Traffic::Other if !fleet.leaving => {
            slot.decide(EntryDecision::Wait, "its switch has a value that is not ours")
        }
        Traffic::Other => leave_to_other(slot, moved),
    }
    if moved {
        let entry = slot.entry.to_mut();
        (entry.fence, entry.next) = (fence, write_fence);
    }
}

/// traffic=yes, and the fence is the entry's.
fn reconcile_yes(slot: &mut EntryAssessment<'_>, now: Timestamp, policy: &Policy) {
    match slot.entry.state {
        EntryState::Reserved => {
            slot.set_state(EntryState::Cancelling);
            slot.decide(
                EntryDecision::Cancel,
                "its withdrawal was not carried out: cancelled, never repeated",
            );
        }
        EntryState::Cancelling => slot.decide(EntryDecision::Cancel, "its withdrawal is being cancelled"),
        EntryState::Withheld | EntryState::Pausing | EntryState::Paused | EntryState::Killing => {
            set_back::note(slot, now, policy);
            slot.set_state(EntryState::Cancelling);
            slot.decide(EntryDecision::Cancel, "another client gave it its traffic back");
        }
    }
}

/// The switch has a value that is not ours, and the resource ends: the value stays, once our withdrawal cannot land any more.
fn leave_to_other(slot: &mut EntryAssessment<'_>, moved: bool) {
    if moved || slot.entry.state.landed() {
        return slot.decide(EntryDecision::Release(ReleaseReason::Foreign), "another writer set its switch");
    }
    slot.set_state(EntryState::Cancelling);
    slot.decide(EntryDecision::Cancel, "another writer set its switch: our withdrawal is cancelled");
}

fn reconcile_no(slot: &mut EntryAssessment<'_>, pod: &PodView, moved: bool) {
    match slot.entry.state {
        EntryState::Reserved | EntryState::Cancelling if pod.break_at.is_some() => {
            slot.set_state(EntryState::Withheld)
        }
        EntryState::Reserved | EntryState::Cancelling if moved => {
            slot.decide(EntryDecision::Release(ReleaseReason::Foreign), "another writer withheld it");
        }
        EntryState::Reserved | EntryState::Cancelling => {
            slot.set_state(EntryState::Cancelling);
            slot.decide(EntryDecision::Cancel, "another writer withheld it: our withdrawal is cancelled");
        }
        EntryState::Pausing => slot.decision = EntryDecision::Pause,
        EntryState::Paused => {
            slot.set_state(EntryState::Withheld);
            if slot.entry.human {
                slot.entry.to_mut().human = false;
            }
        }
        EntryState::Withheld | EntryState::Killing => {}
    }
}

fn reconcile_pause(slot: &mut EntryAssessment<'_>) {
    slot.reason = "paused";
    match slot.entry.state {
        EntryState::Paused => {}
        EntryState::Pausing => slot.set_state(EntryState::Paused),
        EntryState::Reserved | EntryState::Cancelling | EntryState::Withheld | EntryState::Killing => {
            slot.set_state(EntryState::Paused);
            slot.entry.to_mut().human = true;
        }
    }
}

/// An entry for a `no` or `pause` of ours that is not in the ledger.
fn adopted(now: Timestamp, fleet: &Fleet, pod: &PodView, write_fence: Fence) -> Option<Entry> {
    let state = match pod.traffic {
        Traffic::No => EntryState::Withheld,
        Traffic::Pause => EntryState::Paused,
        Traffic::Yes | Traffic::Unlabelled | Traffic::Other => return None,
    };
    let fence = pod.fence.filter(|fence| pod.claimed && write_fence.newer(*fence))?;
    let break_at = pod.break_at.filter(|_| !pod.terminating)?;
    Some(Entry {
        uid: pod.uid.clone(),
        name: pod.name.clone(),
        fence,
        next: write_fence,
        state,
        breaker: one_line(pod.strategy.as_deref().unwrap_or_default()),
        reason: "withheld by us before this ledger began".to_owned(),
        break_at: break_at.min(now),
        retry_count: pod.retry_count.unwrap_or(1),
        desired: fleet.desired,
        human: false,
        spare: None,
        bad_before: None,
        set_backs: 0,
    })
}

/// Values in ascending order of the UID, looked up by ascending UIDs: linear time over both.
pub(super) struct UidJoin<I: Iterator> {
    rest: std::iter::Peekable<I>,
}

impl<'a, V, I: Iterator<Item = (&'a Uid, V)>> UidJoin<I> {
    pub(super) fn new(ascending: I) -> Self {
        Self { rest: ascending.peekable() }
    }

    pub(super) fn at(&mut self, uid: &Uid) -> Option<V> {
        loop {
            // Equal ones are the same text in memory most of the time, which is compared at once.
            if let Some((_, value)) = self.rest.next_if(|(key, _)| *key == uid) {
                return Some(value);
            }
            self.rest.next_if(|(key, _)| *key < uid)?;
        }
    }
}
