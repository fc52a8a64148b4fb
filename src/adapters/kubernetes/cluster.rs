//! The cached state of the cluster, and how far it can be trusted.
//!
//! Reads come from caches that watches and the responses to our own writes keep up to date; the newer version
//! wins. A cached object is no proof: a plan rests on a LIST of its own ([`Cluster::list_pods`]).
//! [`Cluster::suspect`] gives the reason when the caches cannot be trusted: not in sync, silent for too long,
//! or ahead of an API server that was restored from a backup.

mod cache;
mod desired;
mod feed;
mod listing;
mod owner_scale;
mod requests;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod watcher;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures::FutureExt;
use kube::Client;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use self::watcher::WatchTask;
pub(super) use self::{
    cache::ClusterCache,
    feed::{Feed, SILENCE},
    state::Stored,
};
pub use self::{
    desired::{Desired, OwnerKey},
    feed::WatchFailure,
    listing::ReadyEndpoints,
    requests::{ListError, Listed},
    state::{ClusterChange, Mark, Origin},
};
use super::objects::{
    AutoscalerRecord, Kind, PodRecord, ResourceRecord, Selector, ServiceRecord, SharedText, SliceRecord,
    WorkloadRecord,
};
use crate::{alarms::Alarms, clock::Clock, core_task::until_stopped, decide::fleet::Uid};

/// Which namespaces are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchScope {
    /// All namespaces.
    All,
    /// The named ones.
    Namespaces(Vec<String>),
}

/// A handle to the caches of the cluster; clones share them.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<ClusterCache>,
}

impl Cluster {
    /// Starts one watch for each kind (and each namespace); they end with `stop`.
    pub fn start(client: Client, scope: &WatchScope, alarms: &Alarms, stop: &CancellationToken) -> Self {
        let namespaces: Vec<Option<SharedText>> = match scope {
            WatchScope::All => vec![None],
            WatchScope::Namespaces(names) => {
                let names: HashSet<&str> = names.iter().map(String::as_str).collect();
                names.into_iter().map(|name| Some(name.into())).collect()
            }
        };
        let cluster = Self::unwatched(client, alarms.clock());
        for kind in Kind::ALL {
            for namespace in &namespaces {
                cluster.watch(kind, namespace.clone(), alarms, stop);
            }
        }
        cluster
    }

    /// Empty caches without watches.
    fn unwatched(client: Client, clock: Clock) -> Self {
        Self { shared: Arc::new(ClusterCache::new(client, clock)) }
    }

    fn watch(&self, kind: Kind, namespace: Option<SharedText>, alarms: &Alarms, stop: &CancellationToken) {
        let feed = Feed::new(kind, namespace.clone(), self.shared.clock.now());
        let index = self.shared.write(|state| {
            state.feeds.push(feed);
            state.feeds.len() - 1
        });
        let task = WatchTask { shared: Arc::clone(&self.shared), kind, namespace, index, stop: stop.clone() };
        let watching = match kind {
            Kind::Pods => watcher::keep::<PodRecord>(task).boxed(),
            Kind::Services => watcher::keep::<ServiceRecord>(task).boxed(),
            Kind::EndpointSlices => watcher::keep::<SliceRecord>(task).boxed(),
            Kind::Deployments | Kind::ReplicaSets | Kind::StatefulSets => {
                watcher::keep::<WorkloadRecord>(task).boxed()
            }
            Kind::Autoscalers => watcher::keep::<AutoscalerRecord>(task).boxed(),
            Kind::KubervisorServices => watcher::keep::<ResourceRecord>(task).boxed(),
        };
        tokio::spawn(until_stopped(alarms, &format!("the watch of {kind:?}"), stop, watching));
    }

    /// Whether every watch is in sync.
    ///
    /// # Errors
    /// One failure for each watch that is not; a missing right is named by its verb and resource.
    pub fn synced(&self) -> Result<(), Vec<WatchFailure>> {
        let failures: Vec<WatchFailure> = self.shared.read().feeds.iter().filter_map(Feed::problem).collect();
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    /// Why the watches of each scope (a namespace, or all: `None`) are not in sync; no failure for one that is.
    pub fn problems(&self) -> BTreeMap<Option<SharedText>, Vec<WatchFailure>> {
        let mut scopes = BTreeMap::<_, Vec<_>>::new();
        for feed in &self.shared.read().feeds {
            scopes.entry(feed.namespace.clone()).or_default().extend(feed.problem());
        }
        scopes
    }

    /// Rises when a watch gets into sync or fails.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.shared.progress.subscribe()
    }

    /// Waits until every watch is in sync.
    pub async fn until_synced(&self) {
        let mut progress = self.shared.progress.subscribe();
        while self.synced().is_err() && progress.changed().await.is_ok() {}
    }

    /// Why the caches of a namespace cannot be trusted, and nothing may be withheld; `None` when they can.
    pub fn suspect(&self, namespace: &str) -> Option<String> {
        let now = self.shared.clock.now();
        self.shared
            .read()
            .feeds
            .iter()
            .filter(|feed| feed.covers(namespace))
            .find_map(|feed| feed.suspicion(now))
    }

    /// The verb and resource of a watch of a namespace that is refused, such as `watch pods`.
    pub fn missing_right(&self, namespace: &str) -> Option<String> {
        self.shared.read().feeds.iter().filter(|feed| feed.covers(namespace)).find_map(Feed::missing_right)
    }

