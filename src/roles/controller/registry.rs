//! A worker for each resource.
//!
//! Each change in the cluster wakes the workers whose fleet it may affect. What concerns several resources is decided
//! here: overlapping fleets, and pods whose resource no longer exists.

mod orphans;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{
        broadcast::error::{RecvError, TryRecvError},
        mpsc,
    },
    time::Instant,
};

use super::{
    deps::Deps,
    key::{self, ResourceKey},
    overlap,
    pages::{SnapshotFn, StatusSnapshots},
    scopes::Scopes,
    sharing::{self, SharingChanges},
    spec,
    worker::Worker,
};
use crate::{
    adapters::{
        kubernetes::{
            cluster::ClusterChange,
            objects::{Kind, PodRecord, ResourceRecord},
            secrets::KubernetesSecrets,
        },
        sink::labels::fleet_selector,
    },
    api,
    roles::breaker::Asker,
};

/// Interval between checks whether all resources are listed.
const LIST_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// How long a resource is left to the replica that has taken it over: short, because a write that arrives late supersedes the
/// owner too, and then nobody else works on it.
const SUPERSEDED_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Registry {
    deps: Arc<Deps>,
    snapshots: Arc<StatusSnapshots>,
    workers: BTreeMap<ResourceKey, Worker>,
    askers: BTreeMap<String, Arc<Asker>>,
    /// When the release of pods without a resource is tried again.
    orphan_retry: Option<Instant>,
    /// When reconciling is tried again, while the resources are not listed.
    list_check: Option<Instant>,
    scopes: Scopes,
    /// Resources that another replica has taken over, and until when they are left to it.
    superseded: BTreeMap<ResourceKey, Instant>,
    superseded_sender: mpsc::UnboundedSender<ResourceKey>,
    superseded_events: mpsc::UnboundedReceiver<ResourceKey>,
}

/// Work that a batch of changes requires.
#[derive(Default)]
struct Work {
    /// Resources, or the overlap of their fleets, may have changed.
    reconcile: bool,
    wake_all: bool,
    wake: BTreeSet<ResourceKey>,
}

impl Registry {
    pub(super) fn new(deps: Arc<Deps>, snapshots: Arc<StatusSnapshots>) -> Self {
        let (superseded_sender, superseded_events) = mpsc::unbounded_channel();
        Self {
            superseded: BTreeMap::new(),
            superseded_sender,
            superseded_events,
            deps,
            snapshots,
            workers: BTreeMap::new(),
            askers: BTreeMap::new(),
            orphan_retry: None,
            list_check: None,
            scopes: Scopes::default(),
        }
    }

