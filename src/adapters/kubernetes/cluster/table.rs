//! The objects of one kind, by namespace and name; only what is newer gets in.
//!
//! Answers to our own writes and events of the watch arrive in any order: a resourceVersion decides. What
//! was deleted stays away, since the answer to a write may be older than the deletion and arrive later.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use super::super::objects::{CachedObject, Selector, SharedText};

/// How many deleted objects are remembered. An answer is late by seconds, not by so many deletions.
const REMEMBERED: usize = 8192;

/// What became of a record.
pub(super) enum Put<R> {
    /// What is known already is as new.
    Stale,
    /// Newer, and nothing that matters has changed.
    Same,
    /// Newer: what was there before, and what is there now.
    Changed(Option<Arc<R>>, Arc<R>),
}

pub(in super::super) struct Table<R> {
    rows: BTreeMap<SharedText, HashMap<Arc<str>, Arc<R>>>,
    gone: Gone,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), gone: Gone::default() }
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

    /// What is there under this name with another identity and would have to make room.
    pub(super) fn namesake(&self, record: &R) -> Option<Arc<R>> {
        let known = self.get(record.namespace(), record.name())?;
        let later = known.uid() != record.uid() && known.version() < record.version();
        (later && !self.gone.refuses(record)).then(|| Arc::clone(known))
    }

    pub(super) fn put(&mut self, record: R) -> Put<R> {
        if self.gone.refuses(&record) {
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

    /// Removes the object of this identity; no record of it gets in again.
    pub(super) fn delete(&mut self, namespace: &str, name: &str, uid: &str) -> Option<Arc<R>> {
        self.gone.remember(uid, Until::Ever);
        self.take(namespace, name, uid)
    }

    /// Removes an object that a LIST of `selector` at `version` does not show: it was deleted, or it is
    /// selected no more.
    pub(super) fn absent(&mut self, record: &R, version: u64, selector: &Arc<Selector>) -> Option<Arc<R>> {
        self.gone.remember(record.uid(), Until::Later(version, Arc::clone(selector)));
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

/// How long an object stays away.
enum Until {
    Ever,
    /// A record that the selector does not select, or that is newer, shows that it was not deleted.
    Later(u64, Arc<Selector>),
}

#[derive(Default)]
struct Gone {
    uids: HashMap<Box<str>, Until>,
    order: VecDeque<Box<str>>,
}

impl Gone {
    fn remember(&mut self, uid: &str, until: Until) {
        if let Some(known) = self.uids.get_mut(uid) {
            if !matches!(known, Until::Ever) {
                *known = until;
            }
            return;
        }
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.uids.remove(&oldest);
        }
        self.order.push_back(uid.into());
        self.uids.insert(uid.into(), until);
    }

    fn refuses<R: CachedObject>(&self, record: &R) -> bool {
        match self.uids.get(record.uid()) {
            None => false,
            Some(Until::Ever) => true,
            Some(Until::Later(version, selector)) => {
                record.version() <= *version && record.selected(selector)
            }
        }
    }
}
