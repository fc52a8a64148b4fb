//! What we know of the cluster, and how far that can be trusted.
//!
//! Reads are served from caches that watches and the answers to our own writes keep up to date, whichever
//! is newer. A cache proves nothing, though: what a plan rests on is a LIST of its own
//! ([`Cluster::list_pods`]), and [`Cluster::suspect`] says when the caches themselves are not to be
//! trusted: not in sync, silent for too long, or from a future that an API server was restored out of.

mod desired;
mod feed;
mod requests;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod watch_updates;
mod watcher;

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use kube::Client;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

pub use self::{
    desired::{Desired, OwnerKey},
    feed::WatchFailure,
    requests::{ListError, Listed},
    state::{ClusterChange, Mark, Origin},
};
pub(super) use self::{
    feed::{Feed, SILENCE},
    state::{State, Stored},
};
use super::objects::{
    AutoscalerRecord, Kind, PodRecord, ResourceRecord, Selector, ServiceRecord, SharedText, SliceRecord,
    WorkloadRecord,
};
use crate::{clock::Clock, decide::fleet::Uid};

/// Changes that a slow listener may fall behind before it is told that it lost some.
const BACKLOG: usize = 4096;

/// Which namespaces are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchScope {
    /// Every one.
    All,
    /// These.
    Namespaces(Vec<String>),
}

/// The cluster as we know it. Clones are the same one.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<ClusterCache>,
}

/// What the watches write and everybody reads.
pub(super) struct ClusterCache {
    pub(super) client: Client,
    pub(super) clock: Clock,
    state: RwLock<State>,
    changes: broadcast::Sender<ClusterChange>,
    /// Rises whenever a watch comes into order or falls out of it.
    progress: watch::Sender<u64>,
    /// How often time ran backwards: each watch starts anew when it rises.
    rewinds: watch::Sender<u64>,
}

impl Cluster {
    /// Starts one watch for each kind (and each namespace); they end with `stop`.
    #[must_use]
    pub fn start(client: Client, scope: &WatchScope, clock: Clock, stop: &CancellationToken) -> Self {
        let namespaces: Vec<Option<SharedText>> = match scope {
            WatchScope::All => vec![None],
            WatchScope::Namespaces(names) => {
                let names: HashSet<&str> = names.iter().map(String::as_str).collect();
                names.into_iter().map(|name| Some(name.into())).collect()
            }
        };
        let cluster = Self::unwatched(client, clock);
        for kind in Kind::ALL {
            for namespace in &namespaces {
                cluster.watch(kind, namespace.clone(), stop.clone());
            }
        }
        cluster
    }