    /// Follows the cluster until the process stops.
    pub(super) async fn run(mut self) {
        let mut changes = self.deps.cluster.changes();
        self.reconcile().await;
        let deps = Arc::clone(&self.deps);
        let mut progress = deps.cluster.progress();
        progress.mark_changed();
        let mut sharing = SharingChanges::of(&deps);
        loop {
            let first = tokio::select! {
                () = self.deps.stop.cancelled() => break,
                () = reached(self.orphan_retry) => {
                    self.release_orphans(None).await;
                    continue;
                }
                () = reached(self.list_check) => {
                    self.reconcile().await;
                    continue;
                }
                () = sharing.changed() => {
                    self.reconcile().await;
                    continue;
                }
                Some(key) = self.superseded_events.recv() => {
                    self.leave_to_other(key).await;
                    continue;
                }
                Ok(()) = progress.changed() => {
                    self.watches_changed().await;
                    continue;
                }
                first = changes.recv() => first,
            };
            let mut work = Work::default();
            match first {
                Ok(change) => self.sort(&change, &mut work),
                Err(RecvError::Lagged(_)) => (work.reconcile, work.wake_all) = (true, true),
                Err(RecvError::Closed) => break,
            }
            loop {
                match changes.try_recv() {
                    Ok(change) => self.sort(&change, &mut work),
                    Err(TryRecvError::Lagged(_)) => (work.reconcile, work.wake_all) = (true, true),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            self.act(work).await;
        }
        for (_, worker) in std::mem::take(&mut self.workers) {
            worker.end().await;
        }
    }

    /// Goes on with the scopes that have come into sync.
    async fn watches_changed(&mut self) {
        if self.scopes.update(&self.deps.cluster, &self.deps.process.alarms) {
            tracing::info!("caches are in sync");
            self.release_orphans(None).await;
            self.act(Work { reconcile: true, wake_all: true, ..Work::default() }).await;
        }
    }

    /// Adds what one change requires to `work`.
    fn sort(&self, change: &ClusterChange, work: &mut Work) {
        let workers = self.workers.iter().filter(|((namespace, _), _)| **namespace == *change.namespace);
        match change.kind {
            Kind::KubervisorServices => {
                let key = (change.namespace.to_string(), change.name.to_string());
                work.reconcile |= self.is_outdated(&key);
                work.wake.insert(key);
            }
            Kind::Services => {
                // A Service that was changed may select the pods of another one.
                work.reconcile = true;
                let named =
                    workers.filter(|(_, worker)| worker.state.policy.borrow().service == *change.name);
                work.wake.extend(named.map(|(key, _)| key.clone()));
            }
            Kind::Pods => {
                let mut claimants = 0;
                for (key, worker) in workers {
                    let ours = pods(change)
                        .any(|pod| pod.labels.get(api::keys::NAME) == Some(&*worker.state.settings.name));
                    let selected = self.selects(worker, change);
                    claimants += usize::from(selected);
                    if ours || selected {
                        work.wake.insert(key.clone());
                    }
                }
                work.reconcile |= claimants > 1;
            }
            Kind::EndpointSlices
            | Kind::Deployments
            | Kind::ReplicaSets
            | Kind::StatefulSets
            | Kind::Autoscalers => {
                work.wake.extend(workers.map(|(key, _)| key.clone()));
            }
        }
    }

    /// The worker lacks this resource, its generation or its deletion. Status writes change none of these.
    fn is_outdated(&self, key: &ResourceKey) -> bool {
        match (self.workers.get(key), self.deps.cluster.resource(&key.0, &key.1)) {
            (Some(worker), Some(resource)) => {
                *worker.state.settings.uid != *resource.uid
                    || worker.generation != Some(resource.generation)
                    || resource.deleting && !worker.state.mode.borrow().leaving
            }
            (None, None) => false,
            (None, Some(resource)) => self.may_run(key, &resource),
            (Some(_), None) => true,
        }
    }

    fn selects(&self, worker: &Worker, change: &ClusterChange) -> bool {
        let policy = worker.state.policy.borrow().clone();
        let selector = fleet_selector(&self.deps.cluster, &worker.state.settings, &policy);
        selector.is_some_and(|selector| pods(change).any(|pod| selector.matches(pod)))
    }

    async fn act(&mut self, work: Work) {
        if work.reconcile {
            self.reconcile().await;
        }
        for (key, worker) in &self.workers {
            if work.wake_all || work.wake.contains(key) {
                worker.state.wake();
            }
        }
    }

    /// Whether this process works on the resource: it is its own, and no other replica has just taken it over.
    fn may_run(&self, key: &ResourceKey, resource: &ResourceRecord) -> bool {
        let left = self.superseded.get(key).is_some_and(|until| *until > Instant::now());
        !left && sharing::may_run(&self.deps, resource)
    }

    /// Another replica has claimed the resource: two views differ for a moment.
    async fn leave_to_other(&mut self, key: ResourceKey) {
        if let Some(worker) = self.workers.remove(&key) {
            worker.end().await;
        }
        self.superseded.insert(key, Instant::now() + SUPERSEDED_PAUSE);
        self.reconcile().await;
    }

    /// Starts, updates and stops workers, until they match the resources.
    async fn reconcile(&mut self) {
        if let Some(replicas) = self.deps.replicas.get() {
            replicas.refresh();
        }
        let now = Instant::now();
        self.superseded.retain(|_, until| *until > now);
        let cluster = &self.deps.cluster;
        let mut resources: BTreeMap<ResourceKey, Arc<ResourceRecord>> =
            cluster.resources().into_iter().map(|resource| (key::of(&resource), resource)).collect();
        // A dropped cache lists no resources: stopping the workers of its namespaces for that would lose their state.
        let keys = resources.keys().chain(self.workers.keys());
        let unlisted = keys.map(|(namespace, _)| namespace.clone());
        let unlisted: BTreeSet<String> =
            unlisted.filter(|namespace| !cluster.resources_are_listed(namespace)).collect();
        let unlisted_check = (!unlisted.is_empty()).then(|| now + LIST_CHECK_INTERVAL);
        self.list_check = unlisted_check.into_iter().chain(self.superseded.values().copied()).min();
        resources.retain(|(namespace, _), _| !unlisted.contains(namespace));
        self.stop_orphaned_workers(&resources, &unlisted).await;
        let (mut began, ended) = (0, self.stop_foreign_workers(&resources).await);
        for (key, resource) in &resources {
            if !self.workers.contains_key(key) && self.may_run(key, resource) {
                let Some(asker) = self.asker(&key.0) else { continue };
                let superseded = self.superseded_sender.clone();
                self.workers.insert(key.clone(), Worker::new(&self.deps, resource, asker, superseded));
                began += 1;
            }
            if let Some(worker) = self.workers.get_mut(key) {
                spec::update(&self.deps, worker, resource);
            }
        }
        overlap::resolve(&self.deps.cluster, &self.workers, &resources);
        self.workers.values_mut().for_each(Worker::start);
        self.count();
        let latest = self.workers.values().map(|worker| {
            let state = Arc::clone(&worker.state);
            Box::new(move || state.reconciler.snapshot()) as Box<SnapshotFn>
        });
        self.snapshots.replace(latest.collect());
        self.publish_share(began, ended).await;
    }

    /// Ends the workers of resources that are another replica's now; returns how many.
    async fn stop_foreign_workers(
        &mut self,
        resources: &BTreeMap<ResourceKey, Arc<ResourceRecord>>,
    ) -> usize {
        let foreign = self
            .workers
            .keys()
            .filter(|key| resources.get(*key).is_some_and(|resource| !self.may_run(key, resource)));
        let foreign: Vec<ResourceKey> = foreign.cloned().collect();
        let ending = foreign.iter().filter_map(|key| self.workers.remove(key)).map(Worker::end);
        futures::future::join_all(ending).await;
        foreign.len()
    }

    /// Tells the other replicas what has ended here.
    async fn publish_share(&mut self, began: usize, ended: usize) {
        let Some(replicas) = self.deps.replicas.get() else { return };
        replicas.count_moves(began, ended);
        let hashed = self.workers.iter().filter(|(_, worker)| !sharing::follows_ensemble(&self.deps, worker));
        let running = hashed.map(|(key, _)| sharing::service_key(key)).collect();
        let published = replicas.publish(running, self.workers.len()).await;
        let given_up = sharing::give_up_ensemble(&self.deps).await;
        let again = match given_up.and(published) {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, "what is handed over is not stored yet; tried again");
                Some(LIST_CHECK_INTERVAL)
            }
        };
        let again = again.map(|wait| Instant::now() + wait);
        self.list_check = self.list_check.into_iter().chain(again).min();
    }

