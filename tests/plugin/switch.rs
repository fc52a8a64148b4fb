//! The switch in the Service's selector.

use serde_json::{Value, json};

use crate::{
    fixture::{apply, conditions, err, install, kubervisor, out, resource},
    plane::{self, Plane, User},
};

fn selector(plane: &Plane, namespace: &str) -> Value {
    let get = ["get", "service", "front", "-n", namespace, "-o", "jsonpath={.spec.selector}"];
    serde_json::from_str(&out(&plane.kubectl(User::Admin, &get, ""))).unwrap()
}

async fn ready(plane: &Plane, namespace: &str, ready: &str) {
    let mut status =
        json!({"conditions": conditions(&[("Ready", ready, "AllPodsClaimed")]), "selector": {"app": "web"}});
    status["observedGeneration"] = json!(1);
    resource(plane, namespace, "web", &status).await;
}

#[tokio::test]
async fn the_switch_is_put_in_only_when_the_resource_is_ready_and_no_pod_goes_dark() {
    let plane = plane::shared().await;
    install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "switch").await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    });
    apply(&plane, &namespace, &service);
    let run =
        |arguments: &[&str]| kubervisor(&plane, User::Admin, &[arguments, &["-n", &namespace]].concat());
    ready(&plane, &namespace, "False").await;
    let early = run(&["enable", "web"]);
    assert_eq!(early.status.code(), Some(1));
    assert!(err(&early).contains("not ready to decide about traffic"), "{}", err(&early));
    ready(&plane, &namespace, "True").await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    apply(&plane, &namespace, &pod);
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}).to_string();
    let patch = ["patch", "pod", "web-1", "-n", &namespace, "--subresource", "status", "-p", &status];
    out(&plane.kubectl(User::Admin, &patch, ""));
    let dark = run(&["enable", "kvs/web"]);
    assert_eq!(dark.status.code(), Some(1));
    assert!(
        err(&dark).contains("1 pods would lose their traffic") && err(&dark).contains("web-1"),
        "{}",
        err(&dark)
    );
    let label = ["label", "pod", "web-1", "kubervisor/traffic=yes", "-n", &namespace];
    out(&plane.kubectl(User::Admin, &label, ""));
    let dry = out(&run(&["enable", "web", "--dry-run"]));
    assert!(dry.contains("gains kubervisor/traffic: \"yes\"") && dry.contains("dry run"), "{dry}");
    assert_eq!(selector(&plane, &namespace), json!({"app": "web"}));
    out(&run(&["enable", "web"]));
    assert_eq!(selector(&plane, &namespace), json!({"app": "web", "kubervisor/traffic": "yes"}));
    assert!(out(&run(&["enable", "web"])).contains("already"));
    assert!(out(&run(&["disable", "web"])).contains("every pod gets traffic"));
    assert_eq!(selector(&plane, &namespace), json!({"app": "web"}));
    assert!(out(&run(&["disable", "web"])).contains("has no kubervisor/traffic"));
    let nobody = kubervisor(&plane, User::Nobody, &["disable", "web", "-n", &namespace]);
    assert_eq!(nobody.status.code(), Some(1));
}
