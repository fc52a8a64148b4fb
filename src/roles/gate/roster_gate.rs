//! The gate of a fleet without Kubernetes: a [`GateReconciler`] over the stored roster, and the endpoints file.
//!
//! One per process. The leader reconciles the roster ([`RosterGate::run`]); on every process the projector writes
//! each committed roster to the endpoints file.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    metrics::GateMetrics,
    reconciler::{GateReconciler, GateReconcilerDeps, ReconcileState},
    reporter::NoReporter,
    snapshot::GateSnapshot,
};
use crate::{
    adapters::{
        sink::{
            endpoints::FileStatus,
            projector::Projector,
            roster::{EnsembleSource, RosterSettings, RosterSink},
        },
        store::{Store, Term},
    },
    alarms::Alarms,
    clock::Clock,
    config::TargetPort,
    decide::policy::Policy,
};

/// Dependencies and settings of a [`RosterGate`].
pub struct RosterGateDeps {
    /// Where rosters are committed.
    pub store: Arc<dyn Store>,
    /// The ensemble; `None` from it while another process leads.
    pub ensemble: EnsembleSource,
    /// Changes whenever the ensemble does.
    pub changes: watch::Receiver<u64>,
    /// The policy in force.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// The fleet's rules, its endpoints file, and whether this is a dry run.
    pub roster: RosterSettings,
    /// The fleet's namespace.
    pub namespace: String,
    /// The process's clock.
    pub clock: Clock,
    /// The process's alarms.
    pub alarms: Alarms,
    /// Registered by the caller.
    pub metrics: GateMetrics,
}

/// The gate of one process over one roster.
pub struct RosterGate {
    reconciler: GateReconciler,
    store: Arc<dyn Store>,
    ensemble: EnsembleSource,
    changes: watch::Receiver<u64>,
    roster: RosterSettings,
    clock: Clock,
    projector: Mutex<Option<Projector>>,
    file: Option<watch::Receiver<FileStatus>>,
}

impl RosterGate {
    /// Starts the projector, unless this is a dry run or no endpoints file is configured.
    pub fn start(deps: RosterGateDeps) -> Arc<Self> {
        let RosterGateDeps { store, ensemble, changes, policy, roster, namespace, clock, alarms, metrics } =
            deps;
        let config = roster.endpoints.as_ref().filter(|_| !roster.dry_run);
        let name = policy.borrow().service.clone();
        let projector = config.map(|config| Projector::start(&*store, config, &roster.of, &name, &alarms));
        let dry_run = roster.dry_run;
        let reporter = Box::new(NoReporter);
        metrics.items(&BTreeMap::from([(namespace.as_str(), 1)]));
        let deps = GateReconcilerDeps { namespace, name, policy, dry_run, clock, alarms, metrics, reporter };
        Arc::new(Self {
            reconciler: GateReconciler::new(deps),
            file: projector.as_ref().map(Projector::status),
            projector: Mutex::new(projector),
            store,
            ensemble,
            changes,
            roster,
            clock,
        })
    }

    /// The reconciler, which takes verdicts.
    pub fn reconciler(&self) -> &GateReconciler {
        &self.reconciler
    }

    /// The reconciler's snapshot with the status of this process's endpoints file.
    pub fn snapshot(&self) -> Arc<GateSnapshot> {
        let mut snapshot = self.reconciler.snapshot();
        Arc::make_mut(&mut snapshot).endpoints = self.file.as_ref().map(|file| file.borrow().clone());
        snapshot
    }

    /// Stops the projector after its last write and that write's command.
    pub async fn stop(&self) {
        let projector = self.projector.lock().take();
        if let Some(projector) = projector {
            projector.stop().await;
        }
    }

    /// Reconciles the roster under `term`, until `stop` or until the store holds a newer term.
    pub async fn run(&self, term: Term, stop: CancellationToken) {
        if let Some(mut sink) = self.open(term, &stop).await {
            self.reconciler.run(&mut sink, self.changes.clone(), &stop).await;
        }
        self.reconciler.stop_leading();
    }

    /// Opens the roster, with retries; `None` when the term ended first.
    async fn open(&self, term: Term, stop: &CancellationToken) -> Option<RosterSink> {
        let mut state = ReconcileState::default();
        loop {
            let now = self.clock.wall();
            let (settings, store) = (self.roster.clone(), self.store.clone());
            let wait: Duration =
                match RosterSink::open(settings, store, term, self.ensemble.clone(), now).await {
                    Ok(sink) => return Some(sink),
                    Err(error) if error.leadership_lost() => return None,
                    Err(error) => self.reconciler.freeze(&error, &mut state),
                };
            stop.run_until_cancelled(tokio::time::sleep(wait)).await?;
        }
    }
}

/// A pod's port: the configured one, or the integer at the configured pointer of its payload.
pub fn port(target: &TargetPort, payload: &Value) -> Option<u16> {
    match target {
        TargetPort::Fixed(port) => Some(*port),
        TargetPort::Pointer(pointer) => {
            let port = payload.pointer(pointer)?.as_u64()?;
            u16::try_from(port).ok().filter(|port| *port != 0)
        }
    }
}
