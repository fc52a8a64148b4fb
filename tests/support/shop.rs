//! A fleet on the plane with everything that belongs to it: a Deployment or a StatefulSet, a Service whose selector has the switch or
//! not, and a KubervisorService with short times.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, none uses all")]

use std::{fs, path::Path};

use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::plane::{Plane, User, until};

/// The definition of our resource, established when this returns.
pub fn install(plane: &Plane) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/kubervisorservices.yaml");
    apply(plane, &["apply", "--server-side", "-f", "-"], &fs::read_to_string(path).unwrap());
    let name = "crd/kubervisorservices.kubervisor.k8s.io";
    apply(plane, &["wait", "--for=condition=Established", name, "--timeout=60s"], "");
}

fn apply(plane: &Plane, arguments: &[&str], input: &str) {
    let done = plane.kubectl(User::Admin, arguments, input);
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// What is made; [`Recipe::apply`] does it.
#[derive(Clone, Debug)]
pub struct Recipe {
    name: String,
    replicas: u32,
    gated: bool,
    labelled: bool,
    switched: bool,
    stateful: bool,
    breakers: Vec<Value>,
    spec: Value,
}

impl Recipe {
    /// So many pods behind a Service of that name, switch in the selector, label in the template.
    pub fn of(name: &str, replicas: u32) -> Self {
        let spec =
            json!({"service": name, "defaultActivator": {"mode": "periodic", "period": 1, "maxPeriod": 2}});
        Self {
            name: name.to_owned(),
            replicas,
            gated: true,
            labelled: true,
            switched: false,
            stateful: false,
            breakers: Vec::new(),
            spec,
        }
    }

    /// The selector does not have the switch.
    pub fn ungated(self) -> Self {
        Self { gated: false, ..self }
    }

    /// The label is in the Deployment's own selector, too.
    pub fn switched(self) -> Self {
        Self { switched: true, ..self }
    }

    /// The pods are a StatefulSet's.
    pub fn stateful(self) -> Self {
        Self { stateful: true, ..self }
    }

    /// The workload's kind, in the API group `apps`.
    pub fn kind(&self) -> &'static str {
        if self.stateful { "StatefulSet" } else { "Deployment" }
    }

    /// The template does not have the label.
    pub fn unlabelled(self) -> Self {
        Self { labelled: false, ..self }
    }

    /// One more breaker: asks that custom service every 0.3 s, keeps so many percent; as the spec's default activator
    /// says, which is every second.
    pub fn breaker(self, name: &str, custom_service: &str, ratio: u32) -> Self {
        self.raw_breaker(json!({
            "name": name, "customService": custom_service, "evaluationPeriod": 0.3, "minPodsAvailableRatio": ratio,
        }))
    }

    /// One more breaker, as it is.
    pub fn raw_breaker(mut self, breaker: Value) -> Self {
        self.breakers.push(breaker);
        self
    }

    /// One more member of the spec.
    pub fn spec(mut self, key: &str, value: Value) -> Self {
        self.spec[key] = value;
        self
    }

    /// The KubervisorService alone.
    pub fn resource(&self) -> Value {
        let mut spec = self.spec.clone();
        spec["breakers"] = json!(self.breakers);
        json!({
            "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService",
            "metadata": {"name": self.name}, "spec": spec,
        })
    }

    /// Workload and Service.
    pub fn workload(&self) -> Value {
        let (plain, switched) =
            (json!({"app": self.name}), json!({"app": self.name, "kubervisor/traffic": "yes"}));
        let labels = if self.labelled { &switched } else { &plain };
        let selector = if self.gated { &switched } else { &plain };
        let container = json!({"name": "app", "image": "app:1"});
        let mut workload = json!({
            "apiVersion": "apps/v1", "kind": self.kind(), "metadata": {"name": self.name},
            "spec": {
                "replicas": self.replicas, "selector": {"matchLabels": if self.switched { labels } else { &plain }},
                "template": {
                    "metadata": {"labels": labels},
                    // What a node loses is replaced in seconds.
                    "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, "tolerations": [
                        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
                    ]},
                },
            },
        });
        if self.stateful {
            workload["spec"]["serviceName"] = json!(self.name);
        } else {
            // A rollout of a few pods is over in a moment, and never below nine tenths.
            workload["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}});
        }
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": self.name},
            "spec": {"selector": selector, "ports": [{"port": 80}]},
        });
        json!({"apiVersion": "v1", "kind": "List", "items": [workload, service]})
    }

    /// Makes workload and Service, waits until all pods are ready, then makes the resource.
    pub async fn apply(&self, plane: &Plane, client: &Client, namespace: &str) -> Shop {
        apply(plane, &["apply", "-n", namespace, "-f", "-"], &self.workload().to_string());
        let shop = Shop { client: client.clone(), namespace: namespace.to_owned(), name: self.name.clone() };
        let wanted = self.replicas as usize;
        until("the pods are ready", || async {
            let pods = shop.pods().await.ok()?;
            let ready = pods.iter().filter(|pod| ready(pod)).count();
            (ready == wanted).then_some(())
        })
        .await;
        apply(plane, &["apply", "-n", namespace, "-f", "-"], &self.resource().to_string());
        shop
    }
}

/// A fleet that was made.
#[derive(Clone)]
pub struct Shop {
    pub client: Client,
    pub namespace: String,
    pub name: String,
}

impl Shop {
    /// The pods of the workload.
    pub async fn pods(&self) -> Result<Vec<Pod>, kube::Error> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        Ok(pods.list(&ListParams::default().labels(&format!("app={}", self.name))).await?.items)
    }

    /// The names of its pods that are not on their way out.
    pub async fn names(&self) -> Result<Vec<String>, kube::Error> {
        let pods = self.pods().await?.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods.filter_map(|pod| pod.metadata.name).collect())
    }

    /// The pods that the EndpointSlices of its Service show as ready.
    pub async fn endpoints(&self) -> Result<Vec<String>, kube::Error> {
        let slices = Api::<EndpointSlice>::namespaced(self.client.clone(), &self.namespace);
        let mine = ListParams::default().labels(&format!("kubernetes.io/service-name={}", self.name));
        let endpoints = slices.list(&mine).await?.items.into_iter().flat_map(|slice| slice.endpoints);
        let ready = endpoints.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
        Ok(ready.filter_map(|endpoint| endpoint.target_ref?.name).collect())
    }

    /// The resource as it is stored.
    pub async fn resource(&self) -> Result<Value, kube::Error> {
        let found = self.resources().get(&self.name).await?;
        Ok(serde_json::to_value(found).unwrap())
    }

    /// All resources of its namespace.
    pub fn resources(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("kubervisor.k8s.io", "v1alpha1", "KubervisorService");
        let of = ApiResource::from_gvk_with_plural(&kind, "kubervisorservices");
        Api::namespaced_with(self.client.clone(), &self.namespace, &of)
    }

    /// How many entries its ledger has; `None`: there is no ledger.
    pub async fn entries(&self) -> Option<usize> {
        let ledger = self.resource().await.ok()?["status"]["ledger"].take();
        ledger.is_object().then(|| ledger["entries"].as_object().map_or(0, serde_json::Map::len))
    }

    /// A merge patch on one pod.
    pub async fn patch_pod(&self, pod: &str, patch: &Value) -> Result<(), kube::Error> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        pods.patch(pod, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    /// What a pod's switch says.
    pub async fn traffic(&self, pod: &str) -> Option<String> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        pods.get(pod).await.ok()?.metadata.labels?.remove("kubervisor/traffic")
    }
}

/// Whether a pod is ready and stays.
pub fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}
