//! The other end: how an agent reaches its masters, a follower its leader, and the command line an agent.

use std::{io, net::Ipv4Addr, time::Duration};

use super::{Refusal, RefusalKind, zerorpc::EventError, zmtp::ZmtpError};
use crate::config::{self, MasterTarget};

mod dial;
mod http;
mod rpc;

/// Why a call, or a connection, came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The host's name has no address that we can use.
    #[error("cannot resolve {host} to an IPv4 address: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why not.
        source: io::Error,
    },
    /// No connection.
    #[error("cannot connect to {target}: {source}")]
    Connect {
        /// Where.
        target: String,
        /// Why not.
        source: io::Error,
    },
    /// The time ran out.
    #[error("no answer in time")]
    Deadline,
    /// The peer sent no heartbeat any more for a call in flight.
    #[error("the peer stopped sending heartbeats")]
    Silent,
    /// The connection ended.
    #[error("the connection was closed")]
    Closed,
    /// The peer does not speak ZMTP 3 as we do.
    #[error("the peer does not speak ZeroMQ's protocol: {0}")]
    Zmtp(#[from] ZmtpError),
    /// The peer sent something that is no event.
    #[error("the peer sent something that is no ZeroRPC event: {0}")]
    ZeroRpcEvent(#[from] EventError),
    /// HTTP went wrong.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// An answer of an unexpected shape.
    #[error("an answer of an unexpected shape: {0}")]
    Answer(&'static str),
    /// A kubervisor refused.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The peer's code raised an error.
    #[error("the peer failed: {name}: {message}")]
    Remote {
        /// The error's name there.
        name: String,
        /// Its message.
        message: String,
    },
}

impl ClientError {
    /// A label for a metric.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Connect { .. } => "connect",
            Self::Deadline => "deadline",
            Self::Silent => "silent",
            Self::Closed => "closed",
            Self::Zmtp(_) | Self::ZeroRpcEvent(_) | Self::Http(_) | Self::Answer(_) => "protocol",
            Self::Refused(_) => "refused",
            Self::Remote { .. } => "remote",
        }
    }
}

/// A connection to a peer; dropping it closes it. Calls may run side by side (`&self`) on one socket;
/// how many is bounded, and a call waits for its turn within its own deadline.
#[derive(Debug)]
pub struct Connection {
    dialect: DialectClient,
}

#[derive(Debug)]
enum DialectClient {
    ZeroRpc(rpc::Rpc),
    Http(http::Http),
}

impl Connection {
    /// Connects and shakes hands within `deadline`, from the local address `from` where that is ours.
    pub async fn connect(
        target: &MasterTarget,
        from: Option<Ipv4Addr>,
        deadline: Duration,
    ) -> Result<Self, ClientError> {
        Self::connect_with_heartbeat(target, from, deadline, rpc::HEARTBEAT).await
    }

    /// As [`connect`](Self::connect), with other than five seconds between heartbeats, ours and the peer's.
    pub async fn connect_with_heartbeat(
        target: &MasterTarget,
        from: Option<Ipv4Addr>,
        deadline: Duration,
        heartbeat: Duration,
    ) -> Result<Self, ClientError> {
        let connect = async {
            let stream = dial::dial(target, from).await?;
            Ok(match target.dialect {
                config::Dialect::ZeroRpc => DialectClient::ZeroRpc(rpc::Rpc::start(stream, heartbeat).await?),
                config::Dialect::Http => DialectClient::Http(http::Http::start(stream, target).await?),
            })
        };
        within(deadline, connect).await.map(|dialect| Self { dialect })
    }

    /// Sends a keepalive (raw JSON) and waits for its answer.
    pub async fn ping(&self, raw: &str, deadline: Duration) -> Result<(), ClientError> {
        self.call(ClientCall::Ping, raw, deadline).await.map(drop)
    }

    /// Passes a client's keepalive on to the leader; [`ClientError::Refused`] is the leader's answer.
    pub async fn forward(&self, raw: &str, deadline: Duration) -> Result<(), ClientError> {
        self.call(ClientCall::Forward, raw, deadline).await.map(drop)
    }

    /// Has an agent run a command (raw JSON); `None` is the original's "no answer".
    ///
    /// Both ends send heartbeats meanwhile; a peer that began to and stops is given up before the deadline.
    pub async fn invoke(&self, raw: &str, deadline: Duration) -> Result<Option<String>, ClientError> {
        match self.call(ClientCall::Invoke, raw, deadline).await? {
            CallOutcome::Nothing => Ok(None),
            CallOutcome::Text(text) => Ok(Some(text)),
            CallOutcome::Other => Err(ClientError::Answer("invoke returned neither a text nor None")),
        }
    }

    /// Asks an agent for a challenge (JSON text).
    pub async fn challenge(&self, deadline: Duration) -> Result<String, ClientError> {
        match self.call(ClientCall::Challenge, "", deadline).await? {
            CallOutcome::Text(text) => Ok(text),
            CallOutcome::Nothing | CallOutcome::Other => Err(ClientError::Answer("the challenge is no text")),
        }
    }

    /// Whether it has ended: then connect anew.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &self.dialect {
            DialectClient::ZeroRpc(rpc) => rpc.is_closed(),
            DialectClient::Http(http) => http.is_closed(),
        }
    }

    async fn call(
        &self,
        call: ClientCall,
        raw: &str,
        deadline: Duration,
    ) -> Result<CallOutcome, ClientError> {
        match &self.dialect {
            DialectClient::ZeroRpc(rpc) => within(deadline, rpc.call(call, raw)).await,
            DialectClient::Http(http) => within(deadline, http.call(call, raw)).await,
        }
    }
}

async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(deadline, work).await.unwrap_or(Err(ClientError::Deadline))
}

/// What may be called.
#[derive(Clone, Copy, Debug)]
enum ClientCall {
    Ping,
    Forward,
    Invoke,
    Challenge,
}

/// What a call returned.
#[derive(Debug)]
enum CallOutcome {
    Nothing,
    Text(String),
    Other,
}

/// The error that a peer reported: one of ours says what kind of refusal it is.
fn reported(name: String, message: String) -> ClientError {
    match RefusalKind::from_label(&name) {
        Some(kind) => ClientError::Refused(Refusal { kind, message }),
        None => ClientError::Remote { name, message },
    }
}
