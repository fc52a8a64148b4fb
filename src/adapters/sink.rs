//! Carries out the plans of the gate: the trait [`TrafficSink`] and its implementations.
//!
//! A withdrawal is the commit of a roster that the endpoints file shows ([`roster`]), or a label of a pod guarded by a fence
//! ([`labels`]). For both the caller observes, plans, reserves, and only then sends.

pub mod endpoints;
pub mod labels;
pub mod projector;
pub mod roster;

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddrV4, time::Duration};

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use crate::{
    adapters::store::StoreError,
    api::requests::{PersonRequests, RequestVerb},
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
        verdict::VerdictTarget,
    },
};

/// A fleet as stored, and the ledger that was read before it.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The fleet, with what the sink can do (`can_kill`) and why nothing may be withheld (`hold`).
    pub fleet: Fleet,
    /// The ledger to plan on.
    pub ledger: Ledger,
    /// What status pages and Events show beside the gate's input.
    pub details: BTreeMap<Uid, PodDetail>,
    /// Observe again at this time at the latest.
    pub look_again: Option<Timestamp>,
    /// Plan nothing before this time: another process may be sending, or the API server is busy.
    pub stand_aside: Option<Timestamp>,
    /// Why the sink cannot work.
    pub hindrance: Option<Hindrance>,
    /// Where the endpoints do not follow the labels.
    pub listing: ListingFindings,
    /// People's requests.
    pub requests: PersonRequests,
}

/// Where the endpoints do not follow the labels, and the cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListingFindings {
    /// Why ready pods are in no ready endpoint.
    pub not_listed: Option<ListingFinding>,
    /// Withheld pods that are still in ready endpoints, and why.
    pub not_leaving: Option<ListingFinding>,
}

/// One finding about the endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingFinding {
    /// The cause, as the reason of a condition.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl Observed {
    /// `policy`, paused if a person asks for it.
    pub fn in_force<'p>(&self, now: Timestamp, policy: &'p Policy) -> Cow<'p, Policy> {
        let paused = self.requests.pause(now).is_some_and(|request| request.verb == RequestVerb::Pause);
        if paused && !policy.paused {
            return Cow::Owned(Policy { paused, ..policy.clone() });
        }
        Cow::Borrowed(policy)
    }

    /// The pod that a verdict names by id or by key; `None` when the fleet has no such pod.
    pub fn pod_of(&self, named: &VerdictTarget) -> Option<Uid> {
        match named {
            VerdictTarget::Id(id) => {
                self.fleet.pods().iter().find(|pod| pod.name == *id).map(|pod| pod.uid.clone())
            }
            VerdictTarget::Key(key) => {
                let keyed = self.details.iter().find(|(_, detail)| detail.key.as_deref() == Some(key));
                keyed.map(|(uid, _)| uid.clone())
            }
        }
    }
}

/// What keeps a sink from working until a person changes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Hindrance {
    /// A right is missing: verb and resource.
    Forbidden(String),
    /// The API server prunes the ledger.
    LedgerNotStored,
    /// The stored ledger is of another schema.
    LedgerUnreadable(String),
    /// The selectors of these workloads ask for the traffic label.
    SwitchInSelector(String),
    /// What these owners want cannot be read, and why.
    DesiredUnknown(String),
}

impl std::fmt::Display for Hindrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forbidden(what) => write!(f, "a right is missing: {what}"),
            Self::LedgerNotStored => f.write_str(
                "the API server does not store the ledger: apply the current CustomResourceDefinition",
            ),
            Self::LedgerUnreadable(why) => f.write_str(why),
            Self::DesiredUnknown(why) => {
                write!(f, "it is not known how many pods there should be: {why}")
            }
            Self::SwitchInSelector(owners) => write!(
                f,
                "the selector of {owners} has the key kubervisor/traffic: with each withdrawal it would let the pod go and create another"
            ),
        }
    }
}

/// Details of a pod for status pages and Events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodDetail {
    /// The pod's key in the ensemble.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The address that gets its traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddrV4>,
    /// Whether it reported within its TTL; the gate takes an unconfirmed silence for presence.
    pub presence: Presence,
    /// Since when it has that presence.
    pub since: Timestamp,
    /// Why it is in this state, where the gate's input does not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The result of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// The plan's ledger is stored: its actions may be sent.
    Stored,
    /// As `Stored`; the report is to be written after this time.
    Later(Duration),
    /// Another process wrote meanwhile: observe and plan again, never replay.
    Conflict,
}

