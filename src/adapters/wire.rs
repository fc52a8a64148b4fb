//! The keepalive port with two dialects, ZeroRPC (ZMTP 3) and HTTP, told apart by the first byte.
//!
//! The server does framing, limits, deadlines and fairness; a [`Handler`] interprets the requests.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::future::BoxFuture;

mod calls;
pub mod client;
mod connection;
mod http;
pub mod limits;
pub mod metrics;
pub mod msgpack;
pub mod server;
mod session;
pub mod zerorpc;
pub mod zmtp;

pub use limits::Limits;
pub use metrics::WireMetrics;
pub use server::{BindError, Server};

/// A handler's answer: immediate (the hot path, without allocation or task) or a future.
pub enum Answer<T> {
    /// Ready.
    Now(T),
    /// Awaited on the connection's task.
    Later(BoxFuture<'static, T>),
}

/// Why a request was not served. In HTTP: a 4xx or 5xx status with a JSON error. In ZeroRPC: None for a
/// refused `ping` and for an `invoke` that is malformed or not served, as in the original; otherwise (any
/// other refused `invoke`, the methods that the original lacks) `ERR`, named by the kind's label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Gives the status code and the metric's label.
    pub kind: RefusalKind,
    /// The mistake and its remedy.
    pub message: String,
}

labelled! {
    /// The kinds of refusal, also a metric's label.
    pub enum RefusalKind, label {
        /// Malformed input: 400.
        Malformed = "malformed",
        /// Well-formed and not allowed (forged address, bad signature, commands off): 403.
        Forbidden = "forbidden",
        /// In conflict with the state (a live key held by another pod): 409.
        Conflict = "conflict",
        /// Over a size or rate limit: 413 or 429.
        TooMuch = "too_much",
        /// Not served by this role (a pure master has no `invoke`): 404.
        NotServed = "not_served",
        /// Cannot be served now: 503.
        Unavailable = "unavailable",
    }
}

impl RefusalKind {
    /// A refusal of this kind; `message` is the mistake and its remedy.
    pub fn because(self, message: impl Into<String>) -> Refusal {
        Refusal { kind: self, message: message.into() }
    }

    /// The kind with that label.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }
}

/// Serves the requests of a master or an agent.
///
/// The methods run on the connection's task and must not block. The end of a connection drops the futures
/// of its calls: work that must outlive the caller needs a task of its own.
pub trait Handler: Send + Sync + 'static {
    /// Takes a keepalive (raw JSON) from `peer`.
    fn ping(&self, peer: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>>;

    /// Takes a keepalive that another master forwarded; it is not forwarded again.
    fn forwarded(&self, peer: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>>;

    /// Runs a command (raw JSON) on this agent; `None` is the original's "no answer".
    fn invoke(&self, peer: SocketAddr, raw: Bytes) -> BoxFuture<'static, Result<Option<String>, Refusal>>;

    /// Returns a new challenge for a signed command, as JSON text.
    fn challenge(&self, peer: SocketAddr) -> Result<String, Refusal>;

    /// Returns the callback's persisted state (JSON), if any.
    fn state(&self) -> BoxFuture<'static, Result<Option<Bytes>, Refusal>>;

    /// Stops the process gracefully; the server has checked that the peer is on loopback.
    fn down(&self) -> Result<(), Refusal>;
}
