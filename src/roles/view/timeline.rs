//! The last hours of each fleet, bounded in memory: when each pod changed its phase, and the numbers of the floor.
//!
//! Only changes are kept, so that a quiet fleet costs nothing. A hundred services of a hundred pods stay within 8 MiB:
//! [`CHANGES`] of 8 bytes for each pod, [`LEVELS`] of 24 bytes for each fleet. What is older is dropped first.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    decide::{
        fleet::Traffic,
        gate::{
            explain::PodState,
            ledger::{EntryState, Ledger},
        },
        time::Timestamp,
    },
    roles::gate::snapshot::{GateSnapshot, PodSnapshot},
};

/// How far back the pictures reach.
pub(super) const REACH: Duration = Duration::from_secs(6 * 3600);
/// Changes kept of one pod.
const CHANGES: usize = 48;
/// Changes of the fleet's numbers that are kept.
const LEVELS: usize = 720;
/// Changes of numbers within this time are one.
const LEVEL_SECONDS: u32 = 5;
/// Pods that have left and are kept, beyond those that are there.
const DEPARTED: usize = 64;

/// What a lane of the time line shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::roles) enum LanePhase {
    /// It serves, and nothing objects.
    Serving,
    /// It serves although a breaker objects: the floor, a hold, or a dry run.
    Objected,
    /// Being withheld, given back or killed.
    Changing,
    /// Withheld by the gate.
    Withheld,
    /// Withheld until a person or a callback admits it.
    Paused,
    /// Withheld by another writer.
    Foreign,
    /// Not ready, not listed, silent, or being deleted.
    NotServing,
    /// It left the fleet.
    Gone,
}

/// The phase from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::roles) struct Change {
    /// Unix seconds.
    pub(in crate::roles) at: u32,
    pub(in crate::roles) phase: LanePhase,
}

/// The numbers from then on, in pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::roles) struct Level {
    /// Unix seconds.
    pub(in crate::roles) at: u32,
    pub(in crate::roles) serving: u32,
    pub(in crate::roles) floor: u32,
    pub(in crate::roles) desired: u32,
    pub(in crate::roles) withheld: u32,
    pub(in crate::roles) panic: bool,
}

/// The last hours of one fleet.
#[derive(Clone, Debug, Default)]
pub(in crate::roles) struct FleetTimeline {
    /// By the pod's name: a restarted pod of the same name continues its lane.
    pub(in crate::roles) lanes: BTreeMap<Box<str>, VecDeque<Change>>,
    pub(in crate::roles) levels: VecDeque<Level>,
}

impl LanePhase {
    /// The phase of a pod after a plan.
    pub(super) fn of(pod: &PodSnapshot) -> Self {
        match pod.explanation.as_ref().map_or(PodState::Serving, |explanation| explanation.standing) {
            PodState::Serving if !pod.ready => Self::NotServing,
            PodState::Serving if pod.explanation.is_some() => Self::Objected,
            PodState::Serving => Self::Serving,
            PodState::NotServing | PodState::NotListed | PodState::ListedUnknown => Self::NotServing,
            PodState::Leaving | PodState::Returning | PodState::Ending => Self::Changing,
            PodState::Withheld => Self::Withheld,
            PodState::Paused => Self::Paused,
            PodState::Foreign => Self::Foreign,
        }
    }

    /// The word beside the colour, which is also the name of its style.
    pub(in crate::roles) const fn word(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Objected => "objected",
            Self::Changing => "changing",
            Self::Withheld => "withheld",
            Self::Paused => "paused",
            Self::Foreign => "foreign",
            Self::NotServing => "not-serving",
            Self::Gone => "gone",
        }
    }

    /// A sign that tells it from the others without colour.
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Serving => "\u{25cf}",
            Self::Objected => "!",
            Self::Changing => "~",
            Self::Withheld => "\u{d7}",
            Self::Paused => "=",
            Self::Foreign => "?",
            Self::NotServing => "\u{25cb}",
            Self::Gone => "\u{2013}",
        }
    }
}

