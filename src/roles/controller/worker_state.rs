//! State that the tasks of one worker share.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{deps::Deps, health::ResourceHealth};
use crate::{
    adapters::{
        kubernetes::objects::ResourceRecord,
        sink::labels::{LabelSettings, TeardownMode},
    },
    alarms::Alarms,
    api::Manifest,
    decide::{detect::members::ReportHistory, policy::Policy},
    roles::{breaker::Asker, gate::reconciler::GateReconciler},
};

pub(super) struct WorkerState {
    pub(super) deps: Arc<Deps>,
    pub(super) settings: LabelSettings,
    pub(super) reconciler: GateReconciler,
    pub(super) health: Arc<Mutex<ResourceHealth>>,
    pub(super) policy: watch::Sender<Arc<Policy>>,
    pub(super) manifest: watch::Sender<Option<Arc<Manifest>>>,
    pub(super) mode: watch::Sender<TeardownMode>,
    /// Counts changes that need a reconcile.
    pub(super) changes: watch::Sender<u64>,
    pub(super) asker: Arc<Asker>,
    pub(super) report_history: Mutex<ReportHistory>,
}

impl WorkerState {
    /// The alarms of this resource.
    pub(super) fn alarms(&self) -> Alarms {
        self.deps.alarms(&self.settings)
    }

    /// The resource in the cache; `None` when it is gone or has another UID.
    pub(super) fn resource(&self) -> Option<Arc<ResourceRecord>> {
        let found = self.deps.cluster.resource(&self.settings.namespace, &self.settings.name)?;
        (*found.uid == *self.settings.uid).then_some(found)
    }

    /// Requests a reconcile.
    pub(super) fn wake(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}
