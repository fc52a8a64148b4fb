//! The effect of a keepalive, or the reason why it is refused: all reasons are here, those of its form in
//! [`KeepaliveError`].

use std::net::Ipv4Addr;

use super::stored::StoredPodError;
use crate::decide::{keepalive::KeepaliveError, key::Key};

/// The effect of a keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeepaliveEffect {
    /// No new content; the pod's deadline moved.
    Heartbeat,
    /// A new pod; it becomes visible when its seq is stored.
    Joined,
    /// A known pod with other content or another nonce.
    Changed,
    /// A pod that had sent `down` is live again, with its former seq.
    Returned,
    /// A keepalive with `down: true`.
    Left,
}

impl KeepaliveEffect {
    /// For a metric's label.
    pub fn category(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Joined => "joined",
            Self::Changed => "changed",
            Self::Returned => "returned",
            Self::Left => "left",
        }
    }
}

/// Why a keepalive is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// Not a valid keepalive.
    #[error(transparent)]
    Malformed(#[from] KeepaliveError),
    /// It claims another address than its sender's.
    #[error(
        "a keepalive for {claimed} came from {sender}: add the sender to KUBERVISOR_KEEPALIVE_TRUSTED if it may speak for others"
    )]
    ForgedAddress {
        /// The address in the keepalive.
        claimed: Ipv4Addr,
        /// The peer's address.
        sender: Ipv4Addr,
    },
    /// Another live pod holds the key: two pods claim one address.
    #[error("{newcomer:?} claims key {key} ({}), which {holder:?} holds and keeps alive", key.address())]
    KeyTaken {
        /// The key.
        key: Key,
        /// The id of its pod.
        holder: String,
        /// The id in the keepalive.
        newcomer: String,
    },
    /// A live pod on a newer key has this id: two pods claim one id.
    #[error("{id:?} has moved from {} to {}: two pods with one id?", from.address(), to.address())]
    IdMoved {
        /// The id.
        id: String,
        /// The keepalive's key.
        from: Key,
        /// The live pod's key.
        to: Key,
    },
    /// From a process that a newer one of the same pod has replaced.
    #[error("{id:?} ({}) has been restarted since: this is from its former process", key.address())]
    Stale {
        /// The key.
        key: Key,
        /// The pod.
        id: String,
    },
    /// From a process that has sent `down`, which is final.
    #[error("{id:?} ({}) has said down, which is final until it is restarted", key.address())]
    SaidDown {
        /// The key.
        key: Key,
        /// The pod.
        id: String,
    },
    /// Beyond [`Settings::max_pods`](super::Settings::max_pods) or [`Settings::max_bytes`](super::Settings::max_bytes).
    #[error("the ensemble is full with {pods} pods and {bytes} bytes")]
    Full {
        /// The pods in the ensemble.
        pods: usize,
        /// The sum of their texts, in bytes.
        bytes: usize,
    },
}

impl Rejection {
    /// The kind, for a metric's label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Malformed(error) => error.category(),
            Self::ForgedAddress { .. } => "forged_address",
            Self::KeyTaken { .. } => "key_taken",
            Self::IdMoved { .. } => "id_moved",
            Self::Stale { .. } => "stale",
            Self::SaidDown { .. } => "said_down",
            Self::Full { .. } => "full",
        }
    }
}

/// Why a stored ensemble cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnsembleRestoreError {
    /// A record that cannot be decoded.
    #[error("the stored pod {0} cannot be read")]
    ReadPod(Key, #[source] StoredPodError),
    /// A record under another key than its pod's.
    #[error("the pod that is stored under {0} has another key")]
    WrongKey(Key),
}
