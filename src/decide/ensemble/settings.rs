//! What bounds an ensemble: times, and how much of it there may be.

use std::time::Duration;

/// The settings of an ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A pod expires this long after its last keepalive.
    pub ttl: Duration,
    /// How often pods are expected to ping. A newcomer on a live key is taken once its holder was
    /// silent for two and a half of these: the half keeps agents of the original, which ping every
    /// 0.75 TTL, from looking dead at our default of TTL/3.
    pub ping_every: Duration,
    /// Newcomers beyond this many pods are refused.
    pub max_pods: usize,
    /// Keepalives are refused when all pods together would have more bytes than this; below 2 GiB.
    pub max_bytes: usize,
}

impl Settings {
    /// Settings with bounds far above any fleet that one master serves: a quarter of a million pods, 256 MiB.
    #[must_use]
    pub fn new(ttl: Duration, ping_every: Duration) -> Self {
        Self { ttl, ping_every, max_pods: 1 << 18, max_bytes: 256 << 20 }
    }
}
