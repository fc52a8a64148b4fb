//! The objects that set a number of pods.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{Labels, OwnerRef, SharedText, meta::Meta};
use crate::api::traffic_key_in;

/// A Deployment, ReplicaSet or StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "WorkloadWire")]
pub struct WorkloadRecord {
    pub(crate) namespace: SharedText,
    pub(crate) name: Arc<str>,
    pub(crate) uid: SharedText,
    pub(crate) version: u64,
    /// `spec.replicas`.
    pub replicas: u32,
    /// The owner that sets that number.
    pub controller: Option<OwnerRef>,
    /// Its own selector asks for the traffic label: it lets a withheld pod go.
    pub selects_switch: bool,
    /// The labels of its pod template, where a custom owner controls it: whether a Service selects its pods.
    pub template: Option<Labels>,
}

/// A HorizontalPodAutoscaler.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "AutoscalerWire")]
pub struct AutoscalerRecord {
    pub(crate) namespace: SharedText,
    pub(crate) name: Arc<str>,
    pub(crate) uid: SharedText,
    pub(crate) version: u64,
    /// `spec.minReplicas`.
    pub min_replicas: u32,
    pub(crate) target_api_version: SharedText,
    pub(crate) target_kind: SharedText,
    pub(crate) target_name: SharedText,
}

impl AutoscalerRecord {
    /// Whether it scales this owner, in whatever version of its API group.
    pub fn scales(&self, owner: &OwnerRef) -> bool {
        let group = self.target_api_version.split_once('/').map_or("", |(group, _)| group);
        self.target_name == owner.name && self.target_kind == owner.kind && group == owner.group()
    }
}

#[derive(Deserialize)]
struct WorkloadWire {
    metadata: Meta,
    #[serde(default)]
    spec: WorkloadSpec,
}

#[derive(Default, Deserialize)]
struct WorkloadSpec {
    replicas: Option<u32>,
    selector: Option<Value>,
    template: Option<PodTemplate>,
}

#[derive(Deserialize)]
struct PodTemplate {
    metadata: Option<TemplateMeta>,
}

#[derive(Deserialize)]
struct TemplateMeta {
    #[serde(default)]
    labels: Labels,
}

impl From<WorkloadWire> for WorkloadRecord {
    fn from(wire: WorkloadWire) -> Self {
        let mut meta = wire.metadata;
        let controller = meta.controller();
        let custom = controller.as_ref().is_some_and(|owner| !owner.is_apps("Deployment"));
        let template = wire.spec.template.filter(|_| custom).and_then(|template| template.metadata);
        Self {
            template: template.map(|metadata| metadata.labels),
            namespace: meta.namespace,
            name: meta.name,
            uid: meta.uid,
            version: meta.resource_version,
            // The default of the API.
            replicas: wire.spec.replicas.unwrap_or(1),
            controller,
            selects_switch: wire.spec.selector.is_some_and(|selector| traffic_key_in(&selector).is_some()),
        }
    }
}

#[derive(Deserialize)]
struct AutoscalerWire {
    metadata: Meta,
    spec: AutoscalerSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AutoscalerSpec {
    min_replicas: Option<u32>,
    scale_target_ref: ScaleTarget,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScaleTarget {
    #[serde(default)]
    api_version: SharedText,
    kind: SharedText,
    name: SharedText,
}

impl From<AutoscalerWire> for AutoscalerRecord {
    fn from(wire: AutoscalerWire) -> Self {
        let (meta, target) = (wire.metadata, wire.spec.scale_target_ref);
        Self {
            namespace: meta.namespace,
            name: meta.name,
            uid: meta.uid,
            version: meta.resource_version,
            min_replicas: wire.spec.min_replicas.unwrap_or(1),
            target_api_version: target.api_version,
            target_kind: target.kind,
            target_name: target.name,
        }
    }
}
