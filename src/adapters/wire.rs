//! One port, two dialects: ZeroRPC (ZMTP 3) and HTTP, told apart by the first byte.
//!
//! The server knows framing, limits, deadlines and fairness; what a keepalive means is the
//! [`Handler`]'s business.

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

/// An answer that is there at once (the hot path: no allocation, no task), or one that takes a while.
pub enum Answer<T> {
    /// Ready.
    Now(T),
    /// To be awaited, on the connection's own task.
    Later(BoxFuture<'static, T>),
}

/// Why a request was not served. HTTP shows it as 4xx/5xx with a JSON error. In ZeroRPC a refused
/// `ping` answers None, as in the original, and so does an `invoke` that is malformed or not served;
/// what the original did not know (any other refused `invoke`, the extra methods) answers `ERR` with
/// the kind's label as the error's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind, for the status code and the metric's label.
    pub kind: RefusalKind,
    /// What was wrong, and what to do.
    pub message: String,
}

/// Kinds of refusal: static, so that they can label a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// Malformed input: 400.
    Malformed,
    /// Well-formed and not allowed (forged address, bad signature, commands off): 403.
    Forbidden,
    /// Clashes with what is there (a live key held by another pod): 409.
    Conflict,
    /// Over a size or rate limit: 413 or 429.
    TooMuch,
    /// Not served by this role (a pure master has no `invoke`): 404.
    NotServed,
    /// Cannot be served now: 503.
    Unavailable,
}

impl RefusalKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Malformed, Self::Forbidden, Self::Conflict, Self::TooMuch, Self::NotServed, Self::Unavailable];

    /// The metric's label, and the error's name in ZeroRPC.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Forbidden => "forbidden",
            Self::Conflict => "conflict",
            Self::TooMuch => "too_much",
            Self::NotServed => "not_served",
            Self::Unavailable => "unavailable",
        }
    }

    /// The kind with that label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }
}

/// What a master or an agent does with requests.
///
/// A connection that ends drops the futures of its calls: work that must outlive its caller belongs on
/// a task of its own. Called on the connection's task: `Answer::Now` must not block.
pub trait Handler: Send + Sync + 'static {
    /// A keepalive from `peer`, its raw JSON.
    fn ping(&self, peer: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>>;

    /// A keepalive that another master forwards; never forwarded again.
    fn forwarded(&self, peer: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>>;

    /// A command for this agent, its raw JSON; `None` is the original's "no answer".
    fn invoke(&self, peer: SocketAddr, raw: Bytes) -> BoxFuture<'static, Result<Option<String>, Refusal>>;

    /// A fresh challenge for a signed command, as JSON text.
    fn challenge(&self, peer: SocketAddr) -> Result<String, Refusal>;

    /// The callback's persisted state (JSON), `None` when there is none.
    fn state(&self) -> BoxFuture<'static, Result<Option<Bytes>, Refusal>>;

    /// Stop gracefully; the server has checked that the peer is on loopback.
    fn down(&self) -> Result<(), Refusal>;
}
