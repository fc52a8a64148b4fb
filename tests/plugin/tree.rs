//! A resource with its Service, its breakers and their pods.

use serde_json::{Value, json};

use crate::{
    fixture::{apply, conditions, err, install, kubervisor, out, resource},
    plane::{self, Plane, User},
};

fn pod(plane: &Plane, namespace: &str, name: &str, traffic: &str) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web", "kubervisor/traffic": traffic, "kubervisor/name": "web"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    apply(plane, namespace, &pod);
    let uid = ["get", "pod", name, "-n", namespace, "-o", "jsonpath={.metadata.uid}"];
    out(&plane.kubectl(User::Admin, &uid, ""))
}

/// A gated Service, one withheld pod, one other pod.
async fn shop(plane: &Plane, hint: &str) -> String {
    install(plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, hint).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"},
        "spec": {"selector": {"app": "web", "kubervisor/traffic": "yes"}, "ports": [{"port": 80}]},
    });
    apply(plane, &namespace, &service);
    let uid = pod(plane, &namespace, "web-1", "no");
    pod(plane, &namespace, "web-2", "yes");
    let status = json!({
        "conditions": conditions(&[("Ready", "True", "Serving")]),
        "floor": 1, "serving": 1, "podCount": {"nbPodsManaged": 2}, "selector": {"app": "web"},
        "explanations": [{
            "uid": uid, "name": "web-1", "standing": "withheld", "breaker": "codes", "why": "silent for 12 s, at most 9 s",
            "decision": "withheld until its time is over", "since": "2026-01-02T03:04:05Z", "retryCount": 2,
            "next": "admitted again at 2096-01-02T03:04:25Z",
        }],
    });
    resource(plane, &namespace, "web", &status).await;
    namespace
}

#[tokio::test]
async fn a_tree_shows_each_pod_below_its_breaker_with_value_and_next_step() {
    let plane = plane::shared().await;
    let namespace = shop(&plane, "tree").await;
    let tree = out(&kubervisor(&plane, User::Admin, &["tree", "kvs/web", "-n", &namespace]));
    let lines: Vec<Vec<&str>> = tree.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["service/front", "gated"], "{tree}");
    assert_eq!(lines[1][..3], ["└─", "kubervisorservice/web", "Ready"], "{tree}");
    assert!(tree.contains("1 of 2 serve, floor 1: 0 more may be withheld"), "{tree}");
    assert_eq!(lines[2][..4], ["├─", "breaker/codes", "1", "bad"], "{tree}");
    assert_eq!(lines[3][..4], ["│", "└─", "pod/web-1", "withheld"], "{tree}");
    assert!(tree.contains("silent for 12 s, at most 9 s; admitted again in 2"), "{tree}");
    assert!(lines.iter().any(|line| line.contains(&"pod/web-2")), "{tree}");
    let same = kubervisor(&plane, User::Admin, &["get", "web", "-n", &namespace, "-o", "json"]);
    let json: Value = serde_json::from_str(&out(&same)).unwrap();
    assert_eq!(json["breakers"][0]["pods"][0]["name"], "web-1");
    assert_eq!(json["service"], json!({"name": "front", "gated": true}));
    let names = out(&kubervisor(&plane, User::Admin, &["tree", "web", "-n", &namespace, "-o", "name"]));
    for name in names.lines() {
        out(&plane.kubectl(User::Admin, &["get", name, "-n", &namespace], ""));
    }
}

#[tokio::test]
async fn what_may_not_be_read_is_a_note_and_the_rest_is_shown() {
    let plane = plane::shared().await;
    let namespace = shop(&plane, "notes").await;
    let role = json!({
        "apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
             "rules": [{"apiGroups": ["kubervisor.k8s.io"], "resources": ["kubervisorservices"], "verbs": ["get"]}]},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader"},
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
             "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "reader"}]},
        ],
    });
    apply(&plane, &namespace, &role);
    let arguments = ["tree", "web", "-n", &namespace, "--as", "reader"];
    let tree = out(&kubervisor(&plane, User::Admin, &arguments));
    assert!(tree.contains("service/front") && tree.contains("unknown"), "{tree}");
    assert!(tree.contains("note: the pods are not shown (forbidden)"), "{tree}");
    let missing = kubervisor(&plane, User::Admin, &["tree", "shop", "-n", &namespace]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(err(&missing).contains("no KubervisorService shop"), "{}", err(&missing));
}
