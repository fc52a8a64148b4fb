//! The other end: how an agent reaches its masters, a follower its leader, and the command line an agent.

use std::{io, net::Ipv4Addr, time::Duration};

use super::{Refusal, zerorpc::EventError, zmtp::ZmtpError};
use crate::config::MasterTarget;

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
    Event(#[from] EventError),
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
            Self::Zmtp(_) | Self::Event(_) | Self::Http(_) | Self::Answer(_) => "protocol",
            Self::Refused(_) => "refused",
            Self::Remote { .. } => "remote",
        }
    }
}

/// A connection to a peer; dropping it closes it. Calls may run side by side (`&self`), on one socket.
#[derive(Debug)]
pub struct Connection {
    _private: (),
}

impl Connection {
    /// Connects and shakes hands within `deadline`, from the local address `from` where that is ours.
    pub async fn connect(
        target: &MasterTarget,
        from: Option<Ipv4Addr>,
        deadline: Duration,
    ) -> Result<Self, ClientError> {
        let _ = (target, from, deadline);
        Err(ClientError::Closed)
    }

    /// Sends a keepalive (raw JSON) and waits for its answer.
    pub async fn ping(&self, raw: &str, deadline: Duration) -> Result<(), ClientError> {
        let _ = (raw, deadline);
        Err(ClientError::Closed)
    }

    /// Passes a client's keepalive on to the leader; [`ClientError::Refused`] is the leader's answer.
    pub async fn forward(&self, raw: &str, deadline: Duration) -> Result<(), ClientError> {
        let _ = (raw, deadline);
        Err(ClientError::Closed)
    }

    /// Has an agent run a command (raw JSON); `None` is the original's "no answer".
    pub async fn invoke(&self, raw: &str, deadline: Duration) -> Result<Option<String>, ClientError> {
        let _ = (raw, deadline);
        Err(ClientError::Closed)
    }

    /// Asks an agent for a challenge (JSON text).
    pub async fn challenge(&self, deadline: Duration) -> Result<String, ClientError> {
        let _ = deadline;
        Err(ClientError::Closed)
    }

    /// Whether the peer has closed it: then connect anew.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        true
    }
}
