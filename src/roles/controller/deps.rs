//! Dependencies that all parts of a controller share.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::{
    adapters::{
        kubernetes::{cluster::Cluster, events::EventRecorder},
        notify::Notifier,
        sink::labels::{LabelSettings, WriteLimiter},
    },
    alarms::Alarms,
    api::{OperatorSources, Timing},
    roles::{breaker::AskerMetrics, cluster::Replicas, gate::metrics::GateMetrics, master::LiveEnsemble},
    runtime::Runtime,
};

pub(super) struct Deps {
    pub(super) client: kube::Client,
    pub(super) cluster: Cluster,
    pub(super) process: Runtime,
    pub(super) gate_metrics: GateMetrics,
    pub(super) asker_metrics: AskerMetrics,
    pub(super) events: EventRecorder,
    /// The ensemble of the master in the same process.
    pub(super) live: Option<LiveEnsemble>,
    pub(super) timing: Option<Timing>,
    /// The operator's sources of metrics.
    pub(super) sources: OperatorSources,
    pub(super) dry_run: bool,
    /// The replicas that share the resources, once this one takes part; never set where it is alone.
    pub(super) replicas: OnceLock<Arc<Replicas>>,
    pub(super) requests_checked: bool,
    pub(super) notifier: Notifier,
    /// `--release`: all traffic is given back, and nothing is withheld or claimed.
    pub(super) releasing: bool,
    pub(super) limiter: Arc<WriteLimiter>,
    pub(super) stop: CancellationToken,
}

impl Deps {
    /// The alarms of one resource.
    pub(super) fn alarms(&self, of: &LabelSettings) -> Alarms {
        self.process.alarms.of(&format!("{}/{}", of.namespace, of.name))
    }
}
