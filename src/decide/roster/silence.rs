//! Whose silence it is: the pod's, or ours.
//!
//! When a master is cut off, its pods do not expire together but one after the other, within one ping
//! interval. Each of them alone looks dead, and the gate would let the first half go before it sees
//! that nobody is left. So a pod's silence is believed only when the others were heard *after the time
//! at which it should have spoken*, as many of them as must serve anyway.

use std::{collections::BTreeMap, time::Duration};

use super::{Roster, Row, RowState};
use crate::decide::{fleet::Presence, key::Key, time::Timestamp};

/// What this process has noticed of pods falling silent. Not stored: it rests on our own clock.
#[derive(Clone, Debug, Default)]
pub struct Silence {
    noticed: BTreeMap<Key, Timestamp>,
    heard: Vec<Timestamp>,
}

impl Silence {
    /// Takes note of who is silent in `roster` and who was heard when.
    pub fn notice(&mut self, now: Timestamp, roster: &Roster, rows: &[Row]) {
        let silent = |key: &Key| roster.pods.get(key).is_some_and(|pod| pod.presence == Presence::Unknown);
        self.noticed.retain(|key, _| silent(key));
        for key in roster.pods.keys().filter(|key| silent(key)) {
            self.noticed.entry(*key).or_insert(now);
        }
        let listed = |row: &&Row| row.state == RowState::Live && roster.pods.contains_key(&row.key);
        self.heard = rows.iter().filter(listed).map(|row| row.heard).collect();
        self.heard.sort_unstable();
    }

    /// Whether `key` is silent by itself: at least `enough` others (and one at least) have spoken since it should have.
    ///
    /// It was last heard a TTL before we noticed, and even the original's agents speak every 0.75 TTL: whoever
    /// was heard in the last fifth of that TTL, or later, was heard when this one should have been.
    #[must_use]
    pub fn believed(&self, key: Key, ttl: Duration, enough: u32) -> bool {
        let Some(noticed) = self.noticed.get(&key) else { return true };
        let due = Timestamp::from_unix_millis(noticed.unix_millis() - millis(ttl / 5));
        let since = self.heard.len() - self.heard.partition_point(|heard| *heard <= due);
        since >= usize::try_from(enough.max(1)).unwrap_or(usize::MAX)
    }

    /// Somebody's silence waits for the others' word.
    #[must_use]
    pub fn undecided(&self, ttl: Duration, enough: u32) -> bool {
        self.noticed.keys().any(|key| !self.believed(*key, ttl, enough))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
