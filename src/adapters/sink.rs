//! Where plans are carried out: the trait [`TrafficSink`] and its implementations.
//!
//! The gate decides on values; a sink knows what a withdrawal *is*: here a committed roster that the
//! endpoints file projects, with Kubernetes a label guarded by a fence. The order is the same for
//! both and belongs to the caller: observe, plan, reserve, and only then send.

pub mod endpoints;
pub mod labels;
pub mod projector;
pub mod roster;

use std::{collections::BTreeMap, net::SocketAddrV4, time::Duration};

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use crate::{
    adapters::store::StoreError,
    decide::{
        fleet::{Fleet, Presence, Uid},
        gate::{
            Plan,
            action::Action,
            ledger::{ActionOutcome, Ledger, LedgerError},
        },
        policy::Policy,
        roster::RosterError,
        time::Timestamp,
    },
};

/// A fleet as stored, and the ledger that was read before it.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The fleet; it says what this sink can do (`can_kill`) and why nothing may be withheld now, if so (`hold`).
    pub fleet: Fleet,
    /// The ledger to plan on.
    pub ledger: Ledger,
    /// What people want to know of a pod and the gate does not.
    pub details: BTreeMap<Uid, PodDetail>,
    /// FleetReading again then, whatever the plan says.
    pub look_again: Option<Timestamp>,
    /// Somebody else is at work on this fleet right now: do nothing before that.
    pub stand_aside: Option<Timestamp>,
    /// What keeps the sink from its work, if anything does.
    pub hindrance: Option<Hindrance>,
}

/// What keeps a sink from its work, and only people can take away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Hindrance {
    /// A right is missing; the API server's words name verb and resource.
    Forbidden(String),
    /// The ledger does not come back as it was sent.
    LedgerNotStored,
    /// What is stored is not for this version to read or to write.
    LedgerUnreadable(String),
}

impl std::fmt::Display for Hindrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forbidden(what) => write!(f, "a right is missing: {what}"),
            Self::LedgerNotStored => f.write_str(
                "the API server does not store the ledger: apply the current CustomResourceDefinition",
            ),
            Self::LedgerUnreadable(why) => f.write_str(why),
        }
    }
}

/// What people want to know of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodDetail {
    /// Its key in the ensemble.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where its traffic goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddrV4>,
    /// Whether it was heard within its TTL; the gate may have been told less while a silence is not believed.
    pub presence: Presence,
    /// Since when.
    pub since: Timestamp,
    /// What the gate cannot explain: it only sees that the pod is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

/// What became of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// The plan's ledger is stored: its actions may be sent.
    Stored,
    /// Likewise; what is not needed for that, the report say, is told in so long.
    Later(Duration),
    /// Somebody else wrote meanwhile: observe and plan again, never replay.
    Conflict,
}

/// Why a sink did not do its part. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// There is nothing to decide on yet (the ensemble is not loaded, caches are not in sync).
    #[error("not ready: {reason}")]
    NotReady {
        /// What is missing.
        reason: &'static str,
    },
    /// The fleet or the ledger could not be read.
    #[error("the ledger cannot be read")]
    ReadLedger {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The ledger could not be stored; unless it is `LeadershipLost`, it may have been all the same.
    #[error("the ledger cannot be stored")]
    StoreLedger {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// What is stored is not ours to use.
    #[error("{source}")]
    UseRoster {
        /// Why.
        source: RosterError,
    },
    /// The ledger in a resource's status is not ours to use.
    #[error("{source}")]
    UseLedger {
        /// Why.
        source: LedgerError,
    },
    /// The API server did not do it, or did not say so.
    #[error("cannot {what}")]
    Ask {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A right is missing.
    #[error("may not {what}: {why}")]
    Forbidden {
        /// What was asked for.
        what: &'static str,
        /// The API server's words, which name verb and resource.
        why: String,
    },
    /// The API server wants to be left alone for a while.
    #[error("the API server is busy; it wants to be asked again after {} s", after.as_secs())]
    Busy {
        /// So long.
        after: Duration,
    },
}

impl SinkError {
    /// The step, as a metric's label.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotReady { .. } => "not_ready",
            Self::ReadLedger { .. } => "read",
            Self::StoreLedger { .. } => "store",
            Self::UseRoster { .. } | Self::UseLedger { .. } => "unusable",
            Self::Ask { .. } => "ask",
            Self::Forbidden { .. } => "forbidden",
            Self::Busy { .. } => "busy",
        }
    }

    /// What only people can take away, if it is such a thing.
    #[must_use]
    pub fn hindrance(&self) -> Option<Hindrance> {
        match self {
            Self::Forbidden { why, .. } => Some(Hindrance::Forbidden(why.clone())),
            Self::UseLedger { source } => Some(Hindrance::LedgerUnreadable(source.to_string())),
            _ => None,
        }
    }

    /// Another leader was elected: stop acting.
    #[must_use]
    pub fn leadership_lost(&self) -> bool {
        matches!(
            self,
            Self::ReadLedger { source: StoreError::LeadershipLost { .. } }
                | Self::StoreLedger { source: StoreError::LeadershipLost { .. } }
        )
    }
}

/// Carries out plans on one fleet.
#[async_trait]
pub trait TrafficSink: Send + 'static {
    /// The fleet and the ledger as stored now.
    ///
    /// # Errors
    /// When they are not known: decide nothing then.
    async fn observe(&mut self, now: Timestamp, policy: &Policy) -> Result<Observed, SinkError>;

    /// As [`observe`](Self::observe), but whoever is missing is proven to be gone: the pods are asked for after the
    /// ledger was read. To be called when a plan on what was observed could do more with that; it may cost a request.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    async fn confirm(&mut self, now: Timestamp, policy: &Policy) -> Result<Observed, SinkError> {
        self.observe(now, policy).await
    }

    /// Stores the plan's ledger by compare-and-swap, and `report`, what people are to see beside it (`Null`: nothing),
    /// where this sink shows such a thing. To be called after every plan, also one without actions: a sink may have
    /// something of its own to store. Without a plan (a dry run) only the report counts.
    ///
    /// # Errors
    /// When it is not known to be stored: send nothing, observe and plan again.
    async fn reserve(&mut self, plan: Option<&Plan>, report: &Value) -> Result<Reservation, SinkError>;

    /// Shows `report` beside whatever is stored, which stays as it is: for the time in which nothing can be decided. A
    /// courtesy: nobody learns what became of it.
    async fn publish_report(&mut self, _report: &Value) {}

    /// Sends the actions of the plan that was just reserved; what became of each, in their order.
    async fn send(&mut self, actions: &[Action]) -> Vec<ActionOutcome>;
}
