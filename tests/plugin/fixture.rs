//! Fixture: the definition, resources with a status, and the plugin.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output},
};

use axum::http::{Request, header::CONTENT_TYPE};
use kube::Client;
use serde_json::{Value, json};

use crate::plane::{Plane, User};

/// The plugin as cargo built it.
pub(crate) const PLUGIN: &str = env!("CARGO_BIN_EXE_kubectl-kubervisor");

pub(crate) fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", err(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// `kubectl kubervisor ...`: the plane's kubectl finds the plugin in the PATH.
pub(crate) fn kubervisor(plane: &Plane, user: User, arguments: &[&str]) -> Output {
    let folder = Path::new(PLUGIN).parent().unwrap().to_owned();
    let path = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    Command::new(plane.directory().join("bin/kubectl"))
        .arg("kubervisor")
        .args(arguments)
        .env("PATH", env::join_paths([folder].into_iter().chain(path)).unwrap())
        .env("KUBECONFIG", plane.kubeconfig(user))
        .env("HOME", plane.directory())
        .output()
        .unwrap()
}

/// Installs the definition as a user would, and waits as one would.
pub(crate) fn install(plane: &Plane) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/kubervisorservices.yaml");
    let text = fs::read_to_string(file).unwrap();
    out(&plane.kubectl(User::Admin, &["apply", "--server-side", "-f", "-"], &text));
    let name = "crd/kubervisorservices.kubervisor.k8s.io";
    out(&plane.kubectl(User::Admin, &["wait", "--for=condition=Established", name, "--timeout=60s"], ""));
}

pub(crate) fn apply(plane: &Plane, namespace: &str, object: &Value) {
    out(&plane.kubectl(User::Admin, &["apply", "-n", namespace, "-f", "-"], &object.to_string()));
}

/// A KubervisorService of the Service `front`, with the status that a controller would write.
pub(crate) async fn resource(plane: &Plane, namespace: &str, name: &str, status: &Value) {
    let made = json!({
        "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService", "metadata": {"name": name},
        "spec": {"service": "front", "breakers": [{"name": "codes", "keepalive": {"silentAfter": 9}}]},
    });
    apply(plane, namespace, &made);
    let controller = plane.client(User::Kubervisor).await;
    let path = format!("/apis/kubervisor.k8s.io/v1alpha1/namespaces/{namespace}/kubervisorservices/{name}");
    let mut stored: Value = controller.request(Request::get(&path).body(Vec::new()).unwrap()).await.unwrap();
    stored["status"] = status.clone();
    let put = Request::put(format!("{path}/status")).header(CONTENT_TYPE, "application/json");
    controller.request::<Value>(put.body(stored.to_string().into_bytes()).unwrap()).await.unwrap();
}

/// Conditions as (type, status, reason).
pub(crate) fn conditions(all: &[(&str, &str, &str)]) -> Value {
    let one = |(kind, status, reason): &(&str, &str, &str)| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": format!("{reason}, in full"),
            "observedGeneration": 1, "lastTransitionTime": "2026-01-02T03:04:05Z",
        })
    };
    all.iter().map(one).collect()
}

/// `web`, which is well, and `api`, which is not.
pub(crate) async fn two(plane: &Plane, client: &Client, hint: &str) -> String {
    install(plane);
    let namespace = plane.namespace(client, hint).await;
    let well = [
        ("Ready", "True", "Serving"),
        ("Gating", "True", "Gated"),
        ("DataAvailable", "True", "Covered"),
        ("Panic", "False", "Calm"),
        ("DryRun", "False", "Real"),
    ];
    let status = json!({
        "conditions": conditions(&well), "floor": 5, "serving": 5,
        "podCount": {"nbPodsManaged": 8, "nbPodsBreaked": 2, "nbPodsPaused": 1, "nbPodsUnknown": 0},
    });
    resource(plane, &namespace, "web", &status).await;
    let status = json!({"conditions": conditions(&[("Ready", "False", "ServiceNotAvailable")])});
    resource(plane, &namespace, "api", &status).await;
    namespace
}
