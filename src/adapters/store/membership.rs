//! The processes on a prefix, and what each publishes about itself.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::decide::time::Moment;

/// The schema of the records that this version writes. A record of a newer schema is not written by this version.
pub const SCHEMA: u32 = 1;

/// One process on the prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Pod id and a random part drawn at each start, so that two processes never share it.
    pub id: String,
    /// `host:port` of its keepalive listener, where followers forward pings to; of its admin port where it has none.
    pub address: String,
    /// What work is assigned by: the UID of its pod, or the pod's name; the same after a restart of the process.
    #[serde(default)]
    pub pod: String,
}

/// What a member publishes about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberStatus {
    /// The schema of its records.
    pub schema: u32,
    /// The program's version.
    pub version: String,
    /// Its share of the work, relative to the others'; 0 gets none.
    pub weight: u32,
    /// It gets no work.
    pub cordoned: bool,
    /// How many services it works on.
    pub load: u32,
    /// The view whose other members' work it has let go of.
    pub view: Option<u64>,
    /// How often its lease has ended on its own clock: a view from before that is another one.
    pub lapses: u64,
}

/// A member's record, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberRecord {
    #[serde(flatten)]
    pub(super) member: Member,
    #[serde(default)]
    pub(super) status: MemberStatus,
}

/// A live member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// The process.
    pub member: Member,
    /// What it publishes.
    pub status: MemberStatus,
    /// When its record changed last, as seen by this process: with Leases its last renewal.
    pub renewed: Moment,
}

impl Default for MemberStatus {
    fn default() -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { schema: SCHEMA, version, weight: 1, cordoned: false, load: 0, view: None, lapses: 0 }
    }
}

/// The live members, by the name of their record; fed by a backend.
pub(super) struct MemberTable {
    by_name: Mutex<BTreeMap<String, MemberState>>,
    published: watch::Sender<Arc<Vec<MemberState>>>,
}

impl MemberTable {
    pub(super) fn new() -> Self {
        Self { by_name: Mutex::default(), published: watch::Sender::default() }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Vec<MemberState>>> {
        self.published.subscribe()
    }

    /// Replaces all members.
    pub(super) fn replace(&self, members: BTreeMap<String, MemberState>) {
        let mut by_name = self.by_name.lock();
        *by_name = members;
        self.publish(&by_name);
    }

    /// Adds a member, or replaces what is known of it.
    pub(super) fn put(&self, name: &str, state: MemberState) {
        let mut by_name = self.by_name.lock();
        by_name.insert(name.to_owned(), state);
        self.publish(&by_name);
    }

    /// Removes a member.
    pub(super) fn remove(&self, name: &str) {
        let mut by_name = self.by_name.lock();
        by_name.remove(name);
        self.publish(&by_name);
    }

    /// Publishes the members; a mere renewal wakes nobody.
    fn publish(&self, by_name: &BTreeMap<String, MemberState>) {
        let members: Vec<MemberState> = by_name.values().cloned().collect();
        self.published.send_if_modified(|shown| {
            let same = |(old, new): (&MemberState, &MemberState)| {
                (&old.member, &old.status) == (&new.member, &new.status)
            };
            let changed = shown.len() != members.len() || !shown.iter().zip(&members).all(same);
            *shown = Arc::new(members);
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(id: &str, renewed: u64) -> MemberState {
        let member = Member { id: id.to_owned(), address: String::new(), pod: id.to_owned() };
        let renewed = Moment::after_origin(std::time::Duration::from_secs(renewed));
        MemberState { member, status: MemberStatus::default(), renewed }
    }

    #[test]
    fn a_renewal_is_seen_and_wakes_nobody() {
        let table = MemberTable::new();
        let mut seen = table.subscribe();
        table.put("a", state("a", 1));
        assert!(seen.has_changed().unwrap());
        seen.mark_unchanged();
        table.put("a", state("a", 2));
        assert!(!seen.has_changed().unwrap());
        assert_eq!(seen.borrow()[0].renewed, state("a", 2).renewed);
        table.remove("a");
        assert!(seen.has_changed().unwrap() && seen.borrow_and_update().is_empty());
    }

    #[test]
    fn a_record_of_the_version_before_is_read() {
        let old: MemberRecord = serde_json::from_str(r#"{"id": "a-1", "address": "10.0.0.1:8000"}"#).unwrap();
        assert_eq!((old.member.id.as_str(), old.status.weight, old.status.view), ("a-1", 1, None));
    }
}
