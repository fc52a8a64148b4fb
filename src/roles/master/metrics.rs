//! A master's metrics. A heartbeat, the hot path, increments one counter, without a map or a lock.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::decide::ensemble::KeepaliveEffect;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct IngestOutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

/// Keepalives.
#[derive(Clone, Debug, Default)]
pub(crate) struct IngestMetrics {
    taken: Family<IngestOutcomeLabels, Counter>,
    heartbeats: Counter,
    refused: Family<RefusalLabels, Counter>,
    pauses: Counter,
}

/// Everything else.
#[derive(Clone, Debug, Default)]
pub(crate) struct MasterMetrics {
    pub(crate) leading: Gauge,
    pub(crate) members: Gauge,
    pub(crate) pods: Gauge,
    pub(crate) expired: Counter,
    pub(crate) digests: Counter,
}

impl IngestMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("keepalives", "Keepalives taken, by what they did", metrics.taken.clone());
        registry.register(
            "heartbeats",
            "Keepalives that said what the last one said",
            metrics.heartbeats.clone(),
        );
        registry.register("keepalives_refused", "Keepalives refused, by reason", metrics.refused.clone());
        registry.register(
            "pauses",
            "Pauses of this process after which each pod had a full TTL",
            metrics.pauses.clone(),
        );
        metrics
    }

    pub(super) fn taken(&self, observed: KeepaliveEffect) {
        if observed == KeepaliveEffect::Heartbeat {
            self.heartbeats.inc();
        } else {
            self.taken.get_or_create_owned(&IngestOutcomeLabels { outcome: observed.category() }).inc();
        }
    }

    pub(super) fn paused(&self) {
        self.pauses.inc();
    }

    pub(super) fn kept(&self) {
        self.taken.get_or_create_owned(&IngestOutcomeLabels { outcome: "kept" }).inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create_owned(&RefusalLabels { reason }).inc();
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
