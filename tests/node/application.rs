//! An application of real pods behind a ClusterIP: it answers with the pod's name, and fails where a test says so.

use std::{collections::BTreeMap, net::SocketAddr};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::cluster::{apply, until};

/// The Deployment and Service `shop` of a namespace.
pub(crate) struct Application {
    pub(crate) client: Client,
    pub(crate) namespace: &'static str,
    /// The Service's address.
    pub(crate) address: SocketAddr,
}

impl Application {
    /// Starts it and waits until all pods answer through the Service.
    pub(crate) async fn start(client: &Client, namespace: &'static str, replicas: usize) -> Self {
        apply(&manifest(namespace, replicas));
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        let service = services.get("shop").await.unwrap();
        let ip = service.spec.unwrap().cluster_ip.unwrap();
        let address = SocketAddr::new(ip.parse().unwrap(), 80);
        let application = Self { client: client.clone(), namespace, address };
        application.available(replicas).await;
        application
    }

    /// Waits until this number of pods is available and listed as ready.
    pub(crate) async fn available(&self, replicas: usize) {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), self.namespace);
        until("the application is available", || async {
            let status = deployments.get("shop").await.ok()?.status?;
            (status.available_replicas? as usize == replicas && self.listed().await == replicas).then_some(())
        })
        .await;
    }

    /// How many of its pods the Service's EndpointSlices show as ready.
    pub(crate) async fn listed(&self) -> usize {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), self.namespace);
        let of = ListParams::default().labels("kubernetes.io/service-name=shop");
        let slices = slices.list(&of).await.unwrap();
        let endpoints = slices.into_iter().flat_map(|slice| slice.endpoints);
        endpoints.filter(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true)).count()
    }

    /// Its pods' addresses by name.
    pub(crate) async fn pods(&self) -> BTreeMap<String, String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        let pods = pods.list(&ListParams::default().labels("set=shop")).await.unwrap();
        let address = |pod: Pod| Some((pod.metadata.name?, pod.status?.pod_ip?));
        pods.into_iter().filter_map(address).collect()
    }

    /// Has a pod answer each request with 500 from now on.
    pub(crate) async fn fail(&self, pod: &str) {
        self.post(pod, "/fail").await;
    }

    /// Ends [`Application::fail`].
    pub(crate) async fn recover(&self, pod: &str) {
        self.post(pod, "/recover").await;
    }

    async fn post(&self, pod: &str, path: &str) {
        let address = &self.pods().await[pod];
        let done = reqwest::Client::new().post(format!("http://{address}:8080{path}")).send().await.unwrap();
        assert!(done.status().is_success(), "{path}: {}", done.status());
    }

    /// The pod's traffic label.
    pub(crate) async fn traffic(&self, pod: &str) -> Option<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        pods.get(pod).await.unwrap().metadata.labels?.remove("kubervisor/traffic")
    }

    /// Waits until the pod's traffic label is this.
    pub(crate) async fn has_traffic(&self, pod: &str, label: &str) {
        until(&format!("{pod} has the traffic label {label}"), || async {
            (self.traffic(pod).await.as_deref() == Some(label)).then_some(())
        })
        .await;
    }

    /// Puts labels on a pod; `null` takes one off.
    pub(crate) async fn label(&self, pod: &str, labels: serde_json::Value) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        let patch = json!({"metadata": {"labels": labels}});
        pods.patch(pod, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
}

/// Pods that Pod Security `restricted` accepts; `app` is in the Service's selector, `set` in the Deployment's.
fn manifest(namespace: &str, replicas: usize) -> String {
    let container = json!({
        "name": "shop", "image": "kubervisor.test/pod:dev", "imagePullPolicy": "Never", "args": ["serve"],
        "ports": [{"name": "http", "containerPort": 8080}],
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}
        },
        "readinessProbe": {"httpGet": {"path": "/healthy", "port": "http"}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/healthy", "port": "http"}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
    });
    let template = json!({
        "metadata": {"labels": {"app": "shop", "set": "shop", "kubervisor/traffic": "yes"}},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 10,
            "containers": [container],
        },
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop", "namespace": namespace},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"set": "shop"}}, "template": template,
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "namespace": namespace},
        "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80, "targetPort": "http"}]},
    });
    format!("{deployment}\n---\n{service}\n")
}
