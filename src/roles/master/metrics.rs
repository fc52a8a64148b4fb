//! A master's metrics. A heartbeat, the hot path, increments one counter, without a map or a lock.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use crate::{
    decide::ensemble::KeepaliveEffect,
    metrics::{LabelledCounter, registered},
};

/// Keepalives.
#[derive(Clone, Debug)]
pub(crate) struct IngestMetrics {
    pub(super) taken: LabelledCounter,
    heartbeats: Counter,
    pub(super) refused: LabelledCounter,
    pub(super) pauses: Counter,
}

/// Everything else.
#[derive(Clone, Debug)]
pub(crate) struct MasterMetrics {
    pub(crate) leading: Gauge,
    pub(crate) members: Gauge,
    pub(crate) pods: Gauge,
    pub(crate) expired: Counter,
    pub(crate) digests: Counter,
}

impl IngestMetrics {
    pub(crate) fn register(to: &mut Registry) -> Self {
        let (taken, refused) = ("Keepalives taken, by what they did", "Keepalives refused, by reason");
        Self {
            taken: LabelledCounter::register(to, "keepalives", taken, "outcome"),
            heartbeats: registered(to, "heartbeats", "Keepalives that said what the last one said"),
            refused: LabelledCounter::register(to, "keepalives_refused", refused, "reason"),
            pauses: registered(to, "pauses", "Pauses of this process after which each pod had a full TTL"),
        }
    }

    pub(super) fn taken(&self, observed: KeepaliveEffect) {
        if observed == KeepaliveEffect::Heartbeat {
            self.heartbeats.inc();
        } else {
            self.taken.of(observed.category()).inc();
        }
    }
}

impl MasterMetrics {
    pub(crate) fn register(to: &mut Registry) -> Self {
        Self {
            leading: registered(to, "leading", "1 while this master leads"),
            members: registered(to, "members", "Live masters on this prefix"),
            pods: registered(to, "ensemble_pods", "Pods in the newest digest"),
            expired: registered(to, "pods_expired", "Pods that fell silent for a TTL"),
            digests: registered(to, "digests", "Digests computed"),
        }
    }
}
