//! The contents of the caches, and what each change of them causes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    super::objects::{
        AutoscalerRecord, CachedObject, Kind, PodRecord, ResourceRecord, Selector, ServiceRecord, SharedText,
        SliceRecord, WorkloadRecord,
    },
    feed::Feed,
    owner_scale::ScaleCache,
    table::{Put, Table},
};
use crate::decide::{
    fleet::{Traffic, Uid},
    time::Moment,
};

/// Where a version of an object comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A watch.
    Watch,
    /// The response to a request of ours.
    Answer,
}

/// What was seen before a request: its response must not be older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The rewind count.
    pub(in super::super) rewinds: u64,
    /// The highest resourceVersion seen of the kind.
    pub(in super::super) highest: u64,
}

/// A change of one cached object.
#[derive(Clone, Debug)]
pub struct ClusterChange {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: SharedText,
    /// Its name; for an EndpointSlice the name of its Service.
    pub name: Arc<str>,
    /// Where a version of an object comes from.
    pub origin: Origin,
    /// The pod before the change; `None` if it is new or not a pod.
    pub before: Option<Arc<PodRecord>>,
    /// The pod after the change; `None` if it was deleted or is not a pod.
    pub after: Option<Arc<PodRecord>>,
}

#[derive(Default)]
pub(in super::super) struct State {
    pub(super) pods: Table<PodRecord>,
    pub(super) services: Table<ServiceRecord>,
    pub(super) slices: Table<SliceRecord>,
    pub(super) deployments: Table<WorkloadRecord>,
    pub(super) replica_sets: Table<WorkloadRecord>,
    pub(super) stateful_sets: Table<WorkloadRecord>,
    pub(super) autoscalers: Table<AutoscalerRecord>,
    /// What owners want whose kind is not watched.
    pub(super) scales: ScaleCache,
    pub(super) resources: Table<ResourceRecord>,
    pub(super) by_uid: HashMap<Uid, (SharedText, Arc<str>)>,
    pub(super) departures: HashMap<SharedText, u64>,
    /// The highest resourceVersion seen of each kind.
    highest: HashMap<Kind, u64>,
    pub(super) feeds: Vec<Feed>,
    pub(super) rewinds: u64,
    /// Changes that are not published yet.
    pub(super) pending_changes: Vec<ClusterChange>,
}

/// A record with a table of its own.
pub(in super::super) trait Stored: CachedObject {
    fn table(state: &mut State, kind: Kind) -> &mut Table<Self>;

    /// Records the change from `before` to `after`.
    fn follow(
        state: &mut State,
        kind: Kind,
        before: Option<Arc<Self>>,
        after: Option<Arc<Self>>,
        by: Origin,
    ) {
        let Some(either) = after.or(before) else { return };
        let (namespace, name) = (either.namespace().clone(), either.change_name());
        state.pending_changes.push(ClusterChange {
            kind,
            namespace,
            name,
            origin: by,
            before: None,
            after: None,
        });
    }

    /// [`ClusterChange::name`] of its changes.
    fn change_name(&self) -> Arc<str> {
        Arc::clone(self.name())
    }
}

impl State {
    pub(super) fn mark(&self, kind: Kind) -> Mark {
        Mark { rewinds: self.rewinds, highest: self.highest.get(&kind).copied().unwrap_or(0) }
    }

    /// The cached workloads of a kind.
    pub(super) fn workloads(&self, kind: Kind) -> &Table<WorkloadRecord> {
        match kind {
            Kind::Deployments => &self.deployments,
            Kind::StatefulSets => &self.stateful_sets,
            _ => &self.replica_sets,
        }
    }

    pub(super) fn feed(&mut self, index: usize, change: impl FnOnce(&mut Feed)) {
        if let Some(feed) = self.feeds.get_mut(index) {
            change(feed);
        }
    }

    pub(super) fn saw(&mut self, kind: Kind, version: u64) {
        let highest = self.highest.entry(kind).or_default();
        *highest = version.max(*highest);
    }

    /// Stores a record that is newer than the cached one.
    pub(super) fn put<R: Stored>(&mut self, kind: Kind, record: R, by: Origin) {
        self.saw(kind, record.version());
        if let Some(earlier) = R::table(self, kind).namesake(&record) {
            self.delete(kind, &*earlier, by);
        }
        match R::table(self, kind).put(record) {
            Put::Stale | Put::Same => {}
            Put::Changed(before, after) => R::follow(self, kind, before, Some(after), by),
        }
    }