/// Why a step of a sink failed. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The input is not complete yet (ensemble not loaded, caches not in sync).
    #[error("not ready: {0}")]
    NotReady(&'static str),
    /// The fleet or the ledger could not be read.
    #[error("the ledger cannot be read")]
    ReadLedger(#[source] StoreError),
    /// Storing the ledger failed; except with `LeadershipLost` it may have been stored all the same.
    #[error("the ledger cannot be stored")]
    StoreLedger(#[source] StoreError),
    /// The stored roster is of another fleet or schema.
    #[error("{0}")]
    UseRoster(#[source] RosterError),
    /// The ledger in the resource's status is of another resource or schema.
    #[error("{0}")]
    UseLedger(#[source] LedgerError),
    /// A request failed, or its outcome is unknown.
    #[error("cannot {what}")]
    Ask {
        /// The step, as in "cannot ...".
        what: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A right is missing.
    #[error("may not {what}: {why}")]
    Forbidden {
        /// The step, as in "cannot ...".
        what: &'static str,
        /// Verb and resource.
        why: String,
    },
    /// Another replica works on the resource now.
    #[error("replica {owner} works on it since generation {generation}")]
    Superseded {
        /// The id of that replica.
        owner: String,
        /// The generation of its ownership.
        generation: u64,
    },
    /// The API server refused with 429.
    #[error("the API server is busy: retry after {} s", .0.as_secs())]
    Busy(Duration),
}

impl SinkError {
    /// The step, as a metric's label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotReady { .. } => "not_ready",
            Self::ReadLedger { .. } => "read",
            Self::StoreLedger { .. } => "store",
            Self::UseRoster { .. } | Self::UseLedger { .. } => "unusable",
            Self::Ask { .. } => "ask",
            Self::Forbidden { .. } => "forbidden",
            Self::Superseded { .. } => "superseded",
            Self::Busy { .. } => "busy",
        }
    }

    /// The hindrance, if only a person can remove it.
    pub fn hindrance(&self) -> Option<Hindrance> {
        match self {
            Self::Forbidden { why, .. } => Some(Hindrance::Forbidden(why.clone())),
            Self::UseLedger(source) => Some(Hindrance::LedgerUnreadable(source.to_string())),
            _ => None,
        }
    }

    /// Another leader was elected, or another replica has claimed the resource: stop acting.
    pub fn leadership_lost(&self) -> bool {
        matches!(
            self,
            Self::Superseded { .. }
                | Self::ReadLedger(StoreError::LeadershipLost { .. })
                | Self::StoreLedger(StoreError::LeadershipLost { .. })
        )
    }
}

/// Carries out the plans for one fleet.
#[async_trait]
pub trait TrafficSink: Send + 'static {
    /// The fleet and the ledger as stored.
    ///
    /// # Errors
    /// When they are not known; then nothing may be decided.
    async fn observe(&mut self, now: Timestamp, policy: &Policy) -> Result<Observed, SinkError>;

    /// As [`observe`](Self::observe), with the pods read after the ledger, so that a missing pod is proven to be deleted. Used
    /// when a plan could do more with that proof; may cost requests.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    async fn confirm(&mut self, now: Timestamp, policy: &Policy) -> Result<Observed, SinkError> {
        self.observe(now, policy).await
    }

    /// Stores the plan's ledger by compare-and-swap, with the status `report` (`Null`: none) if this sink has one. Called after
    /// every plan, also one without actions, since a sink may have state of its own. Without a plan (dry run) only the
    /// report is stored.
    ///
    /// # Errors
    /// When it is not known to be stored: send nothing, observe and plan again.
    async fn reserve(&mut self, plan: Option<&Plan>, report: &Value) -> Result<Reservation, SinkError>;

    /// Writes `report` without changing the ledger, while nothing can be decided. Best effort: errors are only logged.
    async fn publish_report(&mut self, _report: &Value) {}

    /// Sends the actions of the plan that was just reserved; returns their outcomes in the same order.
    async fn send(&mut self, actions: &[Action]) -> Vec<ActionOutcome>;
}
