//! What the ensemble says, put into the roster: joins, restarts, moves, silence, and `down`.

use std::collections::BTreeMap;

use super::{FleetRules, Pod, Roster, Row, RowState};
use crate::decide::{
    fleet::{Presence, Uid},
    gate::ledger::Ledger,
    key::Key,
    time::Timestamp,
};

impl Roster {
    /// The roster with what `rows` say. A pod that no row names is silent.
    #[must_use]
    pub fn observe(mut self, now: Timestamp, rules: &FleetRules, rows: &[Row]) -> Self {
        let rows: BTreeMap<Key, &Row> = rows.iter().map(|row| (row.key, row)).collect();
        self.drop_strangers(rules, &rows);
        self.take_leave(&rows);
        self.retire_moved(&rows);
        for row in rows.values().filter(|row| row.state == RowState::Live && belongs(rules, row)) {
            self.hear(now, row);
        }
        for (key, pod) in &mut self.pods {
            let heard = rows.get(key).is_some_and(|row| row.state == RowState::Live);
            if !heard && pod.presence == Presence::Present {
                (pod.presence, pod.since) = (Presence::Unknown, now);
            }
        }
        self.most_live = self.most_live.max(self.live());
        self.all_said_down &= self.pods.is_empty();
        self
    }

    /// A role that is not in the configuration any more: the operator's word, not silence.
    fn drop_strangers(&mut self, rules: &FleetRules, rows: &BTreeMap<Key, &Row>) {
        self.pods.retain(|key, _| rows.get(key).is_none_or(|row| belongs(rules, row)));
    }

    fn take_leave(&mut self, rows: &BTreeMap<Key, &Row>) {
        for (key, _) in rows.iter().filter(|(_, row)| row.state == RowState::Down) {
            if self.pods.remove(key).is_some() {
                self.most_live = self.most_live.saturating_sub(1);
                self.all_said_down = self.pods.is_empty();
            }
        }
    }

    /// The same id on another address is the same pod, moved: its old address is nobody's.
    fn retire_moved(&mut self, rows: &BTreeMap<Key, &Row>) {
        let is_live = |key: &Key| rows.get(key).is_some_and(|row| row.state == RowState::Live);
        let homes: BTreeMap<&str, Key> =
            rows.values().filter(|row| is_live(&row.key)).map(|row| (row.id.as_str(), row.key)).collect();
        self.pods.retain(|key, pod| is_live(key) || !homes.contains_key(pod.id.as_str()));
    }

    fn hear(&mut self, now: Timestamp, row: &Row) {
        let fresh = || Pod {
            id: row.id.clone(),
            nonce: row.nonce.clone(),
            port: row.port,
            presence: Presence::Present,
            since: now,
        };
        let Some(pod) = self.pods.get_mut(&row.key) else {
            self.pods.insert(row.key, fresh());
            return;
        };
        if pod.id != row.id && !pod.id.is_empty() {
            // Another pod at a dead one's address; what was known of the dead one is not about it.
            *pod = fresh();
            return;
        }
        let before = pod.uid(row.key);
        (pod.id, pod.nonce) = (row.id.clone(), row.nonce.clone());
        // A port that was once known is kept while the payload does not say one.
        pod.port = row.port.or(pod.port);
        if pod.presence == Presence::Unknown {
            (pod.presence, pod.since) = (Presence::Present, now);
        }
        let after = pod.uid(row.key);
        if before != after {
            rename(&mut self.ledger, &before, after);
        }
    }
}

fn belongs(rules: &FleetRules, row: &Row) -> bool {
    rules.roles.is_empty() || rules.roles.contains(&row.role)
}

/// A restart is no way out of a withdrawal, nor of its price: the entry goes with the pod.
fn rename(ledger: &mut Ledger, before: &Uid, after: Uid) {
    if let Some(returned) = ledger.returned.remove(before) {
        ledger.returned.insert(after.clone(), returned);
    }
    if let Some(mut entry) = ledger.entries.remove(before) {
        entry.uid = after.clone();
        ledger.entries.insert(after, entry);
    }
}
