//! One port, two dialects: ZeroRPC (ZMTP 3) and HTTP, told apart by the first byte.
//!
//! The server knows framing, limits, deadlines and fairness; what a keepalive means is the
//! [`Handler`]'s business.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::future::BoxFuture;

/// An answer that is there at once (the hot path: no allocation, no task), or one that takes a while.
pub enum Answer<T> {
    /// Ready.
    Now(T),
    /// To be awaited, on the connection's own task.
    Later(BoxFuture<'static, T>),
}

/// Why a request was not served. HTTP shows it as 4xx/5xx with a JSON error; ZeroRPC's `ping` and `invoke` answer None, as the original did.
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

/// What a master or an agent does with requests. Called on the connection's task: `Answer::Now` must not block.
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
