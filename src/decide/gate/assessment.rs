//! First step: pods, ledger and verdicts side by side, and what became of each withdrawal.
//!
//! All are in order of the UID, so one walk joins them. What the ledger *says* is only half: a
//! reservation may have landed, a person may have put a switch back. Deciding on the ledger alone
//! leaves pods dark; deciding on the pods alone forgets what is under way.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use super::{
    fence::Fence,
    ledger::{Entry, EntryState, Ledger, Returned, one_line},
};
use crate::decide::{
    fleet::{Fleet, PodView, Presence, Traffic, Uid},
    policy::Policy,
    time::Timestamp,
    verdict::{Call, Opinion},
};

/// An admitted pod that the load balancer does not show counts as serving after this time.
pub const ADMISSION: Duration = Duration::from_secs(5);

/// The breaker's name in entries of pods that fell silent.
pub const SILENCE: &str = "silence";

/// What is to be done about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryDecision {
    Keep,
    /// Nothing can be done before the pod is seen, or claimed, anew.
    Wait,
    Withhold,
    Cancel,
    Admit,
    Pause,
    Kill,
    /// It can land no more.
    Release(ReleaseReason),
}

/// Why an entry is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReleaseReason {
    /// The pod serves again.
    Admitted,
    /// It is gone, or going.
    Gone,
    /// It is silent and its place is filled or not wanted any more.
    Replaced,
    /// Somebody else holds its switch.
    Foreign,
}

/// What happens to an entry at a time that is known.
pub(super) type Due = (&'static str, Timestamp);

/// One entry and what is decided about it. A changed entry is `Owned`.
#[derive(Clone, Debug)]
pub(super) struct EntryAssessment<'a> {
    pub(super) entry: Cow<'a, Entry>,
    /// Its pod among the candidates.
    pub(super) candidate: Option<usize>,
    pub(super) decision: EntryDecision,
    pub(super) reason: &'static str,
    /// What time alone brings, and when.
    pub(super) due: Option<Due>,
}

impl EntryAssessment<'_> {
    pub(super) fn decide(&mut self, decision: EntryDecision, reason: &'static str) {
        (self.decision, self.reason, self.due) = (decision, reason, None);
    }

    pub(super) fn turn(&mut self, state: EntryState) {
        if self.entry.state != state {
            self.entry.to_mut().state = state;
        }
    }

    /// Admits the entry's pod; `false` when it stays: a withdrawal that may still land is cancelled instead, and a
    /// person's pause is kept.
    pub(super) fn give_back(&mut self, why: &'static str) -> bool {
        let open = matches!(
            self.decision,
            EntryDecision::Keep | EntryDecision::Admit | EntryDecision::Pause | EntryDecision::Kill
        );
        let out = !matches!(self.entry.state, EntryState::Reserved | EntryState::Cancelling);
        if !open || !out || self.entry.human {
            return false;
        }
        if matches!(self.entry.state, EntryState::Killing | EntryState::Pausing) {
            self.turn(EntryState::Withheld);
        }
        self.decide(EntryDecision::Admit, why);
        true
    }

    /// The entry stays in the ledger.
    pub(super) fn held(&self) -> bool {
        !matches!(self.decision, EntryDecision::Release(_))
    }
}

/// The strictest word in force against a pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Objection<'a> {
    pub(super) breaker: &'a str,
    pub(super) severity: f64,
    pub(super) call: Call,
    pub(super) opinion: &'a Opinion,
}

/// One pod and all that is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) pod: &'a PodView,
    pub(super) slot: Option<usize>,
    pub(super) returned: Option<&'a Returned>,
    pub(super) serving: bool,
    pub(super) objection: Option<Objection<'a>>,
    /// By a breaker that only rehearses.
    pub(super) rehearsed: Option<&'a str>,
    /// Somebody in force has a verdict on it.
    pub(super) judged: bool,
    /// A callback wants it back.
    pub(super) admit: bool,
}

impl Candidate<'_> {
    pub(super) fn silent(&self) -> bool {
        self.pod.presence == Presence::Unknown
    }

    /// When it was last given its traffic back.
    pub(super) fn admitted_at(&self) -> Option<Timestamp> {
        self.returned.map(|returned| returned.admitted_at).max(self.pod.admitted_at)
    }

    /// It could serve if it had traffic.
    pub(super) fn able(&self) -> bool {
        self.pod.ready && !self.pod.terminating && !self.silent()
    }
}

