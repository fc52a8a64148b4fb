//! What the connections of a keepalive port share, and how a connection ends.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{
    Handler, Limits, Refusal, WireMetrics, limits::ByteLimiter, zerorpc::EventError, zmtp::ZmtpError,
};

/// What ended a connection.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum ConnectionEnd {
    #[error("the peer closed the connection")]
    PeerClosed,
    #[error("this server is stopping")]
    Shutdown,
    #[error("no traffic for too long")]
    Idle,
    #[error("a handshake or a request took too long")]
    Slow,
    #[error("the first byte belongs to no dialect")]
    Dialect,
    #[error("all memory for unfinished messages is in use")]
    NoMemory,
    #[error("the socket failed: {0}")]
    Io(io::ErrorKind),
    #[error(transparent)]
    Zmtp(#[from] ZmtpError),
    #[error(transparent)]
    Event(#[from] EventError),
    #[error("the peer broke HTTP")]
    Http,
}

impl ConnectionEnd {
    pub(super) fn category(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer",
            Self::Shutdown => "shutdown",
            Self::Idle => "idle",
            Self::Slow => "slow",
            Self::Dialect => "dialect",
            Self::NoMemory => "no_memory",
            Self::Io(_) => "io",
            Self::Zmtp(error) => error.category(),
            Self::Event(_) => "event",
            Self::Http => "http",
        }
    }
}

/// State that all connections share.
pub(super) struct ServerState {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) limits: Limits,
    pub(super) metrics: WireMetrics,
    pub(super) held_bytes: ByteLimiter,
    pub(super) draining: AtomicBool,
    seed: u64,
    connections: AtomicU64,
}

impl ServerState {
    pub(super) fn new(handler: Arc<dyn Handler>, limits: Limits, metrics: WireMetrics) -> Self {
        Self {
            handler,
            held_bytes: ByteLimiter::new(limits.held),
            limits,
            metrics,
            draining: AtomicBool::new(false),
            // Message ids only have to differ between processes, as the hasher's seed does.
            seed: RandomState::new().hash_one(std::process::id()),
            connections: AtomicU64::new(0),
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// A prefix for one connection's message ids.
    pub(super) fn id_prefix(&self) -> u64 {
        self.seed.wrapping_add(self.connections.fetch_add(1, Ordering::Relaxed))
    }

    /// Counts a refusal and returns it.
    pub(super) fn count(&self, refusal: Refusal) -> Refusal {
        self.metrics.refuse(refusal.kind.label());
        refusal
    }
}
