//! The client side: from an agent to its masters, from a follower to the leader, from `invoke` to an agent.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use hyper::Method;

use super::{Refusal, RefusalKind, zerorpc::EventError, zmtp::ZmtpError};
use crate::{
    adapters::addresses::first_success,
    config::{Dialect, MasterTarget},
};

mod dial;
mod http;
mod rpc;

/// Bytes of an answer, at most: 16 MiB of a command's output and 1 MiB for the encoding.
const MAX_ANSWER: usize = 17 << 20;

/// A failed connection or call.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The host's name has no IPv4 address.
    #[error("cannot resolve {0} to an IPv4 address: {1}")]
    Resolve(String, #[source] io::Error),
    /// The connection to `host:port` was not established.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, #[source] io::Error),
    /// No answer within the deadline.
    #[error("no answer in time")]
    Deadline,
    /// The peer stopped sending heartbeats for a call in flight.
    #[error("the peer stopped sending heartbeats")]
    Silent,
    /// The connection was closed.
    #[error("the connection was closed")]
    Closed,
    /// A violation of ZMTP 3.
    #[error("the peer does not speak ZeroMQ's protocol: {0}")]
    Zmtp(#[from] ZmtpError),
    /// A message that is no event.
    #[error("the peer sent something that is no ZeroRPC event: {0}")]
    ZeroRpcEvent(#[from] EventError),
    /// A failure of HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// An answer of an unexpected shape.
    #[error("an answer of an unexpected shape: {0}")]
    Answer(&'static str),
    /// Refused by a kubervisor.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// An error of the peer's code.
    #[error("the peer failed: {name}: {message}")]
    Remote {
        /// The error's name, such as `NameError`.
        name: String,
        /// The error's message.
        message: String,
    },
}

/// A connection to a peer, closed when dropped. Calls run concurrently (`&self`); their number is bounded,
/// and a call waits for its turn within its own deadline.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    peer: SocketAddrV4,
}

#[derive(Debug)]
enum Transport {
    ZeroRpc(rpc::Rpc),
    Http(http::Http),
}

impl Connection {
    /// Connects, with the handshake, within `deadline`, from the local address `from` if this host has it. A name
    /// with several addresses is tried in the order of happy eyeballs.
    pub async fn connect(
        target: &MasterTarget,
        from: Option<Ipv4Addr>,
        deadline: Duration,
    ) -> Result<Self, ClientError> {
        Self::open(target, from, deadline, rpc::HEARTBEAT, None).await
    }

    /// As [`connect`](Self::connect); `failed` is tried after the target's other addresses.
    pub async fn connect_elsewhere(
        target: &MasterTarget,
        from: Option<Ipv4Addr>,
        deadline: Duration,
        failed: Option<SocketAddrV4>,
    ) -> Result<Self, ClientError> {
        Self::open(target, from, deadline, rpc::HEARTBEAT, failed).await
    }

    /// As [`connect`](Self::connect), with another heartbeat interval than 5 s for both ends.
    pub async fn connect_with_heartbeat(
        target: &MasterTarget,
        from: Option<Ipv4Addr>,
        deadline: Duration,
        heartbeat: Duration,
    ) -> Result<Self, ClientError> {
        Self::open(target, from, deadline, heartbeat, None).await
    }

    async fn open(
        target: &MasterTarget,
        from: Option<Ipv4Addr>,
        deadline: Duration,
        heartbeat: Duration,
        failed: Option<SocketAddrV4>,
    ) -> Result<Self, ClientError> {
        let attempt = |peer| async move {
            let stream = dial::dial(target, peer, from).await?;
            let transport = match target.dialect {
                Dialect::ZeroRpc => Transport::ZeroRpc(rpc::Rpc::start(stream, heartbeat).await?),
                Dialect::Http => Transport::Http(http::Http::start(stream, target).await?),
            };
            Ok(Self { transport, peer })
        };
        let connect = async {
            let addresses = dial::resolve(target, failed).await?;
            let made = first_success(addresses, deadline, attempt).await;
            made.unwrap_or(Err(ClientError::Closed))
        };
        within(deadline, connect).await
    }

    /// The address that it is connected to.
    pub fn peer(&self) -> SocketAddrV4 {
        self.peer
    }

    /// Sends a keepalive (raw JSON) and waits for its answer.
    pub async fn ping(&self, raw: &str, deadline: Duration) -> Result<(), ClientError> {
        self.call(PING, raw, deadline).await.map(drop)
    }

    /// Forwards a client's keepalive to the leader; [`ClientError::Refused`] is the leader's answer.
    pub async fn forward(&self, raw: &str, deadline: Duration) -> Result<(), ClientError> {
        self.call(FORWARD, raw, deadline).await.map(drop)
    }

    /// Runs a command (raw JSON) on an agent; `None` is the original's "no answer".
    ///
    /// Both ends send heartbeats meanwhile; a peer that stops after the first fails before the deadline.
    pub async fn invoke(&self, raw: &str, deadline: Duration) -> Result<Option<String>, ClientError> {
        match self.call(INVOKE, raw, deadline).await? {
            CallOutcome::Nothing => Ok(None),
            CallOutcome::Text(text) => Ok(Some(text)),
            CallOutcome::Other => Err(ClientError::Answer("invoke returned neither a text nor None")),
        }
    }

    /// Gets a challenge (JSON text) from an agent.
    pub async fn challenge(&self, deadline: Duration) -> Result<String, ClientError> {
        match self.call(CHALLENGE, "", deadline).await? {
            CallOutcome::Text(text) => Ok(text),
            CallOutcome::Nothing | CallOutcome::Other => Err(ClientError::Answer("the challenge is no text")),
        }
    }

    /// Whether the connection has ended; then connect anew.
    pub fn is_closed(&self) -> bool {
        match &self.transport {
            Transport::ZeroRpc(rpc) => rpc.is_closed(),
            Transport::Http(http) => http.is_closed(),
        }
    }

    async fn call(
        &self,
        call: ClientCall,
        raw: &str,
        deadline: Duration,
    ) -> Result<CallOutcome, ClientError> {
        match &self.transport {
            Transport::ZeroRpc(rpc) => within(deadline, rpc.call(call, raw)).await,
            Transport::Http(http) => within(deadline, http.call(call, raw)).await,
        }
    }
}

async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(deadline, work).await.unwrap_or(Err(ClientError::Deadline))
}

/// A call in both dialects: the method of ZeroRPC, and whether it has an argument; the method and the path of HTTP.
#[derive(Debug)]
struct ClientCall(&'static str, bool, Method, &'static str);

const PING: ClientCall = ClientCall("ping", true, Method::PUT, "/ping");
const FORWARD: ClientCall = ClientCall("kubervisor_forward", true, Method::PUT, "/forward");
const INVOKE: ClientCall = ClientCall("invoke", true, Method::PUT, "/script");
const CHALLENGE: ClientCall = ClientCall("kubervisor_challenge", false, Method::POST, "/challenge");

/// The result of a call; `Other` is neither text nor None.
#[derive(Debug)]
enum CallOutcome {
    Nothing,
    Text(String),
    Other,
}

/// The error that a peer reported: a refusal if its name is the label of a kind.
fn reported(name: String, message: String) -> ClientError {
    match RefusalKind::from_label(&name) {
        Some(kind) => ClientError::Refused(Refusal { kind, message }),
        None => ClientError::Remote { name, message },
    }
}
