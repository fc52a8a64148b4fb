//! The fields of a pod that the gate needs.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use prost::Message;
use serde::Deserialize;

use super::{Labels, OwnerRef, SharedText, meta::Meta};
use crate::{
    api::keys,
    decide::{
        fleet::{Traffic, Uid},
        time::Timestamp,
    },
};

/// `status.phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not started yet.
    #[default]
    Pending,
    /// Started.
    Running,
    /// Ended with success, for good.
    Succeeded,
    /// Ended with a failure, for good.
    Failed,
    /// Not reported by its node, or an unknown value.
    Unknown,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "PodWire")]
pub struct PodRecord {
    /// `metadata.namespace`.
    pub namespace: SharedText,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.resourceVersion`.
    pub version: u64,
    /// Its labels.
    pub labels: Labels,
    /// [`keys::FENCE`], as stored.
    pub fence_text: Option<Box<str>>,
    /// [`keys::BREAK_AT`], as stored.
    pub break_at: Option<Box<str>>,
    /// [`keys::RETRY_COUNT`], as stored.
    pub retry_count: Option<Box<str>>,
    /// [`keys::ADMITTED_AT`], as stored.
    pub admitted_at: Option<Box<str>>,
    /// [`keys::DELETION_COST`], as stored.
    pub deletion_cost: Option<Box<str>>,
    /// It has annotations; otherwise a patch must add the map first.
    pub has_annotations: bool,
    /// The owner that replaces it.
    pub controller: Option<OwnerRef>,
    /// `status.phase`.
    pub phase: Phase,
    /// The condition Ready is true.
    pub ready: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// `spec.nodeName`; empty: not scheduled.
    pub node: SharedText,
    /// `spec.hostNetwork`: its address is its node's.
    pub host_network: bool,
    /// Its first IPv4 address.
    pub ip: Option<Ipv4Addr>,
    /// Its first IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
}

impl PodRecord {
    /// The value of its traffic label.
    pub fn traffic(&self) -> Traffic {
        match self.labels.get(keys::TRAFFIC) {
            Some("yes") => Traffic::Yes,
            Some("no") => Traffic::No,
            Some("pause") => Traffic::Pause,
            Some(_) => Traffic::Other,
            None => Traffic::Unlabelled,
        }
    }

    /// Whether it takes traffic by its stored labels and conditions.
    pub fn serving(&self) -> bool {
        self.able() && self.traffic() == Traffic::Yes
    }

    /// Whether it would take traffic with the traffic label at `yes`.
    pub fn able(&self) -> bool {
        self.ready && !self.terminating && self.phase == Phase::Running
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ip.map(IpAddr::V4).into_iter().chain(self.ip6.map(IpAddr::V6))
    }

    /// Whether it ended for good and no longer belongs to the fleet.
    pub fn finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }
}

/// The kept fields of a pod as sent.
#[derive(Deserialize)]
pub(super) struct PodWire {
    pub(super) metadata: Meta,
    pub(super) spec: Option<PodSpecWire>,
    pub(super) status: Option<PodStatusWire>,
}

/// Read from JSON and from protobuf, as the types below.
#[derive(Message, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpecWire {
    #[prost(string, tag = "10")]
    node_name: String,
    #[prost(bool, tag = "11")]
    host_network: bool,
}

#[derive(Message, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatusWire {
    #[prost(string, tag = "1")]
    phase: String,
    #[prost(message, repeated, tag = "2")]
    conditions: Vec<ConditionWire>,
    #[prost(string, tag = "6")]
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[prost(message, repeated, tag = "12")]
    #[serde(rename = "podIPs")]
    pod_ips: Vec<Ip>,
}

#[derive(Message, Deserialize)]
pub(super) struct ConditionWire {
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(string, tag = "2")]
    status: String,
}

#[derive(Message, Deserialize)]
#[serde(default)]
pub(super) struct Ip {
    #[prost(string, tag = "1")]
    ip: String,
}

impl PodStatusWire {
    fn phase(&self) -> Phase {
        match self.phase.as_str() {
            "Running" => Phase::Running,
            "Succeeded" => Phase::Succeeded,
            "Failed" => Phase::Failed,
            "Pending" | "" => Phase::Pending,
            _ => Phase::Unknown,
        }
    }

    fn ready(&self) -> bool {
        self.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True")
    }

    /// The first address of a family.
    fn ip<A: FromStr>(&self) -> Option<A> {
        let all = [&self.pod_ip].into_iter().chain(self.pod_ips.iter().map(|ip| &ip.ip));
        all.filter_map(|ip| ip.parse().ok()).next()
    }
}

impl From<PodWire> for PodRecord {
    fn from(wire: PodWire) -> Self {
        let (mut meta, status) = (wire.metadata, wire.status.unwrap_or_default());
        let spec = wire.spec.unwrap_or_default();
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
            host_network: spec.host_network,
            node: spec.node_name.as_str().into(),
            ip: status.ip(),
            ip6: status.ip(),
            created: meta.creation_timestamp,
        }
    }
}
