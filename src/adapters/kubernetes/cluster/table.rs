//! The objects of one kind, by namespace and name; only newer versions are stored.
//!
//! Responses to our writes and events of the watch arrive in any order, so the resourceVersion decides. Deleted objects
//! leave a tombstone, since a response that is older than the deletion may arrive after it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use super::super::objects::{CachedObject, Selector, SharedText};

/// Tombstones that are kept: a response is late by seconds, in which fewer objects are deleted.
const MAX_TOMBSTONES: usize = 8192;

/// The result of storing a record.
pub(super) enum Put<R> {
    /// The cached version is as new, or the object was deleted.
    Stale,
    /// Newer, and equal in all that is kept.
    Same,
    /// Newer: the record before and after.
    Changed(Option<Arc<R>>, Arc<R>),
}

pub(in super::super) struct Table<R> {
    rows: BTreeMap<SharedText, HashMap<Arc<str>, Arc<R>>>,
    tombstones: Tombstones,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), tombstones: Tombstones::default() }
    }
}

impl<R: CachedObject> Table<R> {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<R>> {
        self.rows.get(namespace)?.get(name)
    }

    pub(super) fn of(&self, namespace: &str) -> impl Iterator<Item = &Arc<R>> {
        self.rows.get(namespace).into_iter().flat_map(HashMap::values)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<R>> {
        self.rows.values().flat_map(HashMap::values)
    }

    /// The older object of the same name and another UID, which `record` replaces.
    pub(super) fn namesake(&self, record: &R) -> Option<Arc<R>> {
        let known = self.get(record.namespace(), record.name())?;
        let later = known.uid() != record.uid() && known.version() < record.version();
        (later && !self.tombstones.refuses(record)).then(|| Arc::clone(known))
    }

    pub(super) fn put(&mut self, record: R) -> Put<R> {
        if self.tombstones.refuses(&record) {
            return Put::Stale;
        }
        let row = self.rows.entry(record.namespace().clone()).or_default();
        let before = row.get(record.name()).cloned();
        if before.as_ref().is_some_and(|before| before.version() >= record.version()) {
            return Put::Stale;
        }
        let same = before.as_ref().is_some_and(|before| before.at_version(record.version()) == record);
        let after = Arc::new(record);
        row.insert(Arc::clone(after.name()), Arc::clone(&after));
        if same { Put::Same } else { Put::Changed(before, after) }
    }

    /// Removes the object of this UID for good.
    pub(super) fn delete(&mut self, namespace: &str, name: &str, uid: &str) -> Option<Arc<R>> {
        self.tombstones.remember(uid, Tombstone::Deleted);
        self.take(namespace, name, uid)
    }

    /// Removes an object that a LIST of `selector` at `version` does not contain: it was deleted, or its labels changed.
    pub(super) fn absent(&mut self, record: &R, version: u64, selector: &Arc<Selector>) -> Option<Arc<R>> {
        self.tombstones.remember(record.uid(), Tombstone::Absent(version, Arc::clone(selector)));
        self.take(record.namespace(), record.name(), record.uid())
    }

    fn take(&mut self, namespace: &str, name: &str, uid: &str) -> Option<Arc<R>> {
        let row = self.rows.get_mut(namespace)?;
        if row.get(name)?.uid() != uid {
            return None;
        }
        let taken = row.remove(name);
        if row.is_empty() {
            self.rows.remove(namespace);
        }
        taken
    }
}

/// Which records of a removed object are refused.
enum Tombstone {
    /// All.
    Deleted,
    /// Those up to this version that the selector selects; others show that the object still exists.
    Absent(u64, Arc<Selector>),
}

#[derive(Default)]
struct Tombstones {
    uids: HashMap<Box<str>, Tombstone>,
    order: VecDeque<Box<str>>,
}

impl Tombstones {
    fn remember(&mut self, uid: &str, tombstone: Tombstone) {
        if let Some(known) = self.uids.get_mut(uid) {
            if !matches!(known, Tombstone::Deleted) {
                *known = tombstone;
            }
            return;
        }
        if self.order.len() >= MAX_TOMBSTONES
            && let Some(oldest) = self.order.pop_front()
        {
            self.uids.remove(&oldest);
        }
        self.order.push_back(uid.into());
        self.uids.insert(uid.into(), tombstone);
    }

    fn refuses<R: CachedObject>(&self, record: &R) -> bool {
        match self.uids.get(record.uid()) {
            None => false,
            Some(Tombstone::Deleted) => true,
            Some(Tombstone::Absent(version, selector)) => {
                record.version() <= *version && record.selected(selector)
            }
        }
    }
}
