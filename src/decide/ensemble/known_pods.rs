//! The roster: every pod that is known and how long it was silent, the departed ones included.
//!
//! Snapshots show who is there; a breaker that judges silence must also see who is not. So pods
//! that expired are remembered for ten TTLs, the newest [`DEPARTED_LIMIT`] of them. Their memory
//! does not survive a fail-over: the next leader starts with who was alive.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::snapshot::SnapshotPod;
use crate::decide::{key::Key, time::Moment};

/// How many expired pods are remembered.
pub const DEPARTED_LIMIT: usize = 16_384;

/// Expired pods are remembered for this many TTLs.
pub const DEPARTED_TTLS: u32 = 10;

/// What is known of a pod's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It sends keepalives.
    Live,
    /// It said so itself.
    Down,
    /// Its keepalives ceased.
    Expired,
}

/// One pod of the roster.
#[derive(Clone, Debug)]
pub struct Known<'a> {
    /// Its last keepalive.
    pub member: SnapshotPod<'a>,
    /// How it is.
    pub status: Status,
    /// Since its last keepalive, or, if this leader has heard none, since it took over.
    pub age: Duration,
    /// Whether this leader has heard a keepalive of it.
    pub heard: bool,
}

/// One pod of the roster whose last keepalive nobody has read yet.
#[derive(Clone, Copy, Debug)]
pub struct Unread<'a> {
    /// Its canonical bytes.
    pub text: &'a [u8],
    /// As in [`Known`].
    pub status: Status,
    /// As in [`Known`].
    pub age: Duration,
    /// As in [`Known`].
    pub heard: bool,
}

impl<'a> Unread<'a> {
    /// Reads it.
    #[must_use]
    pub fn read(self) -> Option<Known<'a>> {
        let Self { text, status, age, heard } = self;
        Some(Known { member: SnapshotPod::read(text)?, status, age, heard })
    }
}

#[derive(Debug)]
pub(super) struct DepartedPod {
    pub(super) at: Moment,
    pub(super) last_seen: Moment,
    pub(super) heard: bool,
    pub(super) id_hash: u64,
    pub(super) text: Box<[u8]>,
}

/// Pods that expired a while ago.
#[derive(Debug, Default)]
pub(super) struct ExpiredPods {
    order: VecDeque<(Moment, Key)>,
    by_key: HashMap<Key, DepartedPod>,
}

impl ExpiredPods {
    pub(super) fn remember(&mut self, key: Key, departed: DepartedPod) {
        self.order.push_back((departed.at, key));
        self.by_key.insert(key, departed);
        while self.order.len() > DEPARTED_LIMIT {
            self.drop_oldest();
        }
    }

    pub(super) fn forget(&mut self, key: Key) {
        self.by_key.remove(&key);
    }

    /// Forgets who expired before `since`.
    pub(super) fn prune(&mut self, since: Moment) {
        while self.order.front().is_some_and(|(at, _)| *at < since) {
            self.drop_oldest();
        }
    }

    /// In the order of their expiry.
    pub(super) fn iter(&self) -> impl Iterator<Item = &DepartedPod> {
        let current = |(at, key): &(Moment, Key)| self.by_key.get(key).filter(|gone| gone.at == *at);
        self.order.iter().filter_map(current)
    }

    fn drop_oldest(&mut self) {
        if let Some((at, key)) = self.order.pop_front()
            && self.by_key.get(&key).is_some_and(|gone| gone.at == at)
        {
            self.by_key.remove(&key);
        }
    }
}