/// The joined view.
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
        .map(|entry| EntryAssessment {
            entry: Cow::Borrowed(entry),
            candidate: None,
            decision: EntryDecision::Keep,
            reason: "withheld",
            due: None,
        })
        .collect();
    let candidates = join(now, fleet, ledger, write_fence, &mut slots);
    let mut assessment = Assessment { candidates, slots };
    assessment.reconcile(now, policy, fleet, write_fence);
    assessment.count_serving(now);
    assessment
}

/// Every pod with its slot; one slot more for each pod that is adopted.
fn join<'a>(
    now: Timestamp,
    fleet: &'a Fleet,
    ledger: &'a Ledger,
    write_fence: Fence,
    slots: &mut Vec<EntryAssessment<'a>>,
) -> Vec<Candidate<'a>> {
    let held = slots.len();
    let mut candidates = Vec::with_capacity(fleet.pods().len());
    let (mut at, mut returned) = (0, UidJoin::new(&ledger.returned));
    for (index, pod) in fleet.pods().iter().enumerate() {
        while slots.get(at).is_some_and(|slot| at < held && slot.entry.uid < pod.uid) {
            at += 1;
        }
        let mut slot = None;
        if at < held && slots.get(at).is_some_and(|slot| slot.entry.uid == pod.uid) {
            slot = Some(at);
        } else if let Some(entry) = adopted(now, fleet, pod, write_fence) {
            slot = Some(slots.len());
            slots.push(EntryAssessment {
                entry: Cow::Owned(entry),
                candidate: None,
                decision: EntryDecision::Keep,
                reason: "withheld by us before this ledger began: adopted",
                due: None,
            });
        }
        if let Some(slot) = slot.and_then(|slot| slots.get_mut(slot)) {
            slot.candidate = Some(index);
        }
        let returned = returned.at(&pod.uid);
        candidates.push(Candidate {
            pod,
            slot,
            returned,
            serving: false,
            objection: None,
            rehearsed: None,
            judged: false,
            admit: false,
        });
    }
    candidates
}

impl Assessment<'_> {
    fn reconcile(&mut self, now: Timestamp, policy: &Policy, fleet: &Fleet, write_fence: Fence) {
        let able = self.candidates.iter().filter(|candidate| candidate.able()).count();
        let refilled = u32::try_from(able).unwrap_or(u32::MAX) >= fleet.desired;
        let seen = FleetContext { policy, fleet, refilled, write_fence };
        for slot in &mut self.slots {
            if slot.entry.break_at > now {
                slot.entry.to_mut().break_at = now; // it counts from when it was first seen
            }
            match slot.candidate.and_then(|index| self.candidates.get(index)) {
                Some(candidate) => reconcile(slot, candidate, &seen),
                None if fleet.absence_proven => {
                    slot.decide(EntryDecision::Release(ReleaseReason::Gone), "the pod is gone")
                }
                None => {
                    slot.decide(EntryDecision::Wait, "not in this list, which may be older than the ledger")
                }
            }
        }
    }

    fn count_serving(&mut self, now: Timestamp) {
        for candidate in &mut self.candidates {
            let held = candidate.slot.and_then(|slot| self.slots.get(slot));
            let just_back =
                held.is_some_and(|slot| slot.decision == EntryDecision::Release(ReleaseReason::Admitted));
            let admitted_at =
                if just_back { candidate.pod.admitted_at.or(Some(now)) } else { candidate.admitted_at() };
            let counted =
                candidate.pod.in_endpoints || admitted_at.is_none_or(|at| now.since(at) >= ADMISSION);
            let free = held.is_none_or(|slot| !slot.held());
            candidate.serving = candidate.able() && candidate.pod.traffic == Traffic::Yes && free && counted;
        }
    }
}

/// What every entry is held against.
struct FleetContext<'a> {
    policy: &'a Policy,
    fleet: &'a Fleet,
    /// As many pods are there as there should be, without the silent ones.
    refilled: bool,
    write_fence: Fence,
}

