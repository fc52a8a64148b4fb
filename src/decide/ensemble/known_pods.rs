//! Known pods: live, down and expired ones, with the age of the last keepalive.
//!
//! A detector of silence needs pods that are no longer in the snapshot. Expired pods are therefore retained for
//! [`DEPARTED_TTLS`] TTLs, the newest [`DEPARTED_LIMIT`] of them. They are not stored: after a fail-over the list
//! starts empty.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::decide::{key::Key, time::Moment};

/// The most expired pods that are retained.
pub const DEPARTED_LIMIT: usize = 16_384;

/// Retention of an expired pod, in TTLs.
pub const DEPARTED_TTLS: u32 = 10;

/// A pod's state by its keepalives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LifeStatus {
    /// Its last keepalive is younger than the TTL.
    Live,
    /// Its last keepalive had `down: true`.
    Down,
    /// No keepalive for a TTL.
    Expired,
}

/// One known pod, unparsed.
#[derive(Clone, Copy, Debug)]
pub struct KnownPod<'a> {
    /// Its canonical JSON, as in `PODS`.
    pub text: &'a [u8],
    /// By its last keepalive.
    pub status: LifeStatus,
    /// Since its last keepalive or, if this leader has received none, since the take-over.
    pub age: Duration,
    /// How much of the age it was silent: what precedes a pause of this process does not count.
    pub silence: Duration,
    /// Whether this leader has received a keepalive of it.
    pub heard: bool,
}

#[derive(Debug)]
pub(super) struct ExpiredPod {
    pub(super) at: Moment,
    pub(super) last_seen: Moment,
    pub(super) heard: bool,
    pub(super) id_hash: u64,
    pub(super) text: Box<[u8]>,
}

/// The expired pods, in the order of their expiry; `order` may hold superseded entries.
#[derive(Debug, Default)]
pub(super) struct ExpiredPods {
    order: VecDeque<(Moment, Key)>,
    by_key: HashMap<Key, ExpiredPod>,
}

impl ExpiredPods {
    pub(super) fn insert(&mut self, key: Key, pod: ExpiredPod) {
        self.order.push_back((pod.at, key));
        self.by_key.insert(key, pod);
        while self.order.len() > DEPARTED_LIMIT {
            self.drop_oldest();
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<ExpiredPod> {
        self.by_key.remove(&key)
    }

    /// Drops the pods that expired before `since`.
    pub(super) fn prune(&mut self, since: Moment) {
        while self.order.front().is_some_and(|(at, _)| *at < since) {
            self.drop_oldest();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ExpiredPod> {
        let current = |(at, key): &(Moment, Key)| self.by_key.get(key).filter(|pod| pod.at == *at);
        self.order.iter().filter_map(current)
    }

    fn drop_oldest(&mut self) {
        if let Some((at, key)) = self.order.pop_front()
            && self.by_key.get(&key).is_some_and(|pod| pod.at == at)
        {
            self.by_key.remove(&key);
        }
    }
}