    /// Removes an object that was deleted.
    pub(super) fn delete<R: Stored>(&mut self, kind: Kind, record: &R, by: Origin) {
        self.saw(kind, record.version());
        let (namespace, name, uid) = (record.namespace(), record.name(), record.uid());
        if let Some(before) = R::table(self, kind).delete(namespace, name, uid) {
            R::follow(self, kind, Some(before), None, by);
        }
    }

    /// Removes the objects of a watch that a complete list at `version` does not contain; newer ones stay.
    pub(super) fn keep<R: Stored>(
        &mut self,
        kind: Kind,
        namespace: Option<&str>,
        seen: &HashSet<Box<str>>,
        version: u64,
    ) {
        self.saw(kind, version);
        let table = R::table(self, kind);
        let mine = |r: &&Arc<R>| namespace.is_none_or(|namespace| **r.namespace() == *namespace);
        let missing = |r: &&Arc<R>| r.version() <= version && !seen.contains(r.uid());
        let missing: Vec<Arc<R>> = table.all().filter(mine).filter(missing).cloned().collect();
        for record in missing {
            self.delete(kind, &*record, Origin::Watch);
        }
    }

    /// As [`State::keep`], for the pods of a selector: one that is not listed may still exist with other labels.
    pub(super) fn keep_selected(
        &mut self,
        namespace: &str,
        selector: &Arc<Selector>,
        seen: &HashSet<Uid>,
        version: u64,
    ) {
        self.saw(Kind::Pods, version);
        let missing = |pod: &&Arc<PodRecord>| {
            selector.matches(pod) && pod.version <= version && !seen.contains(&pod.uid)
        };
        let missing: Vec<Arc<PodRecord>> = self.pods.of(namespace).filter(missing).cloned().collect();
        for pod in missing {
            let before = self.pods.absent(&pod, version, selector);
            PodRecord::follow(self, Kind::Pods, before, None, Origin::Answer);
        }
    }

    /// Drops everything but the counts of departures, since versions ran backwards.
    pub(super) fn rewind(&mut self, now: Moment) {
        let mut feeds = std::mem::take(&mut self.feeds);
        for feed in &mut feeds {
            (feed.listed, feed.last_event) = (false, now);
        }
        let departures = std::mem::take(&mut self.departures);
        *self = Self { feeds, departures, rewinds: self.rewinds + 1, ..Self::default() };
    }
}

impl Stored for PodRecord {
    fn table(state: &mut State, _: Kind) -> &mut Table<Self> {
        &mut state.pods
    }

    fn follow(
        state: &mut State,
        kind: Kind,
        before: Option<Arc<Self>>,
        after: Option<Arc<Self>>,
        by: Origin,
    ) {
        let Some(either) = after.as_ref().or(before.as_ref()) else { return };
        let (namespace, name) = (either.namespace.clone(), Arc::clone(&either.name));
        match &after {
            Some(after) => state.by_uid.insert(after.uid.clone(), (namespace.clone(), Arc::clone(&name))),
            None => state.by_uid.remove(&either.uid),
        };
        if by == Origin::Watch
            && let Some(before) = &before
            && departed(before, after.as_deref())
        {
            *state.departures.entry(namespace.clone()).or_default() += 1;
        }
        state.pending_changes.push(ClusterChange { kind, namespace, name, origin: by, before, after });
    }
}

/// Whether the pod left service without the gate. The gate's own withdrawal, which a watch may show before the response to
/// the write, is none: it must not stop the rest of its plan.
fn departed(before: &PodRecord, after: Option<&PodRecord>) -> bool {
    let withheld = |after: &PodRecord| {
        let marked = after.break_at.is_some() && after.break_at != before.break_at;
        after.able() && after.traffic() == Traffic::No && marked
    };
    before.serving() && !after.is_some_and(|after| after.serving() || withheld(after))
}

impl Stored for SliceRecord {
    fn table(state: &mut State, _: Kind) -> &mut Table<Self> {
        &mut state.slices
    }

    fn change_name(&self) -> Arc<str> {
        Arc::from(&*self.service)
    }
}

impl Stored for WorkloadRecord {
    fn table(state: &mut State, kind: Kind) -> &mut Table<Self> {
        match kind {
            Kind::Deployments => &mut state.deployments,
            Kind::StatefulSets => &mut state.stateful_sets,
            _ => &mut state.replica_sets,
        }
    }
}

macro_rules! stored {
    ($($record:ty => $table:ident),+) => {$(
        impl Stored for $record {
            fn table(state: &mut State, _: Kind) -> &mut Table<Self> {
                &mut state.$table
            }
        }
    )+};
}

stored!(AutoscalerRecord => autoscalers, ResourceRecord => resources, ServiceRecord => services);