/// What the pod's own fence and switch say about its entry.
fn reconcile(slot: &mut EntryAssessment<'_>, candidate: &Candidate<'_>, seen: &FleetContext<'_>) {
    let FleetContext { fleet, refilled, write_fence, .. } = *seen;
    let pod = candidate.pod;
    let Some(fence) = pod.fence.filter(|fence| fence.epoch == write_fence.epoch) else {
        return slot.decide(EntryDecision::Wait, "its fence is not of this ledger: to be claimed anew");
    };
    let moved = fence.newer(slot.entry.fence);
    if slot.entry.fence.newer(fence) {
        return slot.decide(EntryDecision::Wait, "this list is older than the ledger");
    }
    if moved && pod.traffic == Traffic::Yes {
        return slot.decide(EntryDecision::Release(ReleaseReason::Admitted), "its traffic is back");
    }
    if pod.terminating && pod.traffic != Traffic::Yes {
        return slot.decide(EntryDecision::Release(ReleaseReason::Gone), "it is being deleted");
    }
    let settled = matches!(
        slot.entry.state,
        EntryState::Withheld | EntryState::Killing | EntryState::Pausing | EntryState::Paused
    );
    if candidate.silent() && settled && (refilled || fleet.desired < slot.entry.desired) {
        return slot.decide(
            EntryDecision::Release(ReleaseReason::Replaced),
            "silent, and its place is filled or not wanted",
        );
    }
    match pod.traffic {
        Traffic::Yes => still_serving(slot, seen.policy),
        Traffic::No => says_no(slot, pod, moved),
        Traffic::Pause => says_pause(slot),
        Traffic::Unlabelled => slot.decide(EntryDecision::Wait, "its switch was removed: to be claimed anew"),
        Traffic::Other => slot.decide(EntryDecision::Wait, "its switch has a value that is not ours"),
    }
    if moved {
        let entry = slot.entry.to_mut();
        (entry.fence, entry.next) = (fence, write_fence);
    }
}

/// The pod says yes with the fence of the entry.
fn still_serving(slot: &mut EntryAssessment<'_>, policy: &Policy) {
    match slot.entry.state {
        EntryState::Reserved => {
            slot.turn(EntryState::Cancelling);
            slot.decide(
                EntryDecision::Cancel,
                "its withdrawal was not carried out: taken back, never repeated",
            );
        }
        EntryState::Cancelling => slot.decide(EntryDecision::Cancel, "its withdrawal is being taken back"),
        EntryState::Withheld | EntryState::Pausing | EntryState::Paused | EntryState::Killing => {
            slot.turn(EntryState::Cancelling);
            slot.entry.to_mut().spare = Some(millis(policy.activator(&slot.entry.breaker).period));
            slot.decide(EntryDecision::Cancel, "a person gave it its traffic back");
        }
    }
}

fn says_no(slot: &mut EntryAssessment<'_>, pod: &PodView, moved: bool) {
    match slot.entry.state {
        EntryState::Reserved | EntryState::Cancelling if pod.break_at.is_some() => {
            slot.turn(EntryState::Withheld)
        }
        EntryState::Reserved | EntryState::Cancelling if moved => {
            slot.decide(EntryDecision::Release(ReleaseReason::Foreign), "somebody else withheld it");
        }
        EntryState::Reserved | EntryState::Cancelling => {
            slot.turn(EntryState::Cancelling);
            slot.decide(EntryDecision::Cancel, "somebody else withheld it: ours is taken back");
        }
        EntryState::Pausing => slot.decision = EntryDecision::Pause,
        EntryState::Paused => {
            slot.turn(EntryState::Withheld);
            if slot.entry.human {
                slot.entry.to_mut().human = false;
            }
        }
        EntryState::Withheld | EntryState::Killing => {}
    }
}

fn says_pause(slot: &mut EntryAssessment<'_>) {
    slot.reason = "paused";
    match slot.entry.state {
        EntryState::Paused => {}
        EntryState::Pausing => slot.turn(EntryState::Paused),
        EntryState::Reserved | EntryState::Cancelling | EntryState::Withheld | EntryState::Killing => {
            slot.turn(EntryState::Paused);
            slot.entry.to_mut().human = true;
        }
    }
}

/// A `no` or `pause` of ours that the ledger does not know: an entry for it.
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
    })
}

/// A duration as the ledger keeps it.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Walks a map alongside ascending UIDs.
struct UidJoin<'a, V> {
    rest: std::iter::Peekable<std::collections::btree_map::Iter<'a, Uid, V>>,
}

impl<'a, V> UidJoin<'a, V> {
    fn new(map: &'a BTreeMap<Uid, V>) -> Self {
        Self { rest: map.iter().peekable() }
    }

    fn at(&mut self, uid: &Uid) -> Option<&'a V> {
        while self.rest.next_if(|(key, _)| *key < uid).is_some() {}
        self.rest.next_if(|(key, _)| *key == uid).map(|(_, value)| value)
    }
}
