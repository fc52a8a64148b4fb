//! The gatekeeper of a fleet without Kubernetes: a [`Warden`] over a roster, and the endpoints file that follows it.
//!
//! One per process. While this process leads, [`Gatekeeper::reign`] lets the warden govern the roster; on every
//! process the projector keeps the endpoints file in step with what was committed, whoever committed it.

pub mod history;
pub mod metrics;
pub mod view;
pub mod warden;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::warden::{ALARM_FROZEN, ALARM_SILENT, CALLBACK};
use self::{
    metrics::GateMetrics,
    view::GatekeeperView,
    warden::{Memory, NoAudience, Warden, WardenDeps},
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
    decide::{
        policy::Policy,
        verdict::{Source, TrafficVerdict},
    },
};

/// What a gatekeeper needs.
pub struct GatekeeperDeps {
    /// Where rosters are committed.
    pub store: Arc<dyn Store>,
    /// The ensemble while this process leads.
    pub ensemble: EnsembleSource,
    /// Changes whenever the ensemble does.
    pub changes: watch::Receiver<u64>,
    /// The policy in force; a new one counts at once.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// Whose fleet, where its file is, and whether anything is written.
    pub roster: RosterSettings,
    /// The namespace.
    pub namespace: String,
    /// The clocks.
    pub clock: Clock,
    /// The alarms.
    pub alarms: Alarms,
    /// The metrics, registered by the caller.
    pub metrics: GateMetrics,
}

/// The gatekeeper of one process.
pub struct Gatekeeper {
    warden: Warden,
    store: Arc<dyn Store>,
    ensemble: EnsembleSource,
    changes: watch::Receiver<u64>,
    roster: RosterSettings,
    clock: Clock,
    projector: Mutex<Option<Projector>>,
    file: Option<watch::Receiver<FileStatus>>,
}

impl Gatekeeper {
    /// Starts projecting, unless this is a dry run or there is no endpoints file.
    #[must_use]
    pub fn start(deps: GatekeeperDeps) -> Arc<Self> {
        let GatekeeperDeps {
            store,
            ensemble,
            changes,
            policy,
            roster,
            namespace,
            clock,
            alarms,
            metrics,
            ..
        } = deps;
        let config = roster.endpoints.as_ref().filter(|_| !roster.dry_run);
        let name = policy.borrow().service.clone();
        let projector = config.map(|config| Projector::start(&*store, config, &roster.of, &name, &alarms));
        let dry_run = roster.dry_run;
        let audience = Box::new(NoAudience);
        metrics.items(&BTreeMap::from([(namespace.as_str(), 1)]));
        let warden =
            Warden::new(WardenDeps { namespace, name, policy, dry_run, clock, alarms, metrics, audience });
        Arc::new(Self {
            warden,
            file: projector.as_ref().map(Projector::status),
            projector: Mutex::new(projector),
            store,
            ensemble,
            changes,
            roster,
            clock,
        })
    }

    /// A callback run ended well: this replaces all that its last one said.
    pub fn callback_said(&self, verdicts: Vec<TrafficVerdict>) {
        self.warden.callback_said(verdicts);
    }

    /// A breaker of the policy ran: this replaces all that it said before.
    pub fn breaker_said(&self, source: Source) {
        self.warden.breaker_said(source);
    }

    /// Forgets what a breaker said that is not in the policy any more.
    pub fn forget_breakers(&self, keep: impl Fn(&str) -> bool) {
        self.warden.forget_breakers(keep);
    }

    /// Has a new plan made now.
    pub fn wake(&self) {
        self.warden.wake();
    }

    /// What people may see, now.
    #[must_use]
    pub fn view(&self) -> Arc<GatekeeperView> {
        let mut view = GatekeeperView::clone(&self.warden.view());
        view.endpoints = self.file.as_ref().map(|file| file.borrow().clone());
        Arc::new(view)
    }

    /// The view as it changes (without the file's status).
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<GatekeeperView>> {
        self.warden.watch()
    }

    /// Ends the projection after its last write and that one's command.
    pub async fn stop(&self) {
        let projector = self.projector.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(projector) = projector {
            projector.stop().await;
        }
    }

    /// Decides for the fleet under `term`, until `stop`, or until another term has begun.
    pub async fn reign(&self, term: Term, stop: CancellationToken) {
        if let Some(mut sink) = self.open(term, &stop).await {
            self.warden.govern(&mut sink, self.changes.clone(), &stop).await;
        }
        self.warden.step_back();
    }

    /// Opens the roster, however long the store takes; `None` when the reign ended first.
    async fn open(&self, term: Term, stop: &CancellationToken) -> Option<RosterSink> {
        let mut memory = Memory::default();
        loop {
            let now = self.clock.wall();
            let (settings, store) = (self.roster.clone(), self.store.clone());
            let wait: Duration =
                match RosterSink::open(settings, store, term, self.ensemble.clone(), now).await {
                    Ok(sink) => return Some(sink),
                    Err(error) if error.deposed() => return None,
                    Err(error) => self.warden.freeze(&error, &mut memory),
                };
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// A pod's port: the configured one, or the integer that its payload says.
#[must_use]
pub fn port(target: &TargetPort, payload: &Value) -> Option<u16> {
    match target {
        TargetPort::Fixed(port) => Some(*port),
        TargetPort::Pointer(pointer) => {
            let port = payload.pointer(pointer)?.as_u64()?;
            u16::try_from(port).ok().filter(|port| *port != 0)
        }
    }
}
