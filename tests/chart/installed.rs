//! Install, upgrade and uninstall by the real Helm on the plane. Its stand-in kubelet runs no image, so a controller of the
//! test works in the place of the chart's; tests/node has the image.

use std::{fs, path::Path, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::ListParams};
use serde_json::Value;

use crate::{
    controller::{self, Controller},
    helm::{chart, program, run},
    plane::{self, Alone, User, until},
    shop::{self, Shop},
    signals::Signals,
};

/// Helm on the plane: it has to succeed.
#[track_caller]
fn helm(plane: &Alone, arguments: &[&str]) -> String {
    let done = run(program(), arguments, Some(&plane.kubeconfig(User::Admin)));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "helm {arguments:?}: {said}");
    String::from_utf8(done.stdout).unwrap()
}

/// Installs or upgrades the release, and waits for it.
#[track_caller]
fn deploy(plane: &Alone, verb: &str, chart: &str) {
    let release = [verb, "kubervisor", chart, "--namespace", "upgrade-release"];
    // The plane has a ClusterRole `kubervisor` of its own.
    let named = ["--set", "fullnameOverride=gate", "--wait", "--timeout", "60s"];
    let create: &[&str] = if verb == "install" { &["--create-namespace"] } else { &[] };
    helm(plane, &[&release[..], &named[..], create].concat());
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copied(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}

/// The chart as one of an older version: its definition lacks a field of the spec.
fn older(directory: &Path) -> String {
    copied(&chart(), directory);
    let path = directory.join("files/kubervisorservices.yaml");
    let mut definition: Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let fields = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    fields.as_object_mut().unwrap().remove("keepOnePerNode").unwrap();
    let text = serde_json::to_string(&definition).unwrap();
    let keep = r#""annotations":{"helm.sh/resource-policy":"keep","#;
    fs::write(path, text.replace(r#""annotations":{"#, keep)).unwrap();
    directory.display().to_string()
}

async fn withheld(shop: &Shop) -> Vec<String> {
    let label = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.metadata.labels.as_ref().and_then(|labels| labels.get("kubervisor/traffic").cloned())
    };
    let pods = shop.pods().await.unwrap().into_iter();
    pods.filter(|pod| label(pod).as_deref() == Some("no")).filter_map(|pod| pod.metadata.name).collect()
}

/// The definition's fields of the spec, and the objects that Helm keeps.
async fn has_field(plane: &Alone, field: &str) -> bool {
    let read =
        plane.kubectl(User::Admin, &["get", "crd", "kubervisorservices.kubervisor.k8s.io", "-o", "json"], "");
    let definition: Value = serde_json::from_slice(&read.stdout).unwrap_or_default();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][field]
        .is_object()
}

/// A fleet of three whose breaker has withheld one.
async fn with_one_withheld(plane: &Alone, signals: &Signals) -> (Shop, Controller) {
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "upgrade").await;
    let shop = shop::Recipe::of("web", 3)
        .breaker("slow", &signals.service("bad"), 50)
        .apply(plane, &client, &namespace)
        .await;
    let controller =
        controller::Recipe::with_kubeconfig(plane.kubeconfig(User::Kubervisor)).namespace(&namespace).start();
    controller.ready().await;
    let chosen = shop.names().await.unwrap().swap_remove(0);
    signals.bad("bad", &namespace, [chosen]);
    until("one is withheld", || async { (withheld(&shop).await.len() == 1).then_some(()) }).await;
    (shop, controller)
}

#[tokio::test]
async fn an_upgrade_of_the_definition_moves_no_traffic_and_an_uninstall_keeps_definition_and_resources() {
    let plane = plane::alone().await;
    let (directory, signals) = (tempfile::tempdir().unwrap(), Arc::new(Signals::start()));
    let (old, new) = (older(directory.path()), chart().display().to_string());
    let name = "crd/kubervisorservices.kubervisor.k8s.io";
    plane.kubectl(User::Admin, &["delete", name, "--ignore-not-found", "--wait"], "");
    deploy(&plane, "install", &old);
    plane.kubectl(User::Admin, &["wait", "--for=condition=Established", name, "--timeout=60s"], "");
    assert!(!has_field(&plane, "keepOnePerNode").await, "an older definition");
    let (shop, _controller) = with_one_withheld(&plane, &signals).await;
    let before = (withheld(&shop).await, shop.endpoints().await.unwrap().len());
    let writes = || {
        let events = plane.audit(&shop.namespace).into_iter();
        let writes =
            events.filter(|event| event["objectRef"]["resource"] == "pods" && event["verb"] == "patch");
        writes.filter(|event| event["stage"] == "ResponseComplete").count()
    };
    let written = writes();
    let asked = signals.asked("bad");
    deploy(&plane, "upgrade", &new);
    assert!(has_field(&plane, "keepOnePerNode").await, "the upgrade brings the definition");
    until("it is judged on", || async { (signals.asked("bad") > asked + 4).then_some(()) }).await;
    assert_eq!(
        (withheld(&shop).await, shop.endpoints().await.unwrap().len()),
        before,
        "nobody gets or loses traffic"
    );
    assert_eq!(writes(), written, "no pod was written");
    assert_eq!(shop.entries().await, Some(1), "the ledger is the same");

    let secrets = Api::<Secret>::namespaced(shop.client.clone(), "upgrade-release");
    for secret in secrets.list(&ListParams::default().labels("owner=helm")).await.unwrap() {
        let size = secret.data.unwrap()["release"].0.len();
        assert!(size < 1 << 20, "the release has {size} bytes; etcd takes 1 MiB");
    }
    helm(&plane, &["uninstall", "kubervisor", "--namespace", "upgrade-release", "--no-hooks", "--wait"]);
    assert!(has_field(&plane, "keepOnePerNode").await, "the definition stays");
    assert!(shop.resource().await.is_ok(), "and so do the resources");
    // The same release comes back to the definition that it left.
    deploy(&plane, "install", &new);
    let other = run(
        program(),
        &[
            "install",
            "second",
            &new,
            "--namespace",
            "second",
            "--create-namespace",
            "--set",
            "crds.install=false",
        ],
        Some(&plane.kubeconfig(User::Admin)),
    );
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains("upgrade-release/gate") && said.contains("disjoint lists"), "{said}");
    helm(&plane, &["uninstall", "kubervisor", "--namespace", "upgrade-release", "--no-hooks", "--wait"]);
    // The other tests apply it with kubectl.
    plane.kubectl(User::Admin, &["delete", name, "--wait", "--timeout=60s"], "");
    shop::install(&plane);
}

