//! All tracked pods in one dense table, indexed by key, id, fingerprint and time of the last keepalive.
//!
//! All pods have the same TTL and time is monotonic here, so that the order of the last keepalives is the order of the
//! deadlines: a doubly linked list through the table gives the next deadline, and a refresh takes constant time
//! without allocation.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, RandomState},
};

use super::{
    fingerprint::{Fingerprint, IdentityHasher},
    snapshot::PodText,
};
use crate::decide::{key::Key, time::Moment};

/// A pod's place in its life cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PodLiveness {
    /// Sends keepalives.
    Live,
    /// Sent `down`; keeps its seq for one TTL.
    Down,
    /// Another key has its id now; kept for a TTL so that the two do not replace each other in turn.
    Retired,
    /// Its first keepalive had `down`; kept for a TTL because `down` is final.
    DownOnly,
}

impl PodLiveness {
    /// Whether it is a pod of the ensemble; the other states only bar a nonce.
    pub(super) fn is_known(self) -> bool {
        matches!(self, Self::Live | Self::Down)
    }
}

/// One pod.
#[derive(Debug)]
pub(super) struct TrackedPod {
    pub(super) key: Key,
    pub(super) liveness: PodLiveness,
    /// Whether its seq is stored.
    pub(super) durable: bool,
    /// Whether this process has received a keepalive of it; false after a restore.
    pub(super) heard: bool,
    pub(super) seq: u64,
    pub(super) last_seen: Moment,
    pub(super) print: Fingerprint,
    pub(super) id_hash: u64,
    pub(super) text: PodText,
    /// Nonces that newer ones have replaced, oldest first.
    pub(super) replaced: Box<[String]>,
}

impl TrackedPod {
    /// Whether snapshots contain it.
    pub(super) fn is_visible(&self) -> bool {
        self.liveness == PodLiveness::Live && self.durable
    }
}

/// A pod's index in the table; valid until the next removal.
pub(super) type TableIndex = u32;

const NOWHERE: TableIndex = TableIndex::MAX;

#[derive(Debug)]
struct TableSlot {
    pod: TrackedPod,
    older: TableIndex,
    newer: TableIndex,
}

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

    /// The known pod whose id has this hash.
    pub(super) fn by_name(&self, id_hash: u64) -> Option<TableIndex> {
        self.by_name.get(&id_hash).copied()
    }

    /// The live pod whose last keepalive has this fingerprint.
    pub(super) fn by_print(&self, print: Fingerprint) -> Option<TableIndex> {
        self.by_print.get(&print).copied()
    }

    /// The pod with the oldest last keepalive.
    pub(super) fn oldest(&self) -> Option<TableIndex> {
        (self.oldest != NOWHERE).then_some(self.oldest)
    }

    /// Adds a pod as the newest; its key must be free.
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

    /// Removes a pod; the last one of the table moves to its index.
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

    /// Records a keepalive of this pod.
    pub(super) fn refresh(&mut self, at: TableIndex, now: Moment) {
        let pod = self.pod_mut(at);
        pod.last_seen = now;
        pod.heard = true;
        if self.newest != at {
            self.unlink(at);
            self.link_as_newest(at);
        }
    }

    /// Makes `print` the pod's heartbeat.
    pub(super) fn recognize(&mut self, at: TableIndex, print: Fingerprint) {
        self.forget_print(at);
        self.pod_mut(at).print = print;
        self.by_print.insert(print, at);
    }

    /// Removes the pod's fingerprint from the index.
    pub(super) fn forget_print(&mut self, at: TableIndex) {
        let print = self.pod(at).print;
        if self.by_print(print) == Some(at) {
            self.by_print.remove(&print);
        }
    }

    /// Removes the pod's id from the index.
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

    /// Corrects links and indices after the pod at `from` moved to `to`.
    fn moved(&mut self, from: TableIndex, to: TableIndex) {
        let TableSlot { older, newer, .. } = self.slots[to as usize];
        *self.newer_of(older) = to;
        *self.older_of(newer) = to;
        let TrackedPod { key, id_hash, print, .. } = self.slots[to as usize].pod;
        self.by_key.insert(key, to);
        self.by_name.entry(id_hash).and_modify(|at| *at = if *at == from { to } else { *at });
        self.by_print.entry(print).and_modify(|at| *at = if *at == from { to } else { *at });
    }

    /// The link to the next newer pod after `at`; the head of the list for `NOWHERE`.
    fn newer_of(&mut self, at: TableIndex) -> &mut TableIndex {
        if at == NOWHERE { &mut self.oldest } else { &mut self.slots[at as usize].newer }
    }

    fn older_of(&mut self, at: TableIndex) -> &mut TableIndex {
        if at == NOWHERE { &mut self.newest } else { &mut self.slots[at as usize].older }
    }
}
