//! The story of a pod.

use axum::http::{Request, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::{
    fixture::{apply, conditions, err, install, kubervisor, out, resource},
    plane::{self, Plane, User},
};

/// A pod that is withheld; its UID.
fn pod(plane: &Plane, namespace: &str, name: &str) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "web", "kubervisor/traffic": "no", "kubervisor/name": "web", "kubervisor/strategy": "codes"},
            "annotations": {"breaker/breakAt": "2026-01-02T03:04:05Z", "breaker/retryCount": "2"},
        },
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    apply(plane, namespace, &pod);
    out(&plane.kubectl(
        User::Admin,
        &["get", "pod", name, "-n", namespace, "-o", "jsonpath={.metadata.uid}"],
        "",
    ))
}

/// As the controller reports: by the events API of today.
async fn event(plane: &Plane, namespace: &str, pod: &str, uid: &str) {
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": format!("{pod}.1")},
        "eventTime": "2026-01-02T03:04:05.000000Z", "type": "Normal", "reason": "Withheld", "action": "Withhold",
        "reportingController": "kubervisor", "reportingInstance": "kubervisor-1",
        "note": "codes: 80 % of its answers are 5xx, at most 50 % may be",
        "regarding": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod, "uid": uid},
    });
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let post = Request::post(path).header(CONTENT_TYPE, "application/json");
    let controller = plane.client(User::Kubervisor).await;
    controller.request::<Value>(post.body(event.to_string().into_bytes()).unwrap()).await.unwrap();
}

fn status(uid: &str, name: &str) -> Value {
    json!({
        "conditions": conditions(&[("Ready", "True", "Serving"), ("FloorReached", "True", "FloorReached")]),
        "floor": 5, "selector": {"app": "web"}, "serving": 5, "podCount": {"nbPodsManaged": 7, "nbPodsBreaked": 2},
        "explanations": [{
            "uid": uid, "name": name, "standing": "withheld", "breaker": "codes",
            "why": "80 % of its answers are 5xx, at most 50 % may be", "decision": "its period is not over",
            "since": "2026-01-02T03:04:05Z", "retryCount": 2,
            "next": {"what": "serving", "at": "2026-01-02T03:04:25Z"},
        }],
    })
}

#[tokio::test]
async fn a_withheld_pod_is_explained_with_rule_numbers_next_step_and_events() {
    let plane = plane::shared().await;
    install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "story").await;
    let uid = pod(&plane, &namespace, "web-1");
    resource(&plane, &namespace, "web", &status(&uid, "web-1")).await;
    event(&plane, &namespace, "web-1", &uid).await;
    let story = out(&kubervisor(&plane, User::Admin, &["explain", "web-1", "-n", &namespace]));
    let expected = [
        &format!("pod       {namespace}/web-1"),
        "service   web (Ready)",
        "traffic   no",
        "standing  withheld",
        "decision  its period is not over",
        "breaker   codes",
        "why       80 % of its answers are 5xx, at most 50 % may be",
        "since     2026-01-02T03:04:05.000Z",
        "retries   2",
        "floor     5 serve - floor 5 = 0 more may be withheld",
        "next      serving at 2026-01-02T03:04:25.000Z",
        "note      FloorReached is True: FloorReached, in full",
        "events",
        "  2026-01-02T03:04:05.000Z  Withheld  codes: 80 % of its answers are 5xx, at most 50 % may be",
    ];
    // The scheduler and the kubelet have their own events.
    let ours: Vec<_> =
        story.lines().filter(|line| !line.starts_with("  ") || line.contains("Withheld")).collect();
    assert_eq!(ours, expected, "{story}");
    let json =
        out(&kubervisor(&plane, User::Admin, &["explain", "pod/web-1", "-n", &namespace, "-o", "json"]));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["kubervisorService"], &json["uid"]), (&json!("web"), &json!(uid)));
    assert_eq!(json["next"], json!({"what": "serving", "at": "2026-01-02T03:04:25.000Z"}));
    let yaml = out(&kubervisor(&plane, User::Admin, &["explain", "web-1", "-n", &namespace, "-o", "yaml"]));
    let yaml: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!((&yaml["traffic"], &yaml["standing"]), (&json!("no"), &json!("withheld")), "no boolean");
}

#[tokio::test]
async fn a_pod_that_is_gone_is_shown_as_long_as_the_status_names_it() {
    let plane = plane::shared().await;
    install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "gone").await;
    resource(&plane, &namespace, "web", &status("some-uid", "web-9")).await;
    let story = out(&kubervisor(&plane, User::Admin, &["explain", "web-9", "-n", &namespace]));
    assert!(story.contains("the pod is gone") && story.contains("breaker   codes"), "{story}");
    let nobody = kubervisor(&plane, User::Admin, &["explain", "web-8", "-n", &namespace]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(err(&nobody).contains(&format!("no pod web-8 in namespace {namespace}")), "{}", err(&nobody));
}

#[tokio::test]
async fn a_pod_that_no_resource_selects_is_shown_so() {
    let plane = plane::shared().await;
    install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "alone").await;
    pod(&plane, &namespace, "web-1");
    let labels = ["label", "pod", "web-1", "-n", &namespace, "kubervisor/name-"];
    out(&plane.kubectl(User::Admin, &labels, ""));
    let story = out(&kubervisor(&plane, User::Admin, &["explain", "web-1", "-n", &namespace]));
    assert!(story.contains("note      no KubervisorService of this namespace selects it\n"), "{story}");
    assert!(story.contains("standing  withheld\n") && story.contains("retries   2\n"), "{story}");
}

#[tokio::test]
async fn without_the_right_to_list_events_the_rest_is_shown() {
    let plane = plane::shared().await;
    install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "deaf").await;
    let uid = pod(&plane, &namespace, "web-1");
    resource(&plane, &namespace, "web", &status(&uid, "web-1")).await;
    // The controller's own account writes events and may not list them.
    let story = out(&kubervisor(&plane, User::Kubervisor, &["explain", "web-1", "-n", &namespace]));
    assert!(story.contains("standing  withheld\n"), "{story}");
    assert!(story.contains("note      no events (forbidden): you may not read events"), "{story}");
}
