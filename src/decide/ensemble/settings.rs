//! The bounds of an ensemble: times, pods and bytes.

use std::time::Duration;

/// Times and bounds of an ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time from a pod's last keepalive to its expiry.
    pub ttl: Duration,
    /// Expected ping interval, by default TTL/3. Another pod takes a live key once its holder is silent for 2.5
    /// intervals; the half keeps agents of the original (one ping per 0.75 TTL) above that.
    pub ping_every: Duration,
    /// New pods beyond this count are rejected.
    pub max_pods: usize,
    /// Keepalives that would bring the sum of all texts above this are refused; in bytes, below 2 GiB.
    pub max_bytes: usize,
}

impl Settings {
    /// Settings with the default bounds: 262 144 pods, 256 MiB.
    pub fn new(ttl: Duration, ping_every: Duration) -> Self {
        Self { ttl, ping_every, max_pods: 1 << 18, max_bytes: 256 << 20 }
    }

    /// The longest time between two calls of [`Ensemble::awake`](super::Ensemble::awake) by a process that is not
    /// paused.
    pub fn awake_every(&self) -> Duration {
        self.ping_every / 4
    }
}
