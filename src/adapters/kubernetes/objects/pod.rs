//! A pod as the gate needs it.

use std::{net::Ipv4Addr, sync::Arc};

use serde::Deserialize;
use serde_json::Value;

use super::{Labels, OwnerRef, SharedText, meta::Meta};
use crate::{
    api::keys,
    decide::{
        fleet::{Traffic, Uid},
        time::Timestamp,
    },
};

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not started yet.
    #[default]
    Pending,
    /// Started.
    Running,
    /// Ended well, for good.
    Succeeded,
    /// Ended badly, for good.
    Failed,
    /// Its node does not say, or a word that we do not know.
    Unknown,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "PodWire")]
pub struct PodRecord {
    /// Where it is.
    pub namespace: SharedText,
    /// Its name there.
    pub name: Arc<str>,
    /// Its identity.
    pub uid: Uid,
    /// Its resourceVersion.
    pub version: u64,
    /// Its labels.
    pub labels: Labels,
    /// [`keys::FENCE`], as it stands.
    pub fence_text: Option<Box<str>>,
    /// [`keys::BREAK_AT`], as it stands.
    pub break_at: Option<Box<str>>,
    /// [`keys::RETRY_COUNT`], as it stands.
    pub retry_count: Option<Box<str>>,
    /// [`keys::ADMITTED_AT`], as it stands.
    pub admitted_at: Option<Box<str>>,
    /// [`keys::DELETION_COST`], as it stands.
    pub deletion_cost: Option<Box<str>>,
    /// It has a map of annotations: a patch adds to it, and makes one otherwise.
    pub has_annotations: bool,
    /// Who would replace it.
    pub controller: Option<OwnerRef>,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its condition Ready.
    pub ready: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// Its address is its node's.
    pub host_network: bool,
    /// Its first IPv4 address.
    pub ip: Option<Ipv4Addr>,
    /// When it was made.
    pub created: Option<Timestamp>,
}

impl PodRecord {
    /// A pod as the answer to a GET or a PATCH has it.
    ///
    /// # Errors
    /// When it is no pod.
    pub fn decode(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// As [`PodRecord::decode`], of a value.
    ///
    /// # Errors
    /// When it is no pod.
    pub fn from_value(pod: Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(pod)
    }

    /// What its switch says.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        match self.labels.get(keys::TRAFFIC) {
            Some("yes") => Traffic::Yes,
            Some("no") => Traffic::No,
            Some("pause") => Traffic::Pause,
            Some(_) => Traffic::Other,
            None => Traffic::Unlabelled,
        }
    }

    /// It takes traffic, as stored; the ledger may know better.
    #[must_use]
    pub fn serving(&self) -> bool {
        self.able() && self.traffic() == Traffic::Yes
    }

    /// It would take traffic if its switch said yes.
    #[must_use]
    pub fn able(&self) -> bool {
        self.ready && !self.terminating && self.phase == Phase::Running
    }

    /// It ended for good: not of the fleet.
    #[must_use]
    pub fn finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }
}

/// A pod as it is sent, without the rest of it.
#[derive(Deserialize)]
pub(super) struct PodWire {
    pub(super) metadata: Meta,
    #[serde(default)]
    pub(super) spec: Option<PodSpecWire>,
    #[serde(default)]
    pub(super) status: Option<PodStatusWire>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpecWire {
    #[serde(default)]
    pub(super) host_network: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodStatusWire {
    #[serde(default)]
    pub(super) phase: Option<String>,
    #[serde(default)]
    pub(super) conditions: Option<Vec<ConditionWire>>,
    #[serde(default, rename = "podIP")]
    pub(super) pod_ip: Option<String>,
    #[serde(default, rename = "podIPs")]
    pub(super) pod_ips: Option<Vec<Ip>>,
}

#[derive(Deserialize)]
pub(super) struct ConditionWire {
    pub(super) r#type: String,
    pub(super) status: String,
}

#[derive(Deserialize)]
pub(super) struct Ip {
    #[serde(default)]
    pub(super) ip: String,
}

impl PodStatusWire {
    fn phase(&self) -> Phase {
        match self.phase.as_deref() {
            Some("Running") => Phase::Running,
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            Some("Pending" | "") | None => Phase::Pending,
            Some(_) => Phase::Unknown,
        }
    }

    fn ready(&self) -> bool {
        self.conditions.iter().flatten().any(|c| c.r#type == "Ready" && c.status == "True")
    }

    fn ip(&self) -> Option<Ipv4Addr> {
        let all = self.pod_ip.iter().chain(self.pod_ips.iter().flatten().map(|ip| &ip.ip));
        all.filter_map(|ip| ip.parse().ok()).next()
    }
}

impl From<PodWire> for PodRecord {
    fn from(wire: PodWire) -> Self {
        let (mut meta, status) = (wire.metadata, wire.status.unwrap_or_default());
        let controller = meta.controller();
        let ours = meta.annotations;
        Self {
            namespace: meta.namespace,
            name: meta.name,
            uid: Uid::from(&*meta.uid),
            version: meta.resource_version,
            labels: meta.labels,
            fence_text: ours.fence,
            break_at: ours.break_at,
            retry_count: ours.retry_count,
            admitted_at: ours.admitted_at,
            deletion_cost: ours.deletion_cost,
            has_annotations: ours.any,
            controller,
            phase: status.phase(),
            ready: status.ready(),
            terminating: meta.deletion_timestamp.is_some(),
            host_network: wire.spec.and_then(|spec| spec.host_network).unwrap_or(false),
            ip: status.ip(),
            created: meta.creation_timestamp,
        }
    }
}
