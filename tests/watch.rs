//! The cluster cache on a real control plane: its contents, and its behaviour when the API server is unreachable, refuses,
//! or is restored from a backup.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "watch/faults.rs"]
mod faults;
#[path = "watch/fleet.rs"]
mod fleet;
#[path = "watch/old_server.rs"]
mod old_server;
#[path = "support/plane.rs"]
mod plane;

use std::{path::Path, time::Duration};

use kube::Client;
use kubervisor::{
    adapters::kubernetes::{
        cluster::{Cluster, WatchScope},
        connect::{self, ConnectOptions},
        objects::Selector,
    },
    alarms::Alarms,
    clock::Clock,
};
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use plane::{Plane, User};

/// A cache whose watches end with the test.
struct Watched {
    cluster: Cluster,
    _end: DropGuard,
}

/// A client made as the controller makes it.
async fn client(plane: &Plane, user: User) -> Client {
    let options = ConnectOptions { kubeconfig: Some(plane.kubeconfig(user)), ..ConnectOptions::default() };
    connect::client(&options).await.unwrap()
}

async fn start(plane: &Plane, user: User, scope: &WatchScope) -> Watched {
    let (client, stop) = (client(plane, user).await, CancellationToken::new());
    let cluster = Cluster::start(client, scope, &Alarms::new(Clock::start()), &stop);
    Watched { cluster, _end: stop.drop_guard() }
}

/// A cache of these namespaces, in sync.
async fn synced(plane: &Plane, namespaces: &[&str]) -> Watched {
    let scope = WatchScope::Namespaces(namespaces.iter().map(|name| (*name).to_owned()).collect());
    let watched = start(plane, User::Kubervisor, &scope).await;
    let waited = tokio::time::timeout(Duration::from_secs(60), watched.cluster.until_synced()).await;
    assert!(waited.is_ok(), "{:?}", watched.cluster.synced());
    watched
}

/// Applies the CustomResourceDefinition and waits until it is established.
fn define(plane: &Plane) {
    let definition = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/kubervisorservices.yaml");
    let definition = std::fs::read_to_string(definition).unwrap();
    apply(plane, "default", &definition);
    let name = "crd/kubervisorservices.kubervisor.k8s.io";
    let wait = ["wait", "--for=condition=Established", name, "--timeout=60s"];
    assert!(plane.kubectl(User::Admin, &wait, "").status.success());
}

fn apply(plane: &Plane, namespace: &str, manifest: &str) {
    let arguments = ["apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", "-"];
    let applied = plane.kubectl(User::Admin, &arguments, manifest);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
}

/// A Deployment and a Service, both `web`.
fn web(replicas: u32) -> String {
    let labels = json!({"app": "web", "kubervisor/traffic": "yes"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            },
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": labels, "ports": [{"port": 80}]},
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]}).to_string()
}

fn fleet() -> Selector {
    Selector::new([("app", "web")])
}