impl FleetTimeline {
    /// Notes what has changed since the last call. The first sight of a pod reaches back as far as the ledger knows.
    pub(super) fn observe(&mut self, snapshot: &GateSnapshot) {
        let now = seconds(snapshot.at);
        if now == 0 {
            return; // Nothing was observed yet.
        }
        for pod in &snapshot.pods {
            if !self.lanes.contains_key(pod.id.as_str()) {
                let known = snapshot.ledger.as_ref().map(|ledger| recalled(ledger, pod)).unwrap_or_default();
                self.lanes.insert(pod.id.as_str().into(), known);
            }
            let lane = self.lanes.get_mut(pod.id.as_str());
            lane.into_iter().for_each(|lane| note(lane, Change { at: now, phase: LanePhase::of(pod) }));
        }
        let present: BTreeSet<&str> = snapshot.pods.iter().map(|pod| pod.id.as_str()).collect();
        for (_, lane) in self.lanes.iter_mut().filter(|(name, _)| !present.contains(&***name)) {
            note(lane, Change { at: now, phase: LanePhase::Gone });
        }
        self.note_level(snapshot, now);
        self.forget(now, &present);
    }

    fn note_level(&mut self, snapshot: &GateSnapshot, now: u32) {
        let budget = snapshot.floor.budget;
        let withheld = snapshot.pods.iter().filter(|pod| is_withheld(pod)).count();
        let level = Level {
            at: now,
            serving: u32::try_from(snapshot.serving()).unwrap_or(u32::MAX),
            floor: budget.floor,
            desired: budget.desired,
            withheld: u32::try_from(withheld).unwrap_or(u32::MAX),
            panic: snapshot.panic,
        };
        match self.levels.back_mut() {
            Some(last) if Level { at: now, ..*last } == level => {}
            // A withdrawal passes through several states within a moment.
            Some(last) if now.saturating_sub(last.at) < LEVEL_SECONDS => {
                *last = Level { at: last.at, ..level }
            }
            _ => push(&mut self.levels, level, LEVELS),
        }
    }

    /// Drops what is out of reach; of the pods that have left the longest gone first.
    fn forget(&mut self, now: u32, present: &BTreeSet<&str>) {
        let oldest = now.saturating_sub(u32::try_from(REACH.as_secs()).unwrap_or(u32::MAX));
        for lane in self.lanes.values_mut() {
            while lane.get(1).is_some_and(|next| next.at <= oldest) {
                lane.pop_front();
            }
        }
        while self.levels.get(1).is_some_and(|next| next.at <= oldest) {
            self.levels.pop_front();
        }
        let gone = self.lanes.iter().filter(|(name, _)| !present.contains(&***name));
        let mut gone: Vec<(u32, Box<str>)> =
            gone.map(|(name, lane)| (lane.back().map_or(0, |last| last.at), name.clone())).collect();
        gone.sort_unstable_by(|a, b| b.cmp(a));
        for (index, (since, name)) in gone.iter().enumerate() {
            if index >= DEPARTED || *since <= oldest {
                self.lanes.remove(name);
            }
        }
    }
}

/// Whether the gate withholds the pod.
pub(super) fn is_withheld(pod: &PodSnapshot) -> bool {
    matches!(LanePhase::of(pod), LanePhase::Withheld | LanePhase::Paused)
}

/// Unix seconds; those before 1970 and after 2106 are the nearest that there are.
pub(in crate::roles) fn seconds(at: Timestamp) -> u32 {
    let seconds = at.unix_millis().div_euclid(1000).max(0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// What the ledger of an earlier process tells about a pod: when it was withheld, or when it came back.
fn recalled(ledger: &Ledger, pod: &PodSnapshot) -> VecDeque<Change> {
    let change = match (ledger.entries.get(&pod.uid), ledger.returned.get(&pod.uid)) {
        (Some(entry), _) => {
            let phase = match entry.state {
                EntryState::Paused => LanePhase::Paused,
                _ if pod.traffic == Traffic::No => LanePhase::Withheld,
                _ => LanePhase::Changing,
            };
            Some(Change { at: seconds(entry.break_at), phase })
        }
        (None, Some(returned)) => {
            Some(Change { at: seconds(returned.admitted_at), phase: LanePhase::Serving })
        }
        (None, None) => None,
    };
    change.into_iter().collect()
}

fn note(lane: &mut VecDeque<Change>, change: Change) {
    if lane.back().is_none_or(|last| last.phase != change.phase) {
        push(lane, change, CHANGES);
    }
}

/// Appends within `limit`; grows by a few, because a pod has hardly any changes.
fn push<T>(ring: &mut VecDeque<T>, value: T, limit: usize) {
    if ring.len() >= limit {
        ring.pop_front();
    }
    if ring.len() == ring.capacity() {
        ring.reserve_exact(4.max(ring.len() / 4).min(limit - ring.len()));
    }
    ring.push_back(value);
}