    async fn stop_orphaned_workers(
        &mut self,
        resources: &BTreeMap<ResourceKey, Arc<ResourceRecord>>,
        unlisted: &BTreeSet<String>,
    ) {
        let same = |worker: &Worker, resource: &ResourceRecord| *worker.state.settings.uid == *resource.uid;
        let orphaned = self
            .workers
            .iter()
            .filter(|((namespace, _), _)| !unlisted.contains(namespace))
            .filter(|(key, worker)| resources.get(*key).is_none_or(|resource| !same(worker, resource)));
        let orphaned: Vec<ResourceKey> = orphaned.map(|(key, _)| key.clone()).collect();
        for key in orphaned {
            if let Some(worker) = self.workers.remove(&key) {
                worker.end().await;
                self.release_orphans(Some(&key)).await;
            }
        }
    }

    fn count(&self) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (namespace, _) in self.workers.keys() {
            *counts.entry(namespace).or_default() += 1;
        }
        self.deps.gate_metrics.items(&counts);
    }

    /// The asker of a namespace, which reads the Secrets of that namespace only.
    fn asker(&mut self, namespace: &str) -> Option<Arc<Asker>> {
        if let Some(asker) = self.askers.get(namespace) {
            return Some(Arc::clone(asker));
        }
        let secrets = Arc::new(KubernetesSecrets::new(self.deps.client.clone(), namespace));
        let asker = match self.askers.values().next() {
            Some(another) => Ok(another.with_secrets(secrets)),
            None => Asker::new(secrets, self.deps.process.clock, self.deps.asker_metrics.clone()),
        };
        match asker {
            Ok(asker) => {
                let asker = Arc::new(asker);
                self.askers.insert(namespace.to_owned(), Arc::clone(&asker));
                Some(asker)
            }
            Err(error) => {
                tracing::error!(%error, "the HTTP client of the detectors cannot be set up");
                None
            }
        }
    }
}

/// Sleeps until `at`; forever without it.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The pod before and after the change.
fn pods(change: &ClusterChange) -> impl Iterator<Item = &PodRecord> {
    [&change.before, &change.after].into_iter().flatten().map(|pod| &**pod)
}
