//! The facts that a status is made from.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    adapters::sink::{Hindrance, ListingFindings},
    decide::{
        alarm_reason::AlarmReason,
        gate::{Plan, fleet_alarms::FleetAlarm},
        time::Timestamp,
    },
    roles::gate::snapshot::GateSnapshot,
};

/// Why nothing can be decided for the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceProblem {
    /// The spec breaks a rule, which an older schema did not check.
    InvalidSpec(String),
    /// The controller failed on it.
    Failed(String),
}

/// State of the Service that the resource names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// It does not exist.
    Missing,
    /// It cannot be gated.
    Refused(String),
    /// Its selector lacks the traffic key: pods are labelled, but traffic does not depend on it.
    Ungated,
    /// Its selector has the traffic key.
    Gated,
}

/// Everything that a status is made from.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// `spec.service`.
    pub service_name: &'a str,
    /// `metadata.generation` of these facts.
    pub generation: i64,
    /// The old status.
    pub previous: Option<&'a Value>,
    /// Wall clock.
    pub now: Timestamp,
    /// Start of the worker; an older `startTime` is kept.
    pub started: Timestamp,
    /// Why nothing can be decided for the resource.
    pub problem: Option<ResourceProblem>,
    /// State of its Service.
    pub service: ServiceState,
    /// The gate's snapshot; `None` before the first.
    pub snapshot: Option<&'a GateSnapshot>,
    /// `spec.dryRun`, or the controller's flag.
    pub dry_run: bool,
    /// `spec.paused`.
    pub paused: bool,
    /// `spec.panicThreshold`, its default included.
    pub panic_threshold: Option<u8>,
    /// The older resource that claims the same pods.
    pub overlap: Option<String>,
    /// What keeps the ledger from being stored or read, or another right from being used.
    pub ledger: Option<&'a Hindrance>,
    /// New pods come without the traffic label.
    pub template_unlabelled: bool,
    /// Why a breaker has no usable data, by breaker.
    pub failures: &'a BTreeMap<String, String>,
    /// Where the endpoints do not follow the labels.
    pub listing: &'a ListingFindings,
    /// A verb and resource that the role lacks, such as `patch pods`.
    pub rbac: Option<String>,
    /// The Service's selector without the traffic key.
    pub selector: &'a BTreeMap<String, String>,
    /// How the last notification of a pod ended, by UID.
    pub notified: &'a BTreeMap<String, String>,
}

/// The gate's newest plan.
pub(super) fn plan<'a>(facts: &Facts<'a>) -> Option<(&'a GateSnapshot, &'a Plan)> {
    let snapshot = facts.snapshot?;
    Some((snapshot, snapshot.plan.as_ref()?))
}

/// The alarm of the newest plan, if it is in force.
pub(super) fn alarm<'a>(facts: &Facts<'a>, reason: AlarmReason) -> Option<&'a FleetAlarm> {
    plan(facts)?.1.alarms.iter().find(|alarm| alarm.reason == reason)
}
