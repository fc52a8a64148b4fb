//! The plane behaves as a cluster: Deployments, EndpointSlices, guarded patches, rights.

use axum::http::{Request, header::CONTENT_TYPE};
use futures::future::join_all;
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::plane::{self, Plane, User, until};

/// A Deployment and a Service of the same name whose selector has the traffic key.
fn fleet(name: &str, replicas: u32) -> String {
    let labels = json!({"app": name, "kubervisor/traffic": "yes"});
    let container = json!({"name": "app", "image": "app"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": labels, "ports": [{"port": 80}]},
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]}).to_string()
}

/// Applies the fleet `web` and waits until all its pods are ready in the EndpointSlice.
pub(super) async fn web(plane: &Plane, client: &Client, namespace: &str, replicas: u32) {
    let applied = plane.kubectl(User::Admin, &["apply", "-n", namespace, "-f", "-"], &fleet("web", replicas));
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let wanted = replicas as usize;
    let what = format!("{replicas} pods of {namespace} are ready");
    until(&what, || async { (ready(client, namespace).await?.len() == wanted).then_some(()) }).await;
}

/// The names of the pods that the EndpointSlices of `web` show as ready; `None` when the request fails.
pub(super) async fn ready(client: &Client, namespace: &str) -> Option<Vec<String>> {
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
    let mine = ListParams::default().labels("kubernetes.io/service-name=web");
    let endpoints = slices.list(&mine).await.ok()?.items.into_iter().flat_map(|slice| slice.endpoints);
    let ready = endpoints.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
    Some(ready.filter_map(|endpoint| endpoint.target_ref?.name).collect())
}

#[tokio::test]
async fn a_deployment_becomes_ready_and_a_label_takes_a_pod_out_of_its_slice() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "labels").await;
    web(&plane, &client, &namespace, 3).await;
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let chosen = ready(&client, &namespace).await.unwrap().pop().unwrap();
    let no = Patch::Merge(json!({"metadata": {"labels": {"kubervisor/traffic": "no"}}}));
    pods.patch(&chosen, &PatchParams::default(), &no).await.unwrap();
    let (_, took) = until("the slice is without the pod", || async {
        let ready = ready(&client, &namespace).await?;
        (ready.len() == 2 && !ready.contains(&chosen)).then_some(())
    })
    .await;
    println!("label changed -> out of the EndpointSlice: {} ms", took.as_millis());
    let pod = pods.get(&chosen).await.unwrap();
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Running"), "it lives on");
}

/// The status code of one JSON Patch.
async fn json_patch(client: &Client, path: &str, patch: &Value) -> u16 {
    let request = Request::patch(path)
        .header(CONTENT_TYPE, "application/json-patch+json")
        .body(serde_json::to_vec(patch).unwrap())
        .unwrap();
    match client.request::<Value>(request).await {
        Ok(_) => 200,
        Err(kube::Error::Api(refusal)) => refusal.code,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn of_sixteen_patches_with_the_same_test_one_wins() {
    let plane = plane::shared().await;
    let client = plane.client(User::Kubervisor).await;
    let admin = plane.client(User::Admin).await;
    let namespace = plane.namespace(&admin, "patches").await;
    web(&plane, &admin, &namespace, 1).await;
    let pod = ready(&admin, &namespace).await.unwrap().pop().unwrap();
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
    for round in 0..10 {
        let (from, to) = if round % 2 == 0 { ("yes", "no") } else { ("no", "yes") };
        let label = "/metadata/labels/kubervisor~1traffic";
        let patch = json!([
            {"op": "test", "path": label, "value": from}, {"op": "replace", "path": label, "value": to},
        ]);
        let mut codes = join_all((0..16).map(|_| json_patch(&client, &path, &patch))).await;
        codes.sort_unstable();
        assert_eq!(codes[0], 200, "round {round}: one wins: {codes:?}");
        assert!(codes[1..].iter().all(|code| *code == 422), "round {round}: the others lose: {codes:?}");
    }
    let patches = until("the audit log has all patches", || async {
        let patches: Vec<Value> =
            plane.audit(&namespace).into_iter().filter(|event| event["verb"] == "patch").collect();
        let ours = patches.into_iter().filter(|event| event["user"]["username"] == "kubervisor");
        Some(ours.collect::<Vec<_>>()).filter(|ours| ours.len() >= 160)
    });
    let (patches, _) = patches.await;
    let won = patches.iter().filter(|event| event["responseStatus"]["code"] == 200);
    assert_eq!((patches.len(), won.count()), (160, 10), "by the audit log, too");
    assert!(patches[0]["requestObject"].is_array(), "the audit log has the patches");
}

#[tokio::test]
async fn the_controllers_user_may_do_what_it_needs_and_no_more() {
    let plane = plane::shared().await;
    let may = |verb: &str, what: &str| {
        let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
        let subresource = format!("--subresource={subresource}");
        let question = ["auth", "can-i", verb, resource, &subresource, "-n", "default"];
        let answer = String::from_utf8(plane.kubectl(User::Kubervisor, &question, "").stdout).unwrap();
        assert!(["yes", "no"].contains(&answer.trim()), "{verb} {what}: {answer}");
        answer.trim() == "yes"
    };
    for (verb, what) in [
        ("patch", "pods"),
        ("create", "pods/eviction"),
        ("watch", "endpointslices.discovery.k8s.io"),
        ("list", "horizontalpodautoscalers.autoscaling"),
        ("get", "secrets"),
    ] {
        assert!(may(verb, what), "{verb} {what}");
    }
    for (verb, what) in [
        ("delete", "pods"),
        ("update", "pods"),
        ("patch", "pods/status"),
        ("list", "secrets"),
        ("patch", "services"),
    ] {
        assert!(!may(verb, what), "{verb} {what}");
    }
}

#[tokio::test]
async fn a_pod_is_as_ready_as_a_test_wants_it() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "unready").await;
    web(&plane, &client, &namespace, 2).await;
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let chosen = ready(&client, &namespace).await.unwrap().pop().unwrap();
    for (annotation, left) in [(json!("true"), 1), (Value::Null, 2)] {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"stand-in/unready": annotation}}}));
        pods.patch(&chosen, &PatchParams::default(), &patch).await.unwrap();
        until("the slice follows", || async {
            (ready(&client, &namespace).await?.len() == left).then_some(())
        })
        .await;
    }
    // A deleted pod is replaced by its owner.
    pods.delete(&chosen, &kube::api::DeleteParams::default()).await.unwrap();
    until("another took its place", || async {
        let ready = ready(&client, &namespace).await?;
        (ready.len() == 2 && !ready.contains(&chosen)).then_some(())
    })
    .await;
}
