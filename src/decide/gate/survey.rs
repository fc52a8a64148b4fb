//! First step: pods, ledger and verdicts side by side, and what became of each withdrawal.
//!
//! All are in order of the UID, so one walk joins them. What the ledger *says* is only half: a
//! reservation may have landed, a person may have put a switch back. Deciding on the ledger alone
//! leaves pods dark; deciding on the pods alone forgets what is under way.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use super::{
    fence::Fence,
    ledger::{Entry, Ledger, Returned, State, one_line},
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
pub(super) enum Fate {
    Keep,
    /// Nothing can be done before the pod is seen, or claimed, anew.
    Wait,
    Withhold,
    Cancel,
    Admit,
    Pause,
    Kill,
    /// It can land no more.
    Release(Over),
}

/// Why an entry is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
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
pub(super) struct Slot<'a> {
    pub(super) entry: Cow<'a, Entry>,
    /// Its pod among the subjects.
    pub(super) subject: Option<usize>,
    pub(super) fate: Fate,
    pub(super) decision: &'static str,
    /// What time alone brings, and when.
    pub(super) due: Option<Due>,
}

impl Slot<'_> {
    pub(super) fn decide(&mut self, fate: Fate, decision: &'static str) {
        (self.fate, self.decision, self.due) = (fate, decision, None);
    }

    pub(super) fn turn(&mut self, state: State) {
        if self.entry.state != state {
            self.entry.to_mut().state = state;
        }
    }

    /// The entry stays in the ledger.
    pub(super) fn held(&self) -> bool {
        !matches!(self.fate, Fate::Release(_))
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
pub(super) struct Subject<'a> {
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

impl Subject<'_> {
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
pub(super) struct Survey<'a> {
    pub(super) subjects: Vec<Subject<'a>>,
    pub(super) slots: Vec<Slot<'a>>,
}

/// Joins the fleet with the ledger and finds out what became of each entry.
pub(super) fn survey<'a>(
    now: Timestamp,
    policy: &Policy,
    fleet: &'a Fleet,
    ledger: &'a Ledger,
    stamp: Fence,
) -> Survey<'a> {
    let mut slots: Vec<Slot<'a>> = ledger
        .entries
        .values()
        .map(|entry| Slot {
            entry: Cow::Borrowed(entry),
            subject: None,
            fate: Fate::Keep,
            decision: "withheld",
            due: None,
        })
        .collect();
    let subjects = join(now, fleet, ledger, stamp, &mut slots);
    let mut survey = Survey { subjects, slots };
    survey.reconcile(now, policy, fleet, stamp);
    survey.count_serving(now);
    survey
}

/// Every pod with its slot; one slot more for each pod that is adopted.
fn join<'a>(
    now: Timestamp,
    fleet: &'a Fleet,
    ledger: &'a Ledger,
    stamp: Fence,
    slots: &mut Vec<Slot<'a>>,
) -> Vec<Subject<'a>> {
    let held = slots.len();
    let mut subjects = Vec::with_capacity(fleet.pods().len());
    let (mut at, mut returned) = (0, Join::new(&ledger.returned));
    for (index, pod) in fleet.pods().iter().enumerate() {
        while slots.get(at).is_some_and(|slot| at < held && slot.entry.uid < pod.uid) {
            at += 1;
        }
        let mut slot = None;
        if at < held && slots.get(at).is_some_and(|slot| slot.entry.uid == pod.uid) {
            slot = Some(at);
        } else if let Some(entry) = adopted(now, fleet, pod, stamp) {
            slot = Some(slots.len());
            slots.push(Slot {
                entry: Cow::Owned(entry),
                subject: None,
                fate: Fate::Keep,
                decision: "withheld by us before this ledger began: adopted",
                due: None,
            });
        }
        if let Some(slot) = slot.and_then(|slot| slots.get_mut(slot)) {
            slot.subject = Some(index);
        }
        let returned = returned.at(&pod.uid);
        subjects.push(Subject {
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
    subjects
}

impl Survey<'_> {
    fn reconcile(&mut self, now: Timestamp, policy: &Policy, fleet: &Fleet, stamp: Fence) {
        let able = self.subjects.iter().filter(|subject| subject.able()).count();
        let refilled = u32::try_from(able).unwrap_or(u32::MAX) >= fleet.desired;
        let seen = Seen { policy, fleet, refilled, stamp };
        for slot in &mut self.slots {
            if slot.entry.break_at > now {
                slot.entry.to_mut().break_at = now; // it counts from when it was first seen
            }
            match slot.subject.and_then(|index| self.subjects.get(index)) {
                Some(subject) => reconcile(slot, subject, &seen),
                None if fleet.absence_proven => slot.decide(Fate::Release(Over::Gone), "the pod is gone"),
                None => slot.decide(Fate::Wait, "not in this list, which may be older than the ledger"),
            }
        }
    }

    fn count_serving(&mut self, now: Timestamp) {
        for subject in &mut self.subjects {
            let held = subject.slot.and_then(|slot| self.slots.get(slot));
            let just_back = held.is_some_and(|slot| slot.fate == Fate::Release(Over::Admitted));
            let admitted_at =
                if just_back { subject.pod.admitted_at.or(Some(now)) } else { subject.admitted_at() };
            let counted = subject.pod.in_endpoints || admitted_at.is_none_or(|at| now.since(at) >= ADMISSION);
            let free = held.is_none_or(|slot| !slot.held());
            subject.serving = subject.able() && subject.pod.traffic == Traffic::Yes && free && counted;
        }
    }
}

/// What every entry is held against.
struct Seen<'a> {
    policy: &'a Policy,
    fleet: &'a Fleet,
    /// As many pods are there as there should be, without the silent ones.
    refilled: bool,
    stamp: Fence,
}