/// What Helm says when an install with these values is refused, in a namespace that is there.
fn refused(plane: &Alone, namespace: &str, values: &[&str]) -> String {
    let chart = chart().display().to_string();
    let mut arguments = vec!["install", "refused", &chart, "--namespace", namespace];
    arguments.extend(values.iter().flat_map(|value| ["--set-json", value]));
    let done = run(program(), &arguments, Some(&plane.kubeconfig(User::Admin)));
    assert!(!done.status.success(), "{values:?} are installed");
    String::from_utf8(done.stderr).unwrap()
}

#[tokio::test]
async fn a_scope_with_a_namespace_that_does_not_exist_is_refused_with_the_command_that_makes_it() {
    let plane = plane::alone().await;
    plane.kubectl(User::Admin, &["create", "namespace", "scope-there"], "");
    let own_fields = ["fullnameOverride=\"scoped\"", "crds.install=false"];
    let values = [&own_fields[..], &["namespaces=[\"scope-there\",\"scope-absent\"]"]].concat();
    let said = refused(&plane, "scope-there", &values);
    assert!(said.contains("kubectl create namespace scope-absent"), "{said}");
    let made =
        plane.kubectl(User::Admin, &["get", "roles,deployments", "-n", "scope-there", "-o", "name"], "");
    assert_eq!(String::from_utf8_lossy(&made.stdout), "", "nothing of the release was made");
}

#[tokio::test]
async fn a_cluster_without_the_prometheus_operator_refuses_its_kinds_before_anything_is_made() {
    let plane = plane::alone().await;
    plane.kubectl(User::Admin, &["create", "namespace", "monitoring-absent"], "");
    for value in
        ["metrics.serviceMonitor.enabled", "metrics.podMonitor.enabled", "metrics.prometheusRule.enabled"]
    {
        let said = refused(&plane, "monitoring-absent", &[&format!("{value}=true"), "crds.install=false"]);
        assert!(said.contains(&format!("set {value} to false")), "{said}");
    }
    let made = plane.kubectl(User::Admin, &["get", "all", "-n", "monitoring-absent", "-o", "name"], "");
    assert_eq!(String::from_utf8_lossy(&made.stdout), "", "nothing of the release was made");
}

#[tokio::test]
async fn the_notes_say_the_scope_and_the_next_two_commands() {
    let plane = plane::alone().await;
    let chart = chart().display().to_string();
    for (values, expected) in [
        (
            &[][..],
            ["works on all namespaces.", "2. Gate a Service", "kubectl wait --for=condition=Ready kvs/NAME"],
        ),
        (
            &["--set", "dryRun=true"],
            ["changes no pod (dryRun)", "(WouldWithhold)", "--reuse-values --set dryRun=false"],
        ),
        (
            &["--set", "namespaces={default}", "--set", "release.enabled=false"],
            ["works on default.", "2. Gate a Service", "kubectl patch service NAME"],
        ),
    ] {
        let install = ["install", "noted", &chart, "--namespace", "default", "--dry-run=server"];
        let named = ["--set", "fullnameOverride=noted", "--set", "crds.install=false"];
        let said = helm(&plane, &[&install[..], &named[..], values].concat());
        let notes = said.split_once("NOTES:").unwrap().1;
        for words in expected.into_iter().chain(["helm test noted --namespace default --logs"]) {
            assert!(notes.contains(words), "{words}: {notes}");
        }
        let keeps = !values.contains(&"release.enabled=false");
        assert_eq!(notes.contains("helm uninstall gives all traffic back first"), keeps, "{notes}");
    }
}
