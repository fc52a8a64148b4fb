//! What a master counts. The hot path touches one ready counter, no map and no lock.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::decide::ensemble::Observed;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// The desk's counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeskMetrics {
    taken: Family<Outcome, Counter>,
    heartbeats: Counter,
    refused: Family<Reason, Counter>,
}

/// The rest of a master's.
#[derive(Clone, Debug, Default)]
pub(crate) struct MasterMetrics {
    pub(crate) leading: Gauge,
    pub(crate) members: Gauge,
    pub(crate) pods: Gauge,
    pub(crate) expired: Counter,
    pub(crate) digests: Counter,
}

impl DeskMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("keepalives", "Keepalives taken, by what they did", metrics.taken.clone());
        registry.register(
            "heartbeats",
            "Keepalives that said what the last one said",
            metrics.heartbeats.clone(),
        );
        registry.register("keepalives_refused", "Keepalives refused, by reason", metrics.refused.clone());
        metrics
    }

    pub(super) fn taken(&self, observed: Observed) {
        if observed == Observed::Heartbeat {
            self.heartbeats.inc();
        } else {
            self.taken.get_or_create_owned(&Outcome { outcome: observed.category() }).inc();
        }
    }

    pub(super) fn kept(&self) {
        self.taken.get_or_create_owned(&Outcome { outcome: "kept" }).inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create_owned(&Reason { reason }).inc();
    }
}

impl MasterMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("leading", "1 while this master leads", metrics.leading.clone());
        registry.register("members", "Live masters on this prefix", metrics.members.clone());
        registry.register("ensemble_pods", "Pods in the newest digest", metrics.pods.clone());
        registry.register("pods_expired", "Pods that fell silent for a TTL", metrics.expired.clone());
        registry.register("digests", "Digests computed", metrics.digests.clone());
        metrics
    }
}