/// What the pod's own fence and switch say about its entry.
fn reconcile(slot: &mut Slot<'_>, subject: &Subject<'_>, seen: &Seen<'_>) {
    let Seen { fleet, refilled, stamp, .. } = *seen;
    let pod = subject.pod;
    let Some(fence) = pod.fence.filter(|fence| fence.epoch == stamp.epoch) else {
        return slot.decide(Fate::Wait, "its fence is not of this ledger: to be claimed anew");
    };
    let moved = fence.newer(slot.entry.fence);
    if slot.entry.fence.newer(fence) {
        return slot.decide(Fate::Wait, "this list is older than the ledger");
    }
    if moved && pod.traffic == Traffic::Yes {
        return slot.decide(Fate::Release(Over::Admitted), "its traffic is back");
    }
    if pod.terminating && pod.traffic != Traffic::Yes {
        return slot.decide(Fate::Release(Over::Gone), "it is being deleted");
    }
    let settled =
        matches!(slot.entry.state, State::Withheld | State::Killing | State::Pausing | State::Paused);
    if subject.silent() && settled && (refilled || fleet.desired < slot.entry.desired) {
        return slot.decide(Fate::Release(Over::Replaced), "silent, and its place is filled or not wanted");
    }
    match pod.traffic {
        Traffic::Yes => still_serving(slot, seen.policy),
        Traffic::No => says_no(slot, pod, moved),
        Traffic::Pause => says_pause(slot),
        Traffic::Unlabelled => slot.decide(Fate::Wait, "its switch was removed: to be claimed anew"),
        Traffic::Other => slot.decide(Fate::Wait, "its switch has a value that is not ours"),
    }
    if moved {
        let entry = slot.entry.to_mut();
        (entry.fence, entry.next) = (fence, stamp);
    }
}

/// The pod says yes with the fence of the entry.
fn still_serving(slot: &mut Slot<'_>, policy: &Policy) {
    match slot.entry.state {
        State::Reserved => {
            slot.turn(State::Cancelling);
            slot.decide(Fate::Cancel, "its withdrawal was not carried out: taken back, never repeated");
        }
        State::Cancelling => slot.decide(Fate::Cancel, "its withdrawal is being taken back"),
        State::Withheld | State::Pausing | State::Paused | State::Killing => {
            slot.turn(State::Cancelling);
            slot.entry.to_mut().spare = Some(millis(policy.activator(&slot.entry.breaker).period));
            slot.decide(Fate::Cancel, "a person gave it its traffic back");
        }
    }
}

fn says_no(slot: &mut Slot<'_>, pod: &PodView, moved: bool) {
    match slot.entry.state {
        State::Reserved | State::Cancelling if pod.break_at.is_some() => slot.turn(State::Withheld),
        State::Reserved | State::Cancelling if moved => {
            slot.decide(Fate::Release(Over::Foreign), "somebody else withheld it");
        }
        State::Reserved | State::Cancelling => {
            slot.turn(State::Cancelling);
            slot.decide(Fate::Cancel, "somebody else withheld it: ours is taken back");
        }
        State::Pausing => slot.fate = Fate::Pause,
        State::Paused => {
            slot.turn(State::Withheld);
            if slot.entry.human {
                slot.entry.to_mut().human = false;
            }
        }
        State::Withheld | State::Killing => {}
    }
}

fn says_pause(slot: &mut Slot<'_>) {
    slot.decision = "paused";
    match slot.entry.state {
        State::Paused => {}
        State::Pausing => slot.turn(State::Paused),
        State::Reserved | State::Cancelling | State::Withheld | State::Killing => {
            slot.turn(State::Paused);
            slot.entry.to_mut().human = true;
        }
    }
}

/// A `no` or `pause` of ours that the ledger does not know: an entry for it.
fn adopted(now: Timestamp, fleet: &Fleet, pod: &PodView, stamp: Fence) -> Option<Entry> {
    let state = match pod.traffic {
        Traffic::No => State::Withheld,
        Traffic::Pause => State::Paused,
        Traffic::Yes | Traffic::Unlabelled | Traffic::Other => return None,
    };
    let fence = pod.fence.filter(|fence| pod.claimed && stamp.newer(*fence))?;
    let break_at = pod.break_at.filter(|_| !pod.terminating)?;
    Some(Entry {
        uid: pod.uid.clone(),
        name: pod.name.clone(),
        fence,
        next: stamp,
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
struct Join<'a, V> {
    rest: std::iter::Peekable<std::collections::btree_map::Iter<'a, Uid, V>>,
}

impl<'a, V> Join<'a, V> {
    fn new(map: &'a BTreeMap<Uid, V>) -> Self {
        Self { rest: map.iter().peekable() }
    }

    fn at(&mut self, uid: &Uid) -> Option<&'a V> {
        while self.rest.next_if(|(key, _)| *key < uid).is_some() {}
        self.rest.next_if(|(key, _)| *key == uid).map(|(_, value)| value)
    }
}
