//! The table: every pod in one dense table, found by key, by name, by fingerprint and by age.
//!
//! All pods have the same TTL and time never runs backwards here, so the order of the last
//! keepalives is the order of the deadlines: a list threaded through the table gives the next
//! deadline and takes a refresh in constant time, without allocating.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, RandomState},
};

use super::{
    fingerprint::{Fingerprint, IdentityHasher},
    snapshot::PodText,
};
use crate::decide::{key::Key, time::Moment};

/// How a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PodLiveness {
    /// It sends keepalives.
    Live,
    /// It said `down`, and keeps its seq for one TTL.
    Down,
    /// Its id is now on another key: remembered so that the two do not push each other out in turn.
    Retired,
    /// It said `down` before anything else was heard of it: remembered because `down` is final.
    Unborn,
}

impl PodLiveness {
    /// Whether it counts as a pod of the ensemble; the others are only remembered.
    pub(super) fn is_known(self) -> bool {
        matches!(self, Self::Live | Self::Down)
    }
}

/// One pod.
#[derive(Debug)]
pub(super) struct TrackedPod {
    pub(super) key: Key,
    pub(super) liveness: PodLiveness,
    /// Its seq is stored.
    pub(super) durable: bool,
    /// This process has heard a keepalive of it, and did not only read of it.
    pub(super) heard: bool,
    pub(super) seq: u64,
    pub(super) last_seen: Moment,
    pub(super) print: Fingerprint,
    pub(super) id_hash: u64,
    /// Its canonical bytes.
    pub(super) text: PodText,
    /// Nonces that newer ones have replaced, oldest first.
    pub(super) replaced: Box<[String]>,
}

impl TrackedPod {
    /// Whether it stands in snapshots.
    pub(super) fn is_visible(&self) -> bool {
        self.liveness == PodLiveness::Live && self.durable
    }
}

/// Where a pod is in the table; valid until the next removal.
pub(super) type TableIndex = u32;

const NOWHERE: TableIndex = TableIndex::MAX;

#[derive(Debug)]
struct TableSlot {
    pod: TrackedPod,
    older: TableIndex,
    newer: TableIndex,
}

/// The table and its indices.
#[derive(Debug)]
pub(super) struct PodTable {
    slots: Vec<TableSlot>,
    by_key: HashMap<Key, TableIndex>,
    by_name: HashMap<u64, TableIndex, RandomState>,
    by_print: HashMap<Fingerprint, TableIndex, BuildHasherDefault<IdentityHasher>>,
    oldest: TableIndex,
    newest: TableIndex,
}

impl PodTable {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            by_key: HashMap::new(),
            by_name: HashMap::new(),
            by_print: HashMap::default(),
            oldest: NOWHERE,
            newest: NOWHERE,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn pod(&self, at: TableIndex) -> &TrackedPod {
        &self.slots[at as usize].pod
    }

    pub(super) fn pod_mut(&mut self, at: TableIndex) -> &mut TrackedPod {
        &mut self.slots[at as usize].pod
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &TrackedPod> {
        self.slots.iter().map(|slot| &slot.pod)
    }

    pub(super) fn pods_mut(&mut self) -> impl Iterator<Item = &mut TrackedPod> {
        self.slots.iter_mut().map(|slot| &mut slot.pod)
    }

    pub(super) fn by_key(&self, key: Key) -> Option<TableIndex> {
        self.by_key.get(&key).copied()
    }

    /// The known pod whose name has this hash.
    pub(super) fn by_name(&self, id_hash: u64) -> Option<TableIndex> {
        self.by_name.get(&id_hash).copied()
    }

    /// The live pod that sent exactly this last.
    pub(super) fn by_print(&self, print: Fingerprint) -> Option<TableIndex> {
        self.by_print.get(&print).copied()
    }

    /// The pod that was silent for longest.
    pub(super) fn oldest(&self) -> Option<TableIndex> {
        (self.oldest != NOWHERE).then_some(self.oldest)
    }

    /// Adds a pod as the newest; its key must not be there.
    pub(super) fn insert(&mut self, pod: TrackedPod) -> TableIndex {
        let at = TableIndex::try_from(self.slots.len()).unwrap_or(NOWHERE);
        self.by_key.insert(pod.key, at);
        if pod.liveness.is_known() {
            self.by_name.insert(pod.id_hash, at);
        }
        self.slots.push(TableSlot { pod, older: NOWHERE, newer: NOWHERE });
        self.link_as_newest(at);
        at
    }

    /// Removes a pod; the last one of the table takes its place.
    pub(super) fn remove(&mut self, at: TableIndex) -> TrackedPod {
        self.unlink(at);
        self.forget_name(at);
        self.forget_print(at);
        self.by_key.remove(&self.slots[at as usize].pod.key);
        let removed = self.slots.swap_remove(at as usize).pod;
        if (at as usize) < self.slots.len() {
            self.moved(TableIndex::try_from(self.slots.len()).unwrap_or(NOWHERE), at);
        }
        removed
    }

    /// A keepalive of this pod arrived.
    pub(super) fn refresh(&mut self, at: TableIndex, now: Moment) {
        let pod = self.pod_mut(at);
        pod.last_seen = now;
        pod.heard = true;
        if self.newest != at {
            self.unlink(at);
            self.link_as_newest(at);
        }
    }

    /// From now on these bytes are recognized as this pod's heartbeat.
    pub(super) fn recognize(&mut self, at: TableIndex, print: Fingerprint) {
        self.forget_print(at);
        self.pod_mut(at).print = print;
        self.by_print.insert(print, at);
    }

    /// No bytes are recognized as this pod's heartbeat any more.
    pub(super) fn forget_print(&mut self, at: TableIndex) {
        let print = self.pod(at).print;
        if self.by_print(print) == Some(at) {
            self.by_print.remove(&print);
        }
    }

    /// The pod's name does not lead to it any more.
    pub(super) fn forget_name(&mut self, at: TableIndex) {
        let id_hash = self.pod(at).id_hash;
        if self.by_name(id_hash) == Some(at) {
            self.by_name.remove(&id_hash);
        }
    }

    fn link_as_newest(&mut self, at: TableIndex) {
        let older = std::mem::replace(&mut self.newest, at);
        self.slots[at as usize].older = older;
        self.slots[at as usize].newer = NOWHERE;
        *self.newer_of(older) = at;
    }

    fn unlink(&mut self, at: TableIndex) {
        let TableSlot { older, newer, .. } = self.slots[at as usize];
        *self.newer_of(older) = newer;
        *self.older_of(newer) = older;
    }

    /// The slot at `from` now lies at `to`.
    fn moved(&mut self, from: TableIndex, to: TableIndex) {
        let TableSlot { older, newer, .. } = self.slots[to as usize];
        *self.newer_of(older) = to;
        *self.older_of(newer) = to;
        let TrackedPod { key, id_hash, print, .. } = self.slots[to as usize].pod;
        self.by_key.insert(key, to);
        self.by_name.entry(id_hash).and_modify(|at| *at = if *at == from { to } else { *at });
        self.by_print.entry(print).and_modify(|at| *at = if *at == from { to } else { *at });
    }

    /// The link that leads to the next newer one after `at`: at the old end, the head of the list.
    fn newer_of(&mut self, at: TableIndex) -> &mut TableIndex {
        if at == NOWHERE { &mut self.oldest } else { &mut self.slots[at as usize].newer }
    }

    fn older_of(&mut self, at: TableIndex) -> &mut TableIndex {
        if at == NOWHERE { &mut self.newest } else { &mut self.slots[at as usize].older }
    }
}
