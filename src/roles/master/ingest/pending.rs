//! Keepalives that no leader has taken yet.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::Bytes;

use crate::decide::key::Key;

/// The most bytes of keepalives that are kept.
const LIMIT_BYTES: usize = 64 << 20;

/// A keepalive that the leader is to have: forwarded, or kept until there is a leader.
pub(crate) struct PendingPing {
    /// Of the pod.
    pub(super) key: Key,
    /// The order of arrival: an earlier ping never replaces a later one.
    pub(super) turn: u64,
    /// The sender.
    pub(super) peer: SocketAddr,
    pub(super) raw: Bytes,
}

/// The newest pending keepalive of each pod.
#[derive(Default)]
pub(super) struct PendingPings {
    newest: BTreeMap<Key, PendingPing>,
    bytes: usize,
}

impl PendingPings {
    /// `false` when there is no room.
    pub(super) fn put(&mut self, ping: PendingPing) -> bool {
        let known = self.newest.get(&ping.key);
        if known.is_some_and(|known| known.turn > ping.turn) {
            return true;
        }
        let bytes = self.bytes - known.map_or(0, |known| known.raw.len()) + ping.raw.len();
        if bytes > LIMIT_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.newest.insert(ping.key, ping);
        true
    }

    /// All of them, in order of arrival, in which sequence numbers are given.
    pub(super) fn take(&mut self) -> Vec<PendingPing> {
        self.bytes = 0;
        let mut pings: Vec<_> = std::mem::take(&mut self.newest).into_values().collect();
        pings.sort_unstable_by_key(|ping| ping.turn);
        pings
    }
}
