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
    /// Where it is.
    pub namespace: SharedText,
    /// Its name there.
    pub name: Arc<str>,
    /// Its identity.
    pub uid: SharedText,
    /// Its resourceVersion.
    pub version: u64,
    /// Which pods it sends traffic to; `None` without a selector.
    pub selector: Option<Selector>,
    /// It is only a name for something outside: it has no pods, whatever its selector says.
    pub external_name: bool,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "SliceWire")]
pub struct SliceRecord {
    /// Where it is.
    pub namespace: SharedText,
    /// Its name there.
    pub name: Arc<str>,
    /// Its identity.
    pub uid: SharedText,
    /// Its resourceVersion.
    pub version: u64,
    /// The Service that it belongs to; empty for none.
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
    #[serde(default)]
    selector: Option<Selector>,
    #[serde(default)]
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
    #[serde(default)]
    endpoints: Option<Vec<SliceEndpoint>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceEndpoint {
    #[serde(default)]
    conditions: Option<EndpointConditions>,
    #[serde(default)]
    target_ref: Option<EndpointTarget>,
}

#[derive(Deserialize)]
struct EndpointConditions {
    #[serde(default)]
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct EndpointTarget {
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    uid: Option<String>,
}

impl SliceEndpoint {
    /// The pod behind it, if it is shown ready; an absent word means ready.
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
        // The order of endpoints means nothing, and changes.
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
