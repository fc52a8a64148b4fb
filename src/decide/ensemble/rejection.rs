//! What a keepalive did, and why one did nothing.

use std::net::Ipv4Addr;

use super::stored::StoredPodError;
use crate::decide::{keepalive::KeepaliveError, key::Key};

/// What a keepalive did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeepaliveEffect {
    /// It said nothing new; its pod lives on.
    Heartbeat,
    /// A pod that was not known: it is seen as soon as its seq is stored.
    Joined,
    /// A known pod with another payload, or restarted.
    Changed,
    /// A pod that had said `down` is back, with the seq that it had.
    Returned,
    /// A pod said `down`.
    Left,
}

impl KeepaliveEffect {
    /// For a metric's label.
    #[must_use]
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

/// Why a keepalive was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// It cannot be read.
    #[error(transparent)]
    Malformed(#[from] KeepaliveError),
    /// It speaks for another address than its sender's.
    #[error(
        "a keepalive for {claimed} came from {sender}: add the sender to KUBERVISOR_KEEPALIVE_TRUSTED if it may speak for others"
    )]
    ForgedAddress {
        /// The address in it.
        claimed: Ipv4Addr,
        /// Where it came from.
        sender: Ipv4Addr,
    },
    /// Another pod holds the key and is alive: two pods claim one address.
    #[error("{newcomer:?} claims key {key} ({}), which {holder:?} holds and keeps alive", key.address())]
    KeyTaken {
        /// The key.
        key: Key,
        /// Who holds it.
        holder: String,
        /// Who claims it.
        newcomer: String,
    },
    /// A pod with this id appeared on another key since and is alive: two pods claim one id.
    #[error("{id:?} has moved from {} to {}: two pods with one id?", from.address(), to.address())]
    IdMoved {
        /// The id.
        id: String,
        /// Where this keepalive comes from.
        from: Key,
        /// Where the id is now.
        to: Key,
    },
    /// From a process that a newer one of the same pod has replaced; dropped.
    #[error("{id:?} ({}) has been restarted since: this is from its former process", key.address())]
    Stale {
        /// The key.
        key: Key,
        /// The pod.
        id: String,
    },
    /// From a process that has said `down`, which is final; dropped.
    #[error("{id:?} ({}) has said down, which is final until it is restarted", key.address())]
    SaidDown {
        /// The key.
        key: Key,
        /// The pod.
        id: String,
    },
    /// The ensemble is as large as its settings allow.
    #[error("the ensemble is full with {pods} pods and {bytes} bytes")]
    Full {
        /// How many pods it remembers.
        pods: usize,
        /// How large they are together.
        bytes: usize,
    },
}

impl Rejection {
    /// The kind, for a metric's label.
    #[must_use]
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
    /// A record that this version cannot read.
    #[error("the stored pod {key} cannot be read")]
    ReadPod {
        /// Its key.
        key: Key,
        /// Why.
        source: StoredPodError,
    },
    /// A record under a key that is not its pod's.
    #[error("the pod that is stored under {key} has another key")]
    WrongKey {
        /// The record's key.
        key: Key,
    },
}
