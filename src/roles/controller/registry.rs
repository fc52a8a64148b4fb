//! Which resources there are, and a worker for each.
//!
//! Every change in the cluster ends here: it wakes the workers that it may concern, and nobody else. What
//! is true of several resources at once (who claims which pods, which pods belong to nobody any more) is
//! settled here, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    sync::broadcast::error::{RecvError, TryRecvError},
    time::Instant,
};

use super::{Deps, conditions::Problem, overlap, views::Gallery, worker::Worker};
use crate::{
    adapters::{
        kubernetes::{
            cluster::{Change, Cluster},
            objects::{Kind, PodRecord, ResourceRecord},
            secrets::KubernetesSecrets,
        },
        sink::labels::{farewell, fleet_selector},
    },
    api::{self, Context, Detectors, Manifest, Problems},
    decide::{detect::Rule, policy::Policy},
    roles::breaker::Asker,
};

/// After so long it is looked again whether all resources are listed.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Namespace and name.
pub(super) type Key = (String, String);

/// Between two tries to free pods that belong to nobody.
const AGAIN: Duration = Duration::from_secs(1);

/// All workers.
pub(super) struct Registry {
    deps: Arc<Deps>,
    gallery: Arc<Gallery>,
    workers: BTreeMap<Key, Worker>,
    askers: BTreeMap<String, Arc<Asker>>,
    /// Some pod could not be freed: when that is tried again.
    unfreed: Option<Instant>,
    /// It was not known which resources there are: when that is looked at again.
    put_off: Option<Instant>,
}

/// What a bundle of changes asks for.
#[derive(Default)]
struct Work {
    /// Resources came, went or changed, or who claims which pods may have.
    reconcile: bool,
    everybody: bool,
    wake: BTreeSet<Key>,
}

impl Registry {
    pub(super) fn new(deps: Arc<Deps>, gallery: Arc<Gallery>) -> Self {
        Self {
            deps,
            gallery,
            workers: BTreeMap::new(),
            askers: BTreeMap::new(),
            unfreed: None,
            put_off: None,
        }
    }