    /// With empty caches that nobody fills.
    fn unwatched(client: Client, clock: Clock) -> Self {
        let shared = ClusterCache {
            client,
            clock,
            state: RwLock::default(),
            changes: broadcast::Sender::new(BACKLOG),
            progress: watch::Sender::new(0),
            rewinds: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    fn watch(&self, kind: Kind, namespace: Option<SharedText>, stop: CancellationToken) {
        let feed = Feed::new(kind, self.shared.clock.now());
        let index = self.shared.write(|state| {
            state.feeds.push(feed);
            state.feeds.len() - 1
        });
        let task = watcher::WatchTask { shared: Arc::clone(&self.shared), kind, namespace, index, stop };
        match kind {
            Kind::Pods => drop(tokio::spawn(watcher::keep::<PodRecord>(task))),
            Kind::Services => drop(tokio::spawn(watcher::keep::<ServiceRecord>(task))),
            Kind::EndpointSlices => drop(tokio::spawn(watcher::keep::<SliceRecord>(task))),
            Kind::Deployments | Kind::ReplicaSets | Kind::StatefulSets => {
                drop(tokio::spawn(watcher::keep::<WorkloadRecord>(task)));
            }
            Kind::Autoscalers => drop(tokio::spawn(watcher::keep::<AutoscalerRecord>(task))),
            Kind::KubervisorServices => drop(tokio::spawn(watcher::keep::<ResourceRecord>(task))),
        }
    }

    /// Whether every watch is in order.
    ///
    /// # Errors
    /// What is wrong with each that is not: a right that is missing is named by its verb and resource.
    pub fn synced(&self) -> Result<(), Vec<WatchFailure>> {
        let troubles: Vec<WatchFailure> = self.shared.read().feeds.iter().filter_map(Feed::problem).collect();
        if troubles.is_empty() { Ok(()) } else { Err(troubles) }
    }

    /// Waits until every watch is in order.
    pub async fn until_synced(&self) {
        let mut progress = self.shared.progress.subscribe();
        // The sender lives as long as we do.
        while self.synced().is_err() && progress.changed().await.is_ok() {}
    }

    /// Why nothing may be withheld now, if so.
    #[must_use]
    pub fn suspect(&self) -> Option<String> {
        let now = self.shared.clock.now();
        self.shared.read().feeds.iter().find_map(|feed| feed.suspicion(now))
    }

    /// The verb and resource of a watch that is refused, such as `watch pods`.
    #[must_use]
    pub fn missing_right(&self) -> Option<String> {
        self.shared.read().feeds.iter().find_map(Feed::missing_right)
    }

    /// What was never seen whole since the start: then nothing at all can be decided.
    #[must_use]
    pub fn unlisted(&self) -> Option<WatchFailure> {
        self.shared.read().feeds.iter().find(|feed| !feed.once_listed).and_then(Feed::problem)
    }

    /// Every KubervisorService is in the cache: one that is not there does not exist. Not so at the start, and not
    /// after time ran backwards, until all is listed again.
    #[must_use]
    pub fn resources_are_listed(&self) -> bool {
        let state = self.shared.read();
        let mut of_ours = state.feeds.iter().filter(|feed| feed.kind == Kind::KubervisorServices);
        of_ours.all(|feed| feed.listed)
    }

    /// Waits until every KubervisorService is known, and everything else, too, unless a missing right keeps that away: who
    /// owns the resources is to hear of it there.
    pub async fn until_resources_known(&self) {
        let mut progress = self.shared.progress.subscribe();
        let known = || {
            let state = self.shared.read();
            let of_ours = state.feeds.iter().filter(|feed| feed.kind == Kind::KubervisorServices);
            of_ours.into_iter().all(|feed| feed.once_listed)
        };
        while !(known() && (self.synced().is_ok() || self.missing_right().is_some()))
            && progress.changed().await.is_ok()
        {}
    }

    /// How often time ran backwards since the start. Whenever it rises, the caches were dropped: a ledger
    /// needs a new epoch.
    #[must_use]
    pub fn rewinds(&self) -> u64 {
        self.shared.read().rewinds
    }

    /// How often a watch showed that a pod there left service without the gate.
    #[must_use]
    pub fn departures(&self, namespace: &str) -> u64 {
        self.shared.read().departures.get(namespace).copied().unwrap_or(0)
    }

    /// Every change from now on. Who falls behind is told so, and must look at everything.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<ClusterChange> {
        self.shared.changes.subscribe()
    }

    /// The pods that the selector selects, in order of their UIDs.
    #[must_use]
    pub fn pods(&self, namespace: &str, selector: &Selector) -> Vec<Arc<PodRecord>> {
        let state = self.shared.read();
        in_order(state.pods.of(namespace).filter(|pod| selector.matches(pod)))
    }

    /// The pods that carry the name of this KubervisorService, in order of their UIDs.
    #[must_use]
    pub fn pods_named(&self, namespace: &str, resource: &str) -> Vec<Arc<PodRecord>> {
        self.pods(namespace, &Selector::named(resource))
    }

    /// All pods that carry the name of any KubervisorService, in order of their UIDs.
    #[must_use]
    pub fn named_pods(&self) -> Vec<Arc<PodRecord>> {
        let state = self.shared.read();
        in_order(state.pods.all().filter(|pod| pod.labels.get(crate::api::keys::NAME).is_some()))
    }

    /// One pod.
    #[must_use]
    pub fn pod(&self, uid: &Uid) -> Option<Arc<PodRecord>> {
        let state = self.shared.read();
        let (namespace, name) = state.by_uid.get(uid)?;
        state.pods.get(namespace, name).filter(|pod| pod.uid == *uid).cloned()
    }

    /// One Service.
    #[must_use]
    pub fn service(&self, namespace: &str, name: &str) -> Option<Arc<ServiceRecord>> {
        self.shared.read().services.get(namespace, name).cloned()
    }

    /// The Services of a namespace.
    #[must_use]
    pub fn services(&self, namespace: &str) -> Vec<Arc<ServiceRecord>> {
        self.shared.read().services.of(namespace).cloned().collect()
    }

    /// The pods that the Service's EndpointSlices show ready.
    #[must_use]
    pub fn ready_endpoints(&self, namespace: &str, service: &str) -> HashSet<Uid> {
        let state = self.shared.read();
        let slices = state.slices.of(namespace).filter(|slice| *slice.service == *service);
        slices.flat_map(|slice| slice.ready.iter().cloned()).collect()
    }

    /// Those of these pods that any Service's EndpointSlices show ready.
    #[must_use]
    pub fn shown_ready<'a>(&self, namespace: &str, pods: impl IntoIterator<Item = &'a Uid>) -> HashSet<Uid> {
        let asked: HashSet<&Uid> = pods.into_iter().collect();
        if asked.is_empty() {
            return HashSet::new();
        }
        let state = self.shared.read();
        let ready = state.slices.of(namespace).flat_map(|slice| slice.ready.iter());
        ready.filter(|uid| asked.contains(uid)).cloned().collect()
    }

