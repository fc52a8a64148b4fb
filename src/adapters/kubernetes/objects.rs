//! Slim records of the cluster's objects, decoded straight from the API's responses. Only the fields that decisions need are
//! kept, so that ten thousand pods fit into a few megabytes.

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
    service::{SERVICE_NAME, ServiceRecord, SliceRecord},
    text::SharedText,
};

labelled! {
    /// The watched kinds.
    pub enum Kind, resource {
        /// Pods.
        Pods = "pods",
        /// Services.
        Services = "services",
        /// EndpointSlices.
        EndpointSlices = "endpointslices",
        /// Deployments.
        Deployments = "deployments",
        /// ReplicaSets.
        ReplicaSets = "replicasets",
        /// StatefulSets.
        StatefulSets = "statefulsets",
        /// HorizontalPodAutoscalers.
        Autoscalers = "horizontalpodautoscalers",
        /// The custom resource.
        KubervisorServices = "kubervisorservices",
    }
}

impl Kind {
    const fn root(self) -> &'static str {
        match self {
            Self::Pods | Self::Services => "/api/v1",
            Self::EndpointSlices => "/apis/discovery.k8s.io/v1",
            Self::Deployments | Self::ReplicaSets | Self::StatefulSets => "/apis/apps/v1",
            Self::Autoscalers => "/apis/autoscaling/v2",
            Self::KubervisorServices => "/apis/kubervisor.k8s.io/v1alpha1",
        }
    }

    /// The path of one object.
    pub fn object_path(self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.path(Some(namespace)))
    }

    /// The path of the collection in one namespace, or in all.
    pub fn path(self, namespace: Option<&str>) -> String {
        let (root, resource) = (self.root(), self.resource());
        match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{resource}"),
            None => format!("{root}/{resource}"),
        }
    }
}

/// What all records have in common.
pub trait CachedObject: DeserializeOwned + Clone + PartialEq + Send + Sync + 'static {
    /// `metadata.namespace`.
    fn namespace(&self) -> &SharedText;
    /// `metadata.name`.
    fn name(&self) -> &Arc<str>;
    /// `metadata.uid`: an object of the same name that was created later has another.
    fn uid(&self) -> &str;
    /// `metadata.resourceVersion`.
    fn version(&self) -> u64;
    /// The same object with another resourceVersion.
    fn at_version(&self, version: u64) -> Self;
    /// The accepted media types of a list, the preferred one first.
    const ACCEPT: &str = "application/json";
    /// Decodes a page of the given media type.
    ///
    /// # Errors
    /// When the body is malformed.
    fn page(_form: &str, body: &[u8]) -> Result<Page<Self>, serde_json::Error> {
        serde_json::from_slice(body)
    }
    /// Whether a LIST with this selector contains it.
    fn selected(&self, _by: &Selector) -> bool {
        true
    }
}

/// Implements [`CachedObject`]: each method returns the field of its name.
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

    /// In protobuf, or in JSON, which a proxy may have chosen.
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

/// The status in an error response; a body that is none, such as a proxy's, becomes its message.
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
    pub(super) items: Option<Vec<R>>,
}

/// The version of a list, and the token of its next page.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMeta {
    #[serde(deserialize_with = "meta::version")]
    pub(super) resource_version: u64,
    #[serde(rename = "continue")]
    pub(super) more: Option<String>,
}
