//! What the caches hold, behind one lock, and what follows from each change of it.

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
    table::{Put, Table},
};
use crate::decide::{
    fleet::{Traffic, Uid},
    time::Moment,
};

/// How we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A watch said so.
    Watch,
    /// The answer to a request of our own.
    Answer,
}

/// What was known when something was asked: the answer must not be older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// How often time had run backwards.
    pub(in super::super) world: u64,
    /// The highest resourceVersion seen of the kind.
    pub(in super::super) highest: u64,
}

/// Something has changed.
#[derive(Clone, Debug)]
pub struct ClusterChange {
    /// Of which kind.
    pub kind: Kind,
    /// Where.
    pub namespace: SharedText,
    /// The object's name; for an EndpointSlice its Service's.
    pub name: Arc<str>,
    /// How we know.
    pub origin: Origin,
    /// The pod before; `None` if it is new or no pod.
    pub before: Option<Arc<PodRecord>>,
    /// The pod now; `None` if it is gone or no pod.
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
    pub(super) resources: Table<ResourceRecord>,
    pub(super) by_uid: HashMap<Uid, (SharedText, Arc<str>)>,
    pub(super) departures: HashMap<SharedText, u64>,
    /// The highest resourceVersion seen of each kind.
    highest: HashMap<Kind, u64>,
    pub(super) feeds: Vec<Feed>,
    pub(super) rewinds: u64,
    /// Changes that nobody was told of yet.
    pub(super) news: Vec<ClusterChange>,
}

/// A record with a table of its own.
pub(in super::super) trait Stored: CachedObject {
    fn table(state: &mut State, kind: Kind) -> &mut Table<Self>;

    /// What else follows when `before` becomes `after`.
    fn follow(
        state: &mut State,
        kind: Kind,
        before: Option<Arc<Self>>,
        after: Option<Arc<Self>>,
        by: Origin,
    ) {
        let Some(either) = after.or(before) else { return };
        let (namespace, name) = (either.namespace().clone(), either.routed_by());
        state.news.push(ClusterChange { kind, namespace, name, origin: by, before: None, after: None });
    }

    /// The name that a change of it goes by.
    fn routed_by(&self) -> Arc<str> {
        Arc::clone(self.name())
    }
}

impl State {
    pub(super) fn mark(&self, kind: Kind) -> Mark {
        Mark { world: self.rewinds, highest: self.highest.get(&kind).copied().unwrap_or(0) }
    }

    pub(super) fn saw(&mut self, kind: Kind, version: u64) {
        let highest = self.highest.entry(kind).or_default();
        *highest = version.max(*highest);
    }

    /// Takes a record in, if it is newer than what is known.
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

    /// The object is gone for good.
    pub(super) fn delete<R: Stored>(&mut self, kind: Kind, record: &R, by: Origin) {
        self.saw(kind, record.version());
        let (namespace, name, uid) = (record.namespace(), record.name(), record.uid());
        if let Some(before) = R::table(self, kind).delete(namespace, name, uid) {
            R::follow(self, kind, Some(before), None, by);
        }
    }

    /// The feed's part of the world is what `seen` names, as of `version`: whatever is older and not in it
    /// is gone.
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

    /// As [`State::keep`], for the pods of a selector: one that is missing may live on with other labels.
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

    /// Time ran backwards: nothing that is known is known any more.
    pub(super) fn rewind(&mut self, now: Moment) {
        let mut feeds = std::mem::take(&mut self.feeds);
        for feed in &mut feeds {
            (feed.listed, feed.heard) = (false, now);
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
        state.news.push(ClusterChange { kind, namespace, name, origin: by, before, after });
    }
}

/// Whether the pod left service without the gate. What the gate withholds is in the ledger; the watch may
/// show it before the answer to the write arrives, and it must not stop the rest of its own plan.
fn departed(before: &PodRecord, after: Option<&PodRecord>) -> bool {
    let withheld = |after: &PodRecord| {
        let marked = after.break_at.is_some() && after.break_at != before.break_at;
        after.able() && after.traffic() == Traffic::No && marked
    };
    before.serving() && !after.is_some_and(|after| after.serving() || withheld(after))
}

impl Stored for ServiceRecord {
    fn table(state: &mut State, _: Kind) -> &mut Table<Self> {
        &mut state.services
    }
}

impl Stored for SliceRecord {
    fn table(state: &mut State, _: Kind) -> &mut Table<Self> {
        &mut state.slices
    }

    fn routed_by(&self) -> Arc<str> {
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

impl Stored for AutoscalerRecord {
    fn table(state: &mut State, _: Kind) -> &mut Table<Self> {
        &mut state.autoscalers
    }
}

impl Stored for ResourceRecord {
    fn table(state: &mut State, _: Kind) -> &mut Table<Self> {
        &mut state.resources
    }
}
