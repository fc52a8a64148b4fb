//! Whose silence it is: the pod's, or ours.
//!
//! When a master is cut off, its pods do not expire together but one after the other, within one ping
//! interval. Each of them alone looks dead, and the gate would let the first half go before it sees
//! that nobody is left; when the network is back they return one by one, and the last half would go.
//! So a pod's silence is believed only when both hold: enough others were heard *after the time at
//! which it should have spoken*, and for a whole TTL enough were heard all along.

use std::{collections::BTreeMap, time::Duration};

use super::{Roster, Row, RowState};
use crate::decide::{fleet::Presence, key::Key, time::Timestamp};

/// What this process has noticed of pods falling silent. Not stored: it rests on our own clock.
#[derive(Clone, Debug, Default)]
pub struct SilenceTracker {
    /// Who is silent, and since when we know.
    noticed: BTreeMap<Key, Timestamp>,
    /// When the others were heard, in order.
    heard: Vec<Timestamp>,
    /// Since when enough are heard.
    hearing: Option<Timestamp>,
    now: Timestamp,
    ttl: Duration,
    enough: usize,
}

impl SilenceTracker {
    /// Takes note of who is silent in `roster` and who was heard when. `floor` pods must serve: as many must be heard,
    /// and half of the roster at least.
    pub fn notice(&mut self, now: Timestamp, ttl: Duration, floor: u32, roster: &Roster, rows: &[Row]) {
        let silent = |key: &Key| roster.pods.get(key).is_some_and(|pod| pod.presence == Presence::Unknown);
        self.noticed.retain(|key, _| silent(key));
        for key in roster.pods.keys().filter(|key| silent(key)) {
            self.noticed.entry(*key).or_insert(now);
        }
        let known = |row: &&Row| row.state == RowState::Live && roster.pods.contains_key(&row.key);
        self.heard = rows.iter().filter(known).map(|row| row.heard).collect();
        self.heard.sort_unstable();
        let floor = usize::try_from(floor).unwrap_or(usize::MAX);
        (self.now, self.ttl) = (now, ttl);
        self.enough = floor.max(roster.pods.len().div_ceil(2)).max(1);
        // Even the original's agents speak every 0.75 TTL.
        let hearing = self.heard_after(before(now, ttl * 4 / 5)) >= self.enough;
        self.hearing = hearing.then(|| self.hearing.unwrap_or(now));
    }

    /// Whether `key` is silent by itself.
    ///
    /// It was last heard a TTL before we noticed: whoever was heard in the last fifth of that TTL, or later, was heard
    /// when this one should have been.
    #[must_use]
    pub fn believed(&self, key: Key) -> bool {
        let Some(noticed) = self.noticed.get(&key) else { return true };
        let all_along = self.hearing.is_some_and(|since| self.now.since(since) >= self.ttl);
        all_along && self.heard_after(before(*noticed, self.ttl / 5)) >= self.enough
    }

    /// Somebody's silence waits for the others' word.
    #[must_use]
    pub fn undecided(&self) -> bool {
        self.noticed.keys().any(|key| !self.believed(*key))
    }

    fn heard_after(&self, moment: Timestamp) -> usize {
        self.heard.len() - self.heard.partition_point(|heard| *heard <= moment)
    }
}

fn before(moment: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_unix_millis(
        moment.unix_millis().saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
    )
}
