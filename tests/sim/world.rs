//! What the API server of the simulation holds: Services, each with a Deployment of pods and a KubervisorService, and
//! what the endpoint controller makes of the pods' labels.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api_server::ApiServer;

/// The namespace of everything.
pub const NAMESPACE: &str = "sim";
/// Pods of each Service.
pub const PODS: usize = 6;
/// Pods of each Service that must serve: half of them.
pub const FLOOR: usize = 3;

/// The path of an object of this kind.
pub fn path(plural: &str, name: &str) -> String {
    let group = match plural {
        "pods" | "services" | "configmaps" => "api/v1",
        "endpointslices" => "apis/discovery.k8s.io/v1",
        "leases" => "apis/coordination.k8s.io/v1",
        "kubervisorservices" => "apis/kubervisor.k8s.io/v1alpha1",
        _ => "apis/apps/v1",
    };
    format!("{group}/namespaces/{NAMESPACE}/{plural}/{name}")
}

/// The name of the Service with this number, and of its resource.
pub fn service(number: usize) -> String {
    format!("web-{number}")
}

/// Stores that many Services with all that belongs to them.
pub fn fill(server: &ApiServer, services: usize) {
    for number in 0..services {
        let name = service(number);
        let labels = json!({"app": name, "kubervisor/traffic": "yes"});
        server.put(
            &path("services", &name),
            object(&name, &json!({"selector": labels, "ports": [{"port": 80}]})),
        );
        let replicas = json!({"replicas": PODS, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}}});
        let deployment = server.put(&path("deployments", &name), object(&name, &replicas));
        let mut set = object(&name, &replicas);
        set["metadata"]["ownerReferences"] = owner("Deployment", &deployment);
        let set = server.put(&path("replicasets", &name), set);
        for pod in 0..PODS {
            let pod_name = format!("{name}-{pod}");
            let mut made = object(&pod_name, &json!({"nodeName": "node", "containers": []}));
            made["metadata"]["labels"] = labels.clone();
            made["metadata"]["ownerReferences"] = owner("ReplicaSet", &set);
            made["status"] = json!({"phase": "Running", "podIP": format!("10.0.{number}.{}", pod + 1),
                "conditions": [{"type": "Ready", "status": "True"}]});
            server.put(&path("pods", &pod_name), made);
        }
        server.put(&path("kubervisorservices", &name), resource(&name));
        show(server, &name);
    }
}

/// The resource of one Service.
pub fn resource(name: &str) -> Value {
    let mut made = object(name, &spec(name));
    made["apiVersion"] = json!("kubervisor.k8s.io/v1alpha1");
    made["kind"] = json!("KubervisorService");
    made["metadata"]["finalizers"] = json!(["kubervisor.k8s.io/release"]);
    made
}

/// Its spec. The detector is never asked: the verdicts come from the simulation.
pub fn spec(name: &str) -> Value {
    json!({
        "service": name,
        "breakers": [{"name": "errors", "customService": "http://detector", "minPodsAvailableRatio": 50}],
        "defaultActivator": {"mode": "periodic", "period": 5},
    })
}

/// Writes the EndpointSlice of a Service from its pods, as the endpoint controller does.
pub fn show(server: &ApiServer, name: &str) {
    let pods = server.objects(&path("pods", &format!("{name}-")));
    let listed = pods.iter().filter(|pod| serves(pod));
    let endpoints: Vec<Value> = listed
        .map(|pod| {
            json!({"addresses": [pod["status"]["podIP"]], "conditions": {"ready": true}, "targetRef":
                {"kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}})
        })
        .collect();
    let mut slice = json!({"metadata": {"name": name, "namespace": NAMESPACE, "generation": 1}, "addressType": "IPv4",
        "ports": [{"port": 80}], "endpoints": endpoints});
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"});
    let path = path("endpointslices", name);
    if let Some(old) = server.object(&path) {
        if old["endpoints"] == slice["endpoints"] {
            return;
        }
        slice["metadata"]["uid"] = old["metadata"]["uid"].clone();
        slice["metadata"]["generation"] = json!(old["metadata"]["generation"].as_u64().unwrap_or(0) + 1);
    }
    server.put(&path, slice);
}

/// The endpoint controller: follows the pods' labels for ever, each time after a short delay.
pub async fn endpoints(server: ApiServer, services: usize) {
    let mut revision = server.revision();
    loop {
        for number in 0..services {
            show(&server, &service(number));
        }
        if revision.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Whether the pod's label puts it into the endpoints of its Service.
pub fn serves(pod: &Value) -> bool {
    pod["metadata"]["labels"]["kubervisor/traffic"] == "yes"
}

fn object(name: &str, spec: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": NAMESPACE, "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec})
}

fn owner(kind: &str, of: &Value) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "controller": true,
        "name": of["metadata"]["name"], "uid": of["metadata"]["uid"]}])
}