    /// All KubervisorServices.
    #[must_use]
    pub fn resources(&self) -> Vec<Arc<ResourceRecord>> {
        self.shared.read().resources.all().cloned().collect()
    }

    /// One KubervisorService.
    #[must_use]
    pub fn resource(&self, namespace: &str, name: &str) -> Option<Arc<ResourceRecord>> {
        self.shared.read().resources.get(namespace, name).cloned()
    }

    /// How many pods there should be where these are.
    #[must_use]
    pub fn desired(&self, namespace: &str, pods: &[Arc<PodRecord>]) -> Desired {
        self.shared.read().desired(namespace, pods)
    }

    /// Takes in the answer to a request of ours, unless something newer is known or the pod was deleted.
    pub fn merge_pod(&self, pod: PodRecord) {
        self.shared.write(|state| state.put(Kind::Pods, pod, Origin::Answer));
    }

    /// As [`Cluster::merge_pod`].
    pub fn merge_resource(&self, resource: ResourceRecord) {
        self.shared.write(|state| state.put(Kind::KubervisorServices, resource, Origin::Answer));
    }

    /// What is known of this kind: what [`Cluster::witness`] wants, taken before a write.
    #[must_use]
    pub fn mark(&self, kind: Kind) -> Mark {
        self.shared.mark(kind)
    }

    /// Holds the resourceVersion that a write was given against what was known before it was sent; a lower
    /// one means that time ran backwards. (A write that changes nothing keeps its old one: ours change a
    /// fence or a serial.) Returns whether the world is still the same.
    #[must_use]
    pub fn witness(&self, kind: Kind, version: u64, mark: Mark) -> bool {
        self.shared.witness(&format!("a write of {}", kind.resource()), version, mark)
    }
}

fn in_order<'a>(pods: impl Iterator<Item = &'a Arc<PodRecord>>) -> Vec<Arc<PodRecord>> {
    let mut pods: Vec<Arc<PodRecord>> = pods.cloned().collect();
    pods.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
    pods
}

impl ClusterCache {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then tells everybody what has changed.
    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        // Under the lock: changes are told in the order in which they happened.
        for change in state.news.drain(..) {
            let _nobody_listens = self.changes.send(change);
        }
        result
    }

    pub(super) fn rewound(&self) -> watch::Receiver<u64> {
        self.rewinds.subscribe()
    }

    pub(super) fn mark(&self, kind: Kind) -> Mark {
        self.read().mark(kind)
    }

    /// Whether what was just answered is of the world of the mark, and not older than it.
    pub(super) fn witness(&self, what: &str, version: u64, mark: Mark) -> bool {
        if version < mark.highest {
            let why = format!("{what} is at version {version}, and {} was seen before", mark.highest);
            self.rewind(&why, mark.world);
        }
        self.read().rewinds == mark.world
    }

    /// Time ran backwards, and nobody has said so yet: everything is dropped, and every watch starts anew.
    fn rewind(&self, why: &str, world: u64) {
        let now = self.clock.now();
        let news = self.write(|state| {
            (state.rewinds == world).then(|| {
                state.rewind(now);
                state.rewinds
            })
        });
        let Some(rewinds) = news else { return };
        tracing::warn!(why, "time ran backwards in the cluster: all caches are dropped and read anew");
        self.rewinds.send_replace(rewinds);
        self.progress.send_modify(|count| *count += 1);
    }
}
