//! One replica: the product's own store and assignment, and the loop of a controller around them. Ends the work that is
//! no longer its own, begins what is, publishes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use kubervisor::{
    adapters::store::{KubernetesStore, Member, Membership, StoreMetrics},
    roles::cluster::{ClusterMetrics, Replicas},
    runtime::Runtime,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::client,
    mutant::{Mutant, Mutation},
    recorder::Recorder,
    world::{self, NAMESPACE},
};

/// How long a replica counts without a renewal.
pub const LEASE: Duration = Duration::from_secs(3);

/// How long a service is left to the replica that has claimed it, as in the controller.
const SUPERSEDED_PAUSE: Duration = Duration::from_secs(1);

/// Delay before a publication that failed is tried again, as in the controller.
const RETRY: Duration = Duration::from_millis(200);

/// One process of a replica.
pub struct Process {
    pub host: &'static str,
    /// Its id, a new one at each start.
    pub member: String,
    pub runtime: Runtime,
    pub services: usize,
    pub recorder: Recorder,
    pub mutant: Option<Mutant>,
    /// It ends in order.
    pub stop: CancellationToken,
}

/// What a replica does with a service that is its own.
#[async_trait]
pub trait Work: Send + Sync + 'static {
    /// Works on it until `stop`; returns before that if another replica has claimed it.
    async fn run(&self, service: &str, stop: &CancellationToken);
}

struct Worker {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// The loop of one process.
struct Driver {
    process: Arc<Process>,
    replicas: Replicas,
    work: Arc<dyn Work>,
    workers: BTreeMap<String, Worker>,
    superseded: BTreeMap<String, Instant>,
    sender: mpsc::UnboundedSender<String>,
}

impl Process {
    /// A client of the API server, with the process's mutant in between.
    pub fn client(&self) -> kube::Client {
        let mutation = self.mutant.map(|mutant| Arc::new(Mutation::new(mutant, self.runtime.clock, LEASE)));
        client("api", mutation)
    }

    /// Joins the others and works until it is stopped.
    pub async fn run(self: Arc<Self>, work: Arc<dyn Work>) {
        let member = Member {
            id: self.member.clone(),
            address: format!("{}:1", self.host),
            pod: self.host.to_owned(),
        };
        let membership =
            Membership { prefix: "/kubervisor/sim/".to_owned(), member: member.clone(), lease: LEASE };
        let Runtime { clock, alarms, metrics } = &self.runtime;
        let store_metrics = metrics.with_registry(StoreMetrics::register);
        let store = KubernetesStore::start(self.client(), NAMESPACE, membership, alarms, store_metrics);
        let metrics = metrics.with_registry(ClusterMetrics::register);
        let replicas = Replicas::new("sim".to_owned(), Arc::new(store), member, 1, *clock, metrics);
        let (sender, superseded) = mpsc::unbounded_channel();
        let process = Arc::clone(&self);
        let (workers, left) = (BTreeMap::new(), BTreeMap::new());
        Driver { process, replicas, work, workers, superseded: left, sender }.run(superseded).await;
    }
}

impl Driver {
    async fn run(mut self, mut superseded: mpsc::UnboundedReceiver<String>) {
        let mut changes = self.replicas.changes();
        let process = Arc::clone(&self.process);
        let mut retry = None;
        loop {
            let published = self.reconcile().await;
            let failed = (!published).then(|| Instant::now() + RETRY);
            let due = failed.into_iter().chain(self.superseded.values().copied()).min();
            retry = due.or(retry.filter(|at| *at > Instant::now()));
            tokio::select! {
                () = process.stop.cancelled() => break,
                () = changes.changed() => {}
                Some(service) = superseded.recv() => {
                    self.end(&service).await;
                    self.superseded.insert(service, Instant::now() + SUPERSEDED_PAUSE);
                }
                () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => retry = None,
            }
        }
        for service in self.workers.keys().cloned().collect::<Vec<_>>() {
            self.end(&service).await;
        }
        self.replicas.leave().await;
    }

    /// Returns whether the others know what ended here.
    async fn reconcile(&mut self) -> bool {
        self.replicas.refresh();
        let now = Instant::now();
        self.superseded.retain(|_, until| *until > now);
        let services: Vec<String> = (0..self.process.services).map(world::service).collect();
        let foreign = services.iter().filter(|service| !self.may_run(service));
        for service in foreign.cloned().collect::<Vec<_>>() {
            self.end(&service).await;
        }
        for service in services {
            if self.may_run(&service) && !self.workers.contains_key(&service) {
                self.begin(service);
            }
        }
        let running: BTreeSet<String> = self.workers.keys().cloned().collect();
        let load = running.len();
        self.replicas.publish(running, load).await.is_ok()
    }

    fn may_run(&self, service: &str) -> bool {
        if self.superseded.contains_key(service) {
            return false;
        }
        if self.process.mutant == Some(Mutant::BeginsAtOnce) {
            let owners = self.replicas.owners([service.to_owned()].into_iter());
            return owners.get(service).is_some_and(|owner| owner.id == self.process.member);
        }
        self.replicas.may_run(service)
    }

    fn begin(&mut self, service: String) {
        let stop = CancellationToken::new();
        let (work, stopped, sender) = (Arc::clone(&self.work), stop.clone(), self.sender.clone());
        let working = self.process.recorder.begin(&self.process.member, &service);
        let name = service.clone();
        let task = tokio::spawn(async move {
            let _working = working;
            work.run(&name, &stopped).await;
            if !stopped.is_cancelled() {
                let _driver_ends = sender.send(name);
            }
        });
        self.workers.insert(service, Worker { stop, task });
    }

    async fn end(&mut self, service: &str) {
        if let Some(Worker { stop, task }) = self.workers.remove(service) {
            stop.cancel();
            let _ = task.await;
        }
    }
}
