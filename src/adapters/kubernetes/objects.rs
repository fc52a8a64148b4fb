//! Objects of the cluster, slim: decoded straight from the API's answers into what decisions need. Whatever
//! else an object holds (a pod is mostly specification and `managedFields`) is never kept, so that ten
//! thousand pods fit into a few megabytes.

mod labels;
mod meta;
mod owner;
mod pod;
mod resource;
mod service;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use serde::{Deserialize, de::DeserializeOwned};

pub use self::{
    labels::{Labels, Selector},
    meta::OwnerRef,
    owner::{AutoscalerRecord, WorkloadRecord},
    pod::{Phase, PodRecord},
    resource::ResourceRecord,
    service::{ServiceRecord, SliceRecord},
    text::Text,
};

/// The kinds that we watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Pods.
    Pods,
    /// Services.
    Services,
    /// EndpointSlices.
    EndpointSlices,
    /// Deployments.
    Deployments,
    /// ReplicaSets.
    ReplicaSets,
    /// StatefulSets.
    StatefulSets,
    /// HorizontalPodAutoscalers.
    Autoscalers,
    /// Our own resource.
    KubervisorServices,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Pods,
        Self::Services,
        Self::EndpointSlices,
        Self::Deployments,
        Self::ReplicaSets,
        Self::StatefulSets,
        Self::Autoscalers,
        Self::KubervisorServices,
    ];

    /// As the API and RBAC call it.
    #[must_use]
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::Deployments => "deployments",
            Self::ReplicaSets => "replicasets",
            Self::StatefulSets => "statefulsets",
            Self::Autoscalers => "horizontalpodautoscalers",
            Self::KubervisorServices => "kubervisorservices",
        }
    }

    const fn root(self) -> &'static str {
        match self {
            Self::Pods | Self::Services => "/api/v1",
            Self::EndpointSlices => "/apis/discovery.k8s.io/v1",
            Self::Deployments | Self::ReplicaSets | Self::StatefulSets => "/apis/apps/v1",
            Self::Autoscalers => "/apis/autoscaling/v2",
            Self::KubervisorServices => "/apis/kubervisor.k8s.io/v1alpha1",
        }
    }

    /// The path of the collection: of one namespace, or of all.
    #[must_use]
    pub fn path(self, namespace: Option<&str>) -> String {
        let (root, resource) = (self.root(), self.resource());
        match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{resource}"),
            None => format!("{root}/{resource}"),
        }
    }
}

/// What every object has.
pub trait Record: DeserializeOwned + Clone + PartialEq + Send + Sync + 'static {
    /// Where it is.
    fn namespace(&self) -> &Text;
    /// Its name there.
    fn name(&self) -> &Arc<str>;
    /// Its identity: a namesake made later has another.
    fn uid(&self) -> &str;
    /// Its resourceVersion.
    fn version(&self) -> u64;
    /// The same object with another resourceVersion.
    fn at_version(&self, version: u64) -> Self;
    /// Whether a LIST with this selector would show it.
    fn selected(&self, _by: &Selector) -> bool {
        true
    }
}

/// A page of a collection.
#[derive(Deserialize)]
#[serde(bound = "R: Record")]
pub(super) struct Page<R> {
    pub(super) metadata: PageMeta,
    #[serde(default)]
    pub(super) items: Option<Vec<R>>,
}

/// Which page of which moment.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMeta {
    #[serde(deserialize_with = "meta::version")]
    pub(super) resource_version: u64,
    #[serde(default, rename = "continue")]
    pub(super) more: Option<String>,
}
