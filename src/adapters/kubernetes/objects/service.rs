//! A Service's selector, and what its EndpointSlices show ready.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, de::IgnoredAny};

use super::{Selector, SharedText, meta::Meta};
use crate::decide::fleet::Uid;

/// The label that names a slice's Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names the manager of a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Kubernetes' own manager.
const ENDPOINT_CONTROLLER: &str = "endpointslice-controller.k8s.io";

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
    /// It has ports. One without any (headless) has slices without ports.
    pub has_ports: bool,
    /// `spec.internalTrafficPolicy` is `Local`: clients reach the pods of their own node only.
    pub internal_local: bool,
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
    /// Addresses that it shows ready without the UID of a pod.
    pub addresses: Box<[IpAddr]>,
    /// The value of its label `managed-by`; empty: none.
    pub manager: SharedText,
    /// `metadata.generation`: rises with each change of its endpoints.
    pub generation: i64,
    /// It has ports. Pods without the named port of a Service are in a slice without any, and get no traffic.
    pub has_ports: bool,
}

impl SliceRecord {
    /// Whether Kubernetes' endpoint controller writes it.
    pub fn is_kubernetes_own(&self) -> bool {
        &*self.manager == ENDPOINT_CONTROLLER
    }
}

#[derive(Deserialize)]
struct ServiceWire {
    metadata: Meta,
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceSpec {
    selector: Option<Selector>,
    r#type: Option<String>,
    internal_traffic_policy: Option<String>,
    ports: Option<Vec<IgnoredAny>>,
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
            internal_local: wire.spec.internal_traffic_policy.as_deref() == Some("Local"),
            has_ports: wire.spec.ports.is_some_and(|ports| !ports.is_empty()),
        }
    }
}

#[derive(Deserialize)]
struct SliceWire {
    metadata: Meta,
    endpoints: Option<Vec<SliceEndpoint>>,
    ports: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceEndpoint {
    addresses: Option<Vec<String>>,
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
    /// An absent condition means ready.
    fn is_ready(&self) -> bool {
        self.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    }

    /// The UID of its pod.
    fn pod(&self) -> Option<Uid> {
        let target = self.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"))?;
        target.uid.as_deref().map(Uid::from)
    }
}

impl From<SliceWire> for SliceRecord {
    fn from(wire: SliceWire) -> Self {
        let meta = wire.metadata;
        let (mut ready, mut addresses) = (Vec::new(), Vec::new());
        for endpoint in wire.endpoints.into_iter().flatten().filter(SliceEndpoint::is_ready) {
            match endpoint.pod() {
                Some(pod) => ready.push(pod),
                None => addresses.extend(
                    endpoint.addresses.iter().flatten().filter_map(|text| text.parse::<IpAddr>().ok()),
                ),
            }
        }
        // Sorted, since the order of endpoints changes without a meaning.
        ready.sort_unstable();
        addresses.sort_unstable();
        Self {
            service: meta.labels.get(SERVICE_NAME).unwrap_or_default().into(),
            manager: meta.labels.get(MANAGED_BY).unwrap_or_default().into(),
            generation: meta.generation.unwrap_or_default(),
            namespace: meta.namespace,
            name: meta.name,
            uid: meta.uid,
            version: meta.resource_version,
            ready: ready.into_boxed_slice(),
            addresses: addresses.into_boxed_slice(),
            has_ports: wire.ports.is_some_and(|ports| !ports.is_empty()),
        }
    }
}
