//! Metrics of the replicas that share the work.

use prometheus_client::{
    metrics::{gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::metrics::{LabelledCounter, registered};

/// Upper bounds of the hand-over's duration, in seconds.
const BUCKETS: [f64; 8] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Registered once for each process.
#[derive(Clone)]
pub struct ClusterMetrics {
    pub(super) members: Gauge,
    pub(super) owned: Gauge,
    pub(super) hand_over: Histogram,
    moves: LabelledCounter,
}

impl ClusterMetrics {
    /// Puts the metrics into a registry (whose prefix is `kubervisor`).
    pub fn register(registry: &mut Registry) -> Self {
        let hand_over = Histogram::new(BUCKETS);
        let help = "From a change of the replicas until all have let go of what is no longer theirs: how long what moves has no owner";
        registry.register("cluster_hand_over_seconds", help, hand_over.clone());
        let (members, owned) =
            ("Live replicas of the cluster, as this one sees them", "Services that this replica works on");
        let moves = "Services that this replica began (gained) or ended (lost) to work on";
        Self {
            members: registered(registry, "cluster_members", members),
            owned: registered(registry, "cluster_owned_services", owned),
            hand_over,
            moves: LabelledCounter::register(registry, "cluster_moves", moves, "direction"),
        }
    }

    pub(super) fn moved(&self, direction: &'static str, services: usize) {
        self.moves.of(direction).inc_by(u64::try_from(services).unwrap_or(u64::MAX));
    }
}
