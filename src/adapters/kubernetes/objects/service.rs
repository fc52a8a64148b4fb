//! A Service's selector, and what its EndpointSlices show ready.

use std::sync::Arc;

use serde::Deserialize;

use super::{Selector, SharedText, meta::Meta};
use crate::decide::fleet::Uid;

/// The label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "ServiceWire")]
pub struct ServiceRecord {
    pub(crate) namespace: SharedText,
    pub(crate) name: Arc<str>,
    pub(crate) uid: SharedText,
    pub(crate) version: u64,
    /// `spec.selector`; `None`: absent or empty.
    pub selector: Option<Selector>,
    /// It is of type ExternalName and has no pods, whatever its selector.
    pub external_name: bool,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "SliceWire")]
pub struct SliceRecord {
    pub(crate) namespace: SharedText,
    pub(crate) name: Arc<str>,
    pub(crate) uid: SharedText,
    pub(crate) version: u64,
    /// The name of its Service; empty: none.
    pub service: SharedText,
    /// The pods that it shows ready.
    pub ready: Box<[Uid]>,
}

#[derive(Deserialize)]
struct ServiceWire {
    metadata: Meta,
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Default, Deserialize)]
struct ServiceSpec {
    selector: Option<Selector>,
    r#type: Option<String>,
}

impl From<ServiceWire> for ServiceRecord {
    fn from(wire: ServiceWire) -> Self {
        let meta = wire.metadata;
        Self {
            namespace: meta.namespace,
            name: meta.name,
            uid: meta.uid,
            version: meta.resource_version,
            selector: wire.spec.selector.filter(|selector| !selector.is_empty()),
            external_name: wire.spec.r#type.as_deref() == Some("ExternalName"),
        }
    }
}

#[derive(Deserialize)]
struct SliceWire {
    metadata: Meta,
    endpoints: Option<Vec<SliceEndpoint>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceEndpoint {
    conditions: Option<EndpointConditions>,
    target_ref: Option<EndpointTarget>,
}

#[derive(Deserialize)]
struct EndpointConditions {
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct EndpointTarget {
    kind: Option<String>,
    uid: Option<String>,
}

impl SliceEndpoint {
    /// The UID of its pod, if it is ready; an absent condition means ready.
    fn ready_pod(self) -> Option<Uid> {
        let ready = self.conditions.and_then(|c| c.ready).unwrap_or(true);
        let target = self.target_ref.filter(|target| ready && target.kind.as_deref() == Some("Pod"))?;
        target.uid.map(Uid::from)
    }
}

impl From<SliceWire> for SliceRecord {
    fn from(wire: SliceWire) -> Self {
        let meta = wire.metadata;
        let mut ready: Vec<Uid> =
            wire.endpoints.into_iter().flatten().filter_map(SliceEndpoint::ready_pod).collect();
        // Sorted, since the order of endpoints changes without a meaning.
        ready.sort_unstable();
        Self {
            service: meta.labels.get(SERVICE_NAME).unwrap_or_default().into(),
            namespace: meta.namespace,
            name: meta.name,
            uid: meta.uid,
            version: meta.resource_version,
            ready: ready.into_boxed_slice(),
        }
    }
}
