//! Tells a dead pod from a master that is cut off.
//!
//! The pods of a master that is cut off expire one after the other within one keepalive interval, so
//! the gate would withhold the first half of them as dead; when the network is back they return one by
//! one, and it would withhold the rest. So the silence of a pod is believed only if enough other pods
//! sent keepalives after its own was due, and if enough have done so without a gap for one TTL.

use std::{collections::BTreeMap, time::Duration};

use super::{EnsembleRow, Roster};
use crate::decide::{ensemble::LifeStatus, fleet::Presence, key::Key, time::Timestamp};

/// What this process has observed of silent pods. Not stored, because it depends on the process's clock.
#[derive(Clone, Debug, Default)]
pub struct SilenceTracker {
    /// The silent pods, and when their silence was noticed.
    noticed: BTreeMap<Key, Timestamp>,
    /// The times of the last keepalives of the live pods, ascending.
    heard: Vec<Timestamp>,
    /// Since when at least `enough` pods send keepalives.
    connected: Option<Timestamp>,
    now: Timestamp,
    ttl: Duration,
    /// The larger of the floor and half of the roster, in pods.
    enough: usize,
}

impl SilenceTracker {
    /// Updates the observations from the roster and the times of the last keepalives. `floor` in pods.
    pub fn notice(
        &mut self,
        now: Timestamp,
        ttl: Duration,
        floor: u32,
        roster: &Roster,
        rows: &[EnsembleRow],
    ) {
        let silent = |key: &Key| roster.pods.get(key).is_some_and(|pod| pod.presence == Presence::Unknown);
        self.noticed.retain(|key, _| silent(key));
        for key in roster.pods.keys().filter(|key| silent(key)) {
            self.noticed.entry(*key).or_insert(now);
        }
        let known = |row: &&EnsembleRow| row.state == LifeStatus::Live && roster.pods.contains_key(&row.key);
        self.heard = rows.iter().filter(known).map(|row| row.heard).collect();
        self.heard.sort_unstable();
        let floor = usize::try_from(floor).unwrap_or(usize::MAX);
        (self.now, self.ttl) = (now, ttl);
        self.enough = floor.max(roster.pods.len().div_ceil(2)).max(1);
        // 4/5 of the TTL, because agents of the older dialect send a keepalive every 3/4 of it.
        let connected = self.heard_after(now - ttl * 4 / 5) >= self.enough;
        self.connected = connected.then(|| self.connected.unwrap_or(now));
    }

    /// Whether the silence of `key` is its own.
    ///
    /// Its last keepalive is one TTL older than the notice, so its next one was due before the last fifth of that TTL:
    /// keepalives of other pods since then show that the master was reachable.
    pub fn believed(&self, key: Key) -> bool {
        let Some(noticed) = self.noticed.get(&key) else { return true };
        let connected = self.connected.is_some_and(|since| self.now.since(since) >= self.ttl);
        connected && self.heard_after(*noticed - self.ttl / 5) >= self.enough
    }

    /// Whether the silence of a pod is not believed yet.
    pub fn undecided(&self) -> bool {
        self.noticed.keys().any(|key| !self.believed(*key))
    }

    fn heard_after(&self, moment: Timestamp) -> usize {
        self.heard.len() - self.heard.partition_point(|heard| *heard <= moment)
    }
}
