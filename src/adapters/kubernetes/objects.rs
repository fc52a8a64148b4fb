//! Objects of the cluster, slim: decoded straight from the API's answers into what decisions need. Whatever
//! else an object holds (a pod is mostly specification and `managedFields`) is never kept, so that ten
//! thousand pods fit into a few megabytes.

mod labels;
mod meta;
mod owner;
mod pod;
mod protobuf;
mod resource;
mod service;
#[cfg(test)]
mod tests;
mod text;

use std::{borrow::Borrow, sync::Arc};

use kube::core::Status;
use serde::{
    Deserialize,
    de::{DeserializeOwned, Error as _},
};

pub use self::{
    labels::{Labels, Selector},
    meta::OwnerRef,
    owner::{AutoscalerRecord, WorkloadRecord},
    pod::{Phase, PodRecord},
    resource::ResourceRecord,
    service::{ServiceRecord, SliceRecord},
    text::SharedText,
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
pub trait CachedObject: DeserializeOwned + Clone + PartialEq + Send + Sync + 'static {
    /// Where it is.
    fn namespace(&self) -> &SharedText;
    /// Its name there.
    fn name(&self) -> &Arc<str>;
    /// Its identity: a namesake made later has another.
    fn uid(&self) -> &str;
    /// Its resourceVersion.
    fn version(&self) -> u64;
    /// The same object with another resourceVersion.
    fn at_version(&self, version: u64) -> Self;
    /// In which forms a list of them is taken, the best first.
    const ACCEPT: &str = "application/json";
    /// A page of them, in the form that the answer says it has.
    ///
    /// # Errors
    /// When it is no such page.
    fn page(_form: &str, body: &[u8]) -> Result<Page<Self>, serde_json::Error> {
        serde_json::from_slice(body)
    }
    /// Whether a LIST with this selector would show it.
    fn selected(&self, _by: &Selector) -> bool {
        true
    }
}

/// What is alike in every record: each method gives the field of its name.
macro_rules! record {
    ($($record:ident),+ $(,)?) => {$(
        impl CachedObject for $record {
            record!(@methods);
        }
    )+};
    (@methods) => {
        fn namespace(&self) -> &SharedText {
            &self.namespace
        }
        fn name(&self) -> &Arc<str> {
            &self.name
        }
        fn uid(&self) -> &str {
            self.uid.borrow()
        }
        fn version(&self) -> u64 {
            self.version
        }
        fn at_version(&self, version: u64) -> Self {
            Self { version, ..self.clone() }
        }
    };
}

record!(AutoscalerRecord, ResourceRecord, ServiceRecord, SliceRecord, WorkloadRecord);

impl CachedObject for PodRecord {
    const ACCEPT: &str = "application/vnd.kubernetes.protobuf, application/json";

    record!(@methods);

    /// In its best form, or as whoever stands in between prefers it.
    fn page(form: &str, body: &[u8]) -> Result<Page<Self>, serde_json::Error> {
        match form == protobuf::MEDIA {
            true => protobuf::pods(body).map_err(serde_json::Error::custom),
            false => serde_json::from_slice(body),
        }
    }

    fn selected(&self, by: &Selector) -> bool {
        by.matches(self)
    }
}

/// The API server's refusal in whatever form it has; other words than its own, from a proxy say, are kept.
pub(super) fn refusal(form: &str, code: u16, body: &[u8]) -> Status {
    let read = match form == protobuf::MEDIA {
        true => protobuf::refusal(body).ok(),
        false => serde_json::from_slice(body).ok(),
    };
    let text = || String::from_utf8_lossy(body).trim().to_owned();
    read.unwrap_or_else(|| Status::failure(&text(), "").with_code(code))
}

/// A page of a collection.
#[derive(Deserialize)]
#[serde(bound = "R: CachedObject")]
pub struct Page<R> {
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
