//! The tasks of one `KubervisorService`: gate, breakers, finalizer and release. They live as long as the resource.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    breaker_host::Host,
    deps::Deps,
    finalizer,
    health::ResourceHealth,
    key::{self, ResourceKey},
    pod_notifier::PodNotifier,
    release,
    reporter::FleetReporter,
    worker_state::WorkerState,
};
use crate::{
    adapters::{
        kubernetes::objects::ResourceRecord,
        sink::labels::{LabelSettings, LabelSink, TeardownMode},
    },
    core_task::without_panic,
    decide::{alarm_reason::AlarmReason, policy::Policy},
    roles::{
        breaker::{Asker, run_breakers},
        gate::reconciler::{GateReconciler, GateReconcilerDeps},
    },
};

pub(super) struct Worker {
    /// The generation of its policy.
    pub(super) generation: Option<i64>,
    pub(super) state: Arc<WorkerState>,
    key: ResourceKey,
    superseded: mpsc::UnboundedSender<ResourceKey>,
    task: Option<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Worker {
    /// A worker of `resource` whose tasks do not run yet: a plan by any policy but the resource's own could return pods.
    ///
    /// `superseded` gets its key if another replica takes the resource over.
    pub(super) fn new(
        deps: &Arc<Deps>,
        resource: &ResourceRecord,
        asker: Arc<Asker>,
        superseded: mpsc::UnboundedSender<ResourceKey>,
    ) -> Self {
        let settings = LabelSettings {
            namespace: resource.namespace.to_string(),
            name: resource.name.to_string(),
            uid: resource.uid.to_string(),
            owner: deps.replicas.get().map(|replicas| replicas.member().id.clone()),
            requests_checked: deps.requests_checked,
        };
        let policy = watch::Sender::new(Arc::new(Policy::without_manifest(&settings.name)));
        let health = Arc::new(Mutex::new(ResourceHealth::default()));
        let mode = watch::Sender::new(TeardownMode { leaving: deps.releasing, unsecured: None });
        let (manifest, changes) = (watch::Sender::new(None), watch::Sender::new(0));
        let notifier = PodNotifier {
            notifier: deps.notifier.clone(),
            manifest: manifest.subscribe(),
            changes: changes.clone(),
            clock: deps.process.clock,
            results: Arc::default(),
        };
        let reporter =
            FleetReporter::new(deps, settings.clone(), policy.subscribe(), Arc::clone(&health), notifier);
        let reconciler = GateReconciler::new(GateReconcilerDeps {
            namespace: settings.namespace.clone(),
            name: settings.name.clone(),
            policy: policy.subscribe(),
            dry_run: deps.dry_run,
            clock: deps.process.clock,
            alarms: deps.alarms(&settings),
            metrics: deps.gate_metrics.clone(),
            reporter: Box::new(reporter),
        });
        let state = Arc::new(WorkerState {
            deps: Arc::clone(deps),
            settings,
            reconciler,
            health,
            policy,
            manifest,
            mode,
            changes,
            asker,
            report_history: Mutex::default(),
        });
        let stop = deps.stop.child_token();
        Self { generation: None, state, key: key::of(resource), superseded, task: None, stop }
    }

    /// Starts the tasks, if they do not run yet. Policy and overlaps have to be set.
    pub(super) fn start(&mut self) {
        if self.task.is_some() {
            return;
        }
        let (work, stopped) = (run(Arc::clone(&self.state), self.stop.clone()), self.stop.clone());
        let (superseded, key) = (self.superseded.clone(), self.key.clone());
        let running = async move {
            work.await;
            if !stopped.is_cancelled() {
                let _registry_stops = superseded.send(key);
            }
        };
        let running = without_panic(self.state.alarms(), "this service".to_owned(), running);
        self.task = Some(tokio::spawn(running));
    }

    /// Stops the tasks; withheld pods stay withheld.
    pub(super) async fn end(self) {
        self.stop.cancel();
        if let Some(task) = self.task
            && let Err(error) = task.await
        {
            tracing::error!(%error, service = self.state.settings.name, "a worker ended badly");
        }
        self.state.alarms().clear(AlarmReason::TaskEnded);
    }
}

async fn run(state: Arc<WorkerState>, stop: CancellationToken) {
    let ensured = state.deps.dry_run
        || state.deps.releasing
        || tokio::select! {
            () = stop.cancelled() => return,
            ensured = finalizer::ensure(&state, false) => ensured,
        };
    let mut sink = LabelSink::new(
        state.deps.client.clone(),
        Arc::clone(&state.deps.limiter),
        state.deps.cluster.clone(),
        state.settings.clone(),
        state.mode.subscribe(),
    );
    let breakers = run_breakers(Arc::new(Host(Arc::clone(&state))), state.manifest.subscribe(), None, &stop);
    tokio::select! {
        // No request under way is waited for: when our Lease has ended, another replica begins within its margin.
        () = stop.cancelled() => {}
        () = state.reconciler.run(&mut sink, state.changes.subscribe(), &stop) => {}
        () = breakers => {}
        () = release::run(&state) => {}
        () = finalizer::ensure_later(&state, ensured) => {}
    }
    state.reconciler.stop_leading();
}