    /// The failure of a watch of a namespace that was never in sync since the start: without it nothing can be decided.
    pub fn never_listed(&self, namespace: &str) -> Option<WatchFailure> {
        let state = self.shared.read();
        let mut feeds = state.feeds.iter().filter(|feed| feed.covers(namespace));
        feeds.find(|feed| !feed.ever_listed).and_then(Feed::problem)
    }

    /// Whether every KubervisorService of a namespace is cached, so that one that is absent does not exist. False at the
    /// start and after a rewind until all are listed.
    pub fn resources_are_listed(&self, namespace: &str) -> bool {
        let state = self.shared.read();
        let mut feeds = state.feeds.iter().filter(|feed| feed.covers(namespace));
        feeds.all(|feed| feed.kind != Kind::KubervisorServices || feed.listed)
    }

    /// Waits until, in one scope at least, every KubervisorService was listed and every watch is in sync. A missing right
    /// ends the wait, so that it can be reported in the resources' status.
    pub async fn until_resources_known(&self) {
        let mut progress = self.shared.progress.subscribe();
        while !self.resources_known() && progress.changed().await.is_ok() {}
    }

    fn resources_known(&self) -> bool {
        let state = self.shared.read();
        let mut listed =
            state.feeds.iter().filter(|feed| feed.kind == Kind::KubervisorServices && feed.ever_listed);
        listed.any(|listed| {
            let scope = || state.feeds.iter().filter(|feed| feed.namespace == listed.namespace);
            scope().all(|feed| feed.problem().is_none()) || scope().any(|feed| feed.missing_right().is_some())
        })
    }

    /// How often the API server's versions ran backwards since the start. Each time the caches were dropped, and a
    /// ledger needs a new epoch.
    pub fn rewinds(&self) -> u64 {
        self.shared.read().rewinds
    }

    /// How many pods of the namespace left service without the gate, as the watches showed.
    pub fn departures(&self, namespace: &str) -> u64 {
        self.shared.read().departures.get(namespace).copied().unwrap_or(0)
    }

    /// Every change from now on; after `Lagged` the receiver must read everything again.
    pub fn changes(&self) -> broadcast::Receiver<ClusterChange> {
        self.shared.changes.subscribe()
    }

    /// The selected pods, sorted by UID.
    pub fn pods(&self, namespace: &str, selector: &Selector) -> Vec<Arc<PodRecord>> {
        let state = self.shared.read();
        by_uid(state.pods.of(namespace).filter(|pod| selector.matches(pod)).cloned())
    }

    /// The pods labelled with the name of this KubervisorService, sorted by UID.
    pub fn pods_named(&self, namespace: &str, resource: &str) -> Vec<Arc<PodRecord>> {
        self.pods(namespace, &Selector::named(resource))
    }

    /// All pods labelled with the name of any KubervisorService, sorted by UID.
    pub fn named_pods(&self) -> Vec<Arc<PodRecord>> {
        let state = self.shared.read();
        by_uid(state.pods.all().filter(|pod| pod.labels.get(crate::api::keys::NAME).is_some()).cloned())
    }

    /// The pod with this UID.
    pub fn pod(&self, uid: &Uid) -> Option<Arc<PodRecord>> {
        let state = self.shared.read();
        let (namespace, name) = state.by_uid.get(uid)?;
        state.pods.get(namespace, name).filter(|pod| pod.uid == *uid).cloned()
    }

    /// The Service of this name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<Arc<ServiceRecord>> {
        self.shared.read().services.get(namespace, name).cloned()
    }

    /// All KubervisorServices.
    pub fn resources(&self) -> Vec<Arc<ResourceRecord>> {
        self.shared.read().resources.all().cloned().collect()
    }

    /// The KubervisorService of this name.
    pub fn resource(&self, namespace: &str, name: &str) -> Option<Arc<ResourceRecord>> {
        self.shared.read().resources.get(namespace, name).cloned()
    }

    /// How many pods the owners of `pods` want, and which owners these are. `selector`: of the Service whose pods these are.
    pub fn desired(&self, namespace: &str, pods: &[Arc<PodRecord>], selector: Option<&Selector>) -> Desired {
        self.shared.read().desired(namespace, pods, selector)
    }

    /// Caches the response to a write, unless a newer version is cached or the pod was deleted.
    pub fn merge_pod(&self, pod: PodRecord) {
        self.shared.write(|state| state.put(Kind::Pods, pod, Origin::Answer));
    }

    /// As [`Cluster::merge_pod`], for a resource.
    pub fn merge_resource(&self, resource: ResourceRecord) {
        self.shared.write(|state| state.put(Kind::KubervisorServices, resource, Origin::Answer));
    }

    /// The highest version seen of this kind, to be taken before a write for [`Cluster::check_version`].
    pub fn mark(&self, kind: Kind) -> Mark {
        self.shared.mark(kind)
    }

    /// Compares the resourceVersion of a write's response with `mark`: a lower one means that the API server was
    /// restored from a backup, and drops the caches. False: they were dropped since `mark`. `before` is the version that
    /// the object had: a write that changes nothing keeps it, which says nothing.
    pub fn check_version(&self, kind: Kind, before: u64, version: u64, mark: Mark) -> bool {
        if version == before {
            return self.shared.is_current(mark);
        }
        self.shared.check_version(&format!("a write of {}", kind.resource()), version, mark)
    }
}

/// Sorts pods by UID.
fn by_uid(pods: impl Iterator<Item = Arc<PodRecord>>) -> Vec<Arc<PodRecord>> {
    let mut pods: Vec<Arc<PodRecord>> = pods.collect();
    pods.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
    pods
}
