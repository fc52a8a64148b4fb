//! Updates the roster from the ensemble: joins, restarts, moves, silence and `down`.

use std::collections::{BTreeMap, BTreeSet};

use super::{EnsembleRow, FleetRules, Roster, RosterPod};
use crate::decide::{
    ensemble::LifeStatus,
    fleet::{Presence, Uid},
    gate::ledger::Ledger,
    key::Key,
    time::Timestamp,
};

impl Roster {
    /// The roster updated by `rows`. A pod without a row is silent.
    pub fn observe(mut self, now: Timestamp, rules: &FleetRules, rows: &[EnsembleRow]) -> Self {
        let rows: BTreeMap<Key, &EnsembleRow> = rows.iter().map(|row| (row.key, row)).collect();
        self.remove_other_roles(rules, &rows);
        self.remove_down(&rows);
        self.remove_moved(&rows);
        for row in rows.values().filter(|row| row.state == LifeStatus::Live && belongs(rules, row)) {
            self.upsert(now, row);
        }
        for (key, pod) in &mut self.pods {
            let live = rows.get(key).is_some_and(|row| row.state == LifeStatus::Live);
            if !live && pod.presence == Presence::Present {
                (pod.presence, pod.since) = (Presence::Unknown, now);
            }
        }
        self.most_live = self.most_live.max(self.live());
        self.all_said_down &= self.pods.is_empty();
        self
    }

    /// Removes pods whose role is not (any more) in the configuration.
    fn remove_other_roles(&mut self, rules: &FleetRules, rows: &BTreeMap<Key, &EnsembleRow>) {
        self.pods.retain(|key, _| rows.get(key).is_none_or(|row| belongs(rules, row)));
    }

    fn remove_down(&mut self, rows: &BTreeMap<Key, &EnsembleRow>) {
        for (key, _) in rows.iter().filter(|(_, row)| row.state == LifeStatus::Down) {
            if self.pods.remove(key).is_some() {
                self.most_live = self.most_live.saturating_sub(1);
                self.all_said_down = self.pods.is_empty();
            }
        }
    }

    /// Removes the old address of an id that is now live on another address.
    fn remove_moved(&mut self, rows: &BTreeMap<Key, &EnsembleRow>) {
        let is_live = |key: &Key| rows.get(key).is_some_and(|row| row.state == LifeStatus::Live);
        let live: BTreeSet<&str> =
            rows.values().filter(|row| is_live(&row.key)).map(|row| row.id.as_str()).collect();
        self.pods.retain(|key, pod| is_live(key) || !live.contains(pod.id.as_str()));
    }

    fn upsert(&mut self, now: Timestamp, row: &EnsembleRow) {
        let fresh = || RosterPod {
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
            // A new pod at the address of a dead one.
            *pod = fresh();
            return;
        }
        let before = pod.uid(row.key);
        (pod.id, pod.nonce) = (row.id.clone(), row.nonce.clone());
        // A known port is kept while the payload has none.
        pod.port = row.port.or(pod.port);
        if pod.presence == Presence::Unknown {
            (pod.presence, pod.since) = (Presence::Present, now);
        }
        let after = pod.uid(row.key);
        if before != after {
            move_entry(&mut self.ledger, &before, after);
        }
    }
}

fn belongs(rules: &FleetRules, row: &EnsembleRow) -> bool {
    rules.roles.is_empty() || rules.roles.contains(&row.role)
}

/// Keeps a pod's entry and its count of withdrawals over a restart of its agent, which changes the UID.
fn move_entry(ledger: &mut Ledger, before: &Uid, after: Uid) {
    if let Some(returned) = ledger.returned.remove(before) {
        ledger.returned.insert(after.clone(), returned);
    }
    if let Some(mut entry) = ledger.entries.remove(before) {
        entry.uid = after.clone();
        ledger.entries.insert(after, entry);
    }
}