    /// Follows the cluster until the end.
    pub(super) async fn run(mut self) {
        let mut changes = self.deps.cluster.changes();
        self.reconcile().await;
        let deps = Arc::clone(&self.deps);
        let mut synced = pin!(deps.cluster.until_synced().fuse());
        loop {
            let first = tokio::select! {
                () = self.deps.stop.cancelled() => break,
                () = reached(self.unfreed) => {
                    self.free_orphans(None).await;
                    continue;
                }
                () = reached(self.put_off) => {
                    self.reconcile().await;
                    continue;
                }
                () = &mut synced => {
                    tracing::info!("caches are in sync");
                    self.free_orphans(None).await;
                    self.act(Work { reconcile: true, everybody: true, ..Work::default() }).await;
                    continue;
                }
                first = changes.recv() => first,
            };
            let mut work = Work::default();
            match first {
                Ok(change) => self.sort(&change, &mut work),
                Err(RecvError::Lagged(_)) => (work.reconcile, work.everybody) = (true, true),
                Err(RecvError::Closed) => break,
            }
            loop {
                match changes.try_recv() {
                    Ok(change) => self.sort(&change, &mut work),
                    Err(TryRecvError::Lagged(_)) => (work.reconcile, work.everybody) = (true, true),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            self.act(work).await;
        }
        for (_, worker) in std::mem::take(&mut self.workers) {
            worker.end().await;
        }
    }

    /// Whom one change concerns.
    fn sort(&self, change: &Change, work: &mut Work) {
        let there = self.workers.iter().filter(|((namespace, _), _)| **namespace == *change.namespace);
        match change.kind {
            Kind::KubervisorServices => {
                let key = (change.namespace.to_string(), change.name.to_string());
                work.reconcile |= self.is_news(&key);
                work.wake.insert(key);
            }
            Kind::Services => {
                // A Service that was changed may select the pods of another one.
                work.reconcile = true;
                let named = there.filter(|(_, worker)| worker.core.policy.borrow().service == *change.name);
                work.wake.extend(named.map(|(key, _)| key.clone()));
            }
            Kind::Pods => {
                let mut claimants = 0;
                for (key, worker) in there {
                    let ours = pods(change)
                        .any(|pod| pod.labels.get(api::keys::NAME) == Some(&*worker.settings.name));
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
                work.wake.extend(there.map(|(key, _)| key.clone()));
            }
        }
    }

    /// Whether the resource is another one than its worker knows; our own reports are not, and there are many.
    fn is_news(&self, key: &Key) -> bool {
        match (self.workers.get(key), self.deps.cluster.resource(&key.0, &key.1)) {
            (Some(worker), Some(resource)) => {
                *worker.settings.uid != *resource.uid
                    || worker.generation != Some(resource.generation)
                    || resource.deleting && !worker.core.posture.borrow().leaving
            }
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        }
    }

    fn selects(&self, worker: &Worker, change: &Change) -> bool {
        let policy = worker.core.policy.borrow().clone();
        let selector = fleet_selector(&self.deps.cluster, &worker.settings, &policy);
        selector.is_some_and(|selector| pods(change).any(|pod| selector.matches(pod)))
    }

    async fn act(&mut self, work: Work) {
        if work.reconcile {
            self.reconcile().await;
        }
        for (key, worker) in &self.workers {
            if work.everybody || work.wake.contains(key) {
                worker.wake();
            }
        }
    }

    /// Brings the workers to what the resources say.
    async fn reconcile(&mut self) {
        self.put_off = None;
        if !self.deps.cluster.resources_are_listed() {
            // A cache that was dropped is no word on anybody: whoever ended its workers now would forget what they know.
            self.put_off = Some(Instant::now() + LOOK_AGAIN);
            return;
        }
        let resources: BTreeMap<Key, Arc<ResourceRecord>> =
            self.deps.cluster.resources().into_iter().map(key).collect();
        self.end_those_without_resource(&resources).await;
        for (key, resource) in &resources {
            if !self.workers.contains_key(key) {
                let Some(asker) = self.asker(&key.0) else { continue };
                self.workers.insert(key.clone(), Worker::start(&self.deps, resource, asker));
            }
            if let Some(worker) = self.workers.get_mut(key) {
                renew(&self.deps, worker, resource);
            }
        }
        self.settle_claims(&resources);
        self.count();
        let views = self.workers.values().map(|worker| {
            let core = Arc::clone(&worker.core);
            Box::new(move || core.warden.view()) as Box<dyn Fn() -> _ + Send>
        });
        self.gallery.show(views.collect());
    }

    async fn end_those_without_resource(&mut self, resources: &BTreeMap<Key, Arc<ResourceRecord>>) {
        let same = |worker: &Worker, resource: &ResourceRecord| *worker.settings.uid == *resource.uid;
        let gone = self
            .workers
            .iter()
            .filter(|(key, worker)| resources.get(*key).is_none_or(|resource| !same(worker, resource)));
        let gone: Vec<Key> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            if let Some(worker) = self.workers.remove(&key) {
                worker.end().await;
                self.free_orphans(Some(&key)).await;
            }
        }
    }

    /// Two resources over the same pods: the younger one steps back.
    fn settle_claims(&self, resources: &BTreeMap<Key, Arc<ResourceRecord>>) {
        let losers = overlap::losers(
            &self.deps.cluster,
            self.workers.iter().filter_map(|(key, worker)| {
                let policy = worker.core.policy.borrow().clone();
                let selector = fleet_selector(&self.deps.cluster, &worker.settings, &policy)?;
                Some((key, resources.get(key)?.as_ref(), selector))
            }),
        );
        for (key, worker) in &self.workers {
            let Some(resource) = resources.get(key) else { continue };
            let overlap = losers.get(key).cloned();
            let leaving = resource.deleting || overlap.is_some();
            let before = std::mem::replace(&mut worker.core.standing().overlap, overlap.clone());
            let turned = worker
                .core
                .posture
                .send_if_modified(|posture| std::mem::replace(&mut posture.leaving, leaving) != leaving);
            if turned || before != overlap {
                worker.wake();
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

    /// One for each namespace: it may read the Secrets there, and no others.
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
                tracing::error!(%error, "no detector can ask anything");
                None
            }
        }
    }

    /// Pods that carry the name of a resource that does not exist get their traffic back; all, or those of one. What
    /// does not succeed is tried again: nobody else would.
    async fn free_orphans(&mut self, of: Option<&Key>) {
        if self.deps.dry_run {
            return;
        }
        let Deps { client, cluster, .. } = &*self.deps;
        let (mut known, mut all_free) = (BTreeMap::new(), true);
        for pod in cluster.named_pods() {
            let Some(name) = pod.labels.get(api::keys::NAME) else { continue };
            let key = (pod.namespace.to_string(), name.to_owned());
            if of.is_some_and(|of| *of != key) || self.workers.contains_key(&key) || pod.finished() {
                continue;
            }
            let whose = match known.get(&key) {
                Some(whose) => *whose,
                None => *known.entry(key.clone()).or_insert(exists(cluster, &key).await),
            };
            match whose {
                Some(true) => continue,
                Some(false) => {}
                None => {
                    all_free = false;
                    continue;
                }
            }
            match farewell::free(client, cluster, &pod).await {
                Ok(()) => tracing::info!(pod = &*pod.name, resource = name, "freed: its resource is gone"),
                Err(error) => {
                    all_free = false;
                    tracing::warn!(pod = &*pod.name, "{error}; tried again");
                }
            }
        }
        if !all_free {
            self.unfreed = Some(Instant::now() + AGAIN);
        } else if of.is_none() {
            self.unfreed = None;
        }
    }
}

/// Waits for it; for ever, if there is nothing to wait for.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A pod as it was and as it is.
fn pods(change: &Change) -> impl Iterator<Item = &PodRecord> {
    [&change.before, &change.after].into_iter().flatten().map(|pod| &**pod)
}

/// A quorum read; `None`: the API server does not say.
async fn exists(cluster: &Cluster, (namespace, name): &Key) -> Option<bool> {
    cluster.fetch_resource(namespace, name).await.ok().map(|found| found.is_some())
}

fn key(resource: Arc<ResourceRecord>) -> (Key, Arc<ResourceRecord>) {
    ((resource.namespace.to_string(), resource.name.to_string()), resource)
}

/// Gives a worker the newest spec; one that is wrong leaves the pods to the default activator.
fn renew(deps: &Deps, worker: &mut Worker, resource: &ResourceRecord) {
    if worker.generation == Some(resource.generation) {
        return;
    }
    worker.generation = Some(resource.generation);
    let read = read(deps, resource);
    let core = &worker.core;
    core.standing().problem = read.as_ref().err().map(|problems| Problem::InvalidSpec(words(problems)));
    match read {
        Ok(manifest) => {
            let sees = |rule: &&Rule| deps.live.is_none() && rule.detector.sees_keepalives_only();
            core.standing().deaf =
                manifest.rules.iter().filter(sees).map(|rule| rule.breaker.clone()).collect();
            core.policy.send_replace(Arc::new(manifest.policy.clone()));
            core.manifest.send_replace(Some(Arc::new(manifest)));
        }
        Err(problems) => {
            tracing::warn!(service = worker.settings.name, "{problems}");
            let mut policy = Policy::without_manifest(&worker.settings.name);
            let service = resource.object.pointer("/spec/service").and_then(serde_json::Value::as_str);
            service.unwrap_or_default().clone_into(&mut policy.service);
            core.warden.forget_breakers(|_| false);
            core.policy.send_replace(Arc::new(policy));
        }
    }
}

/// The resource as a manifest; what the API server keeps beside the spec is none of its business.
fn read(deps: &Deps, resource: &ResourceRecord) -> Result<Manifest, Problems> {
    let name = format!("{}/{}", resource.namespace, resource.name);
    let text = serde_json::json!({
        "apiVersion": api::API_VERSION, "kind": api::KIND, "spec": resource.object.get("spec"),
        "metadata": {"name": &*resource.name, "namespace": &*resource.namespace},
    })
    .to_string();
    let context = Context { detectors: Detectors::All, timing: deps.timing };
    let mut manifests = api::parse(&name, &text, context)?;
    manifests.pop().ok_or(Problems { file: name, list: Vec::new() })
}

/// All mistakes without lines, which a stored object has none of.
fn words(problems: &Problems) -> String {
    let one = |problem: &api::Problem| format!("{} {}; {}", problem.field, problem.what, problem.write);
    problems.list.iter().map(one).collect::<Vec<_>>().join(" | ")
}
