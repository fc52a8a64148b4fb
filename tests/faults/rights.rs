//! A right is missing (fault 12): for each verb that a controller needs, the resource's condition names it, nothing is
//! withheld, and once it is given back, work goes on.

use std::time::Duration;

use futures::{StreamExt, stream};
use serde_json::{Value, json};

use crate::{
    controller,
    plane::{self, Plane, User, until},
    stage::{Stage, recipe},
};

const AT_ONCE: usize = 3;

/// API group, resource, verbs: all that a controller needs.
const RIGHTS: &[(&str, &str, &[&str])] = &[
    ("", "pods", &["get", "list", "watch", "patch"]),
    ("", "pods/eviction", &["create"]),
    ("", "services", &["get", "list", "watch"]),
    ("", "secrets", &["get"]),
    ("discovery.k8s.io", "endpointslices", &["get", "list", "watch"]),
    ("apps", "deployments", &["get", "list", "watch"]),
    ("apps", "replicasets", &["get", "list", "watch"]),
    ("apps", "statefulsets", &["get", "list", "watch"]),
    ("apps", "daemonsets", &["get", "list"]),
    ("batch", "jobs", &["get", "list"]),
    ("*", "*/scale", &["get"]),
    ("autoscaling", "horizontalpodautoscalers", &["get", "list", "watch"]),
    ("kubervisor.k8s.io", "kubervisorservices", &["get", "list", "watch", "patch"]),
    ("kubervisor.k8s.io", "kubervisorservices/status", &["update"]),
    ("events.k8s.io", "events", &["create", "patch"]),
];

/// Verb and resource.
type Right = (&'static str, &'static str);

/// Those without which nothing can be withheld, and that the status can tell of.
const TOLD: &[Right] = &[
    ("patch", "pods"),
    ("list", "pods"),
    ("watch", "pods"),
    ("watch", "services"),
    ("watch", "endpointslices"),
    ("watch", "deployments"),
    ("watch", "replicasets"),
    ("watch", "statefulsets"),
    ("watch", "horizontalpodautoscalers"),
    ("list", "horizontalpodautoscalers"),
    ("get", "deployments"),
    ("get", "kubervisorservices"),
    ("patch", "kubervisorservices"),
];

/// The user who has no rights gets all of these in the namespace, but for one.
fn grant(plane: &Plane, namespace: &str, without: Option<Right>) {
    let rules: Vec<Value> = RIGHTS
        .iter()
        .map(|(group, resource, verbs)| {
            let left = verbs.iter().filter(|verb| without != Some((**verb, *resource)));
            json!({"apiGroups": [group], "resources": [resource], "verbs": left.collect::<Vec<_>>()})
        })
        .filter(|rule| rule["verbs"] != json!([]))
        .collect();
    let metadata = json!({"name": "controller", "namespace": namespace});
    let api = "rbac.authorization.k8s.io";
    let role =
        json!({"apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": metadata, "rules": rules});
    let binding = json!({
        "apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": api, "kind": "Role", "name": "controller"},
        "subjects": [{"apiGroup": api, "kind": "User", "name": User::Nobody.name()}],
    });
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [role, binding]}).to_string();
    let done = plane.kubectl(User::Admin, &["apply", "-f", "-"], &both);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A controller that begins with all rights but that one.
async fn without(plane: &Plane, right: Option<Right>) -> Stage {
    let hint =
        right.map_or("all".to_owned(), |(verb, resource)| format!("{verb}-{}", resource.replace('/', "-")));
    Stage::with(plane, &hint, plane.kubeconfig(User::Nobody), |signals, namespace| {
        grant(plane, namespace, right);
        recipe(signals)
    })
    .await
}

async fn missing_and_given_back(plane: &Plane, right: Right) {
    let (verb, resource) = right;
    let stage = without(plane, Some(right)).await;
    let first = stage.pods[0].clone();
    stage.bad(&[&first]);
    let said = stage.has_condition("Forbidden", &[verb, resource]).await;
    println!("{verb} {resource}: {said}");
    let named = format!("may not {verb} {resource}:");
    assert!(said.contains(&named), "{said}");
    assert!(stage.condition("Ready").await.unwrap().starts_with("False"));
    stage.nothing_is_withheld_for(Duration::from_millis(500)).await;
    grant(plane, &stage.namespace, None);
    let took = stage.says(&first, "no").await;
    stage.lacks_condition("Forbidden").await;
    println!("{verb} {resource}: given back -> withheld: {took:?}");
    stage.recover().await;
}

#[tokio::test]
async fn a_condition_names_each_right_that_is_missing_and_given_back_it_is_used() {
    let plane = plane::shared().await;
    let all = stream::iter(TOLD).map(|right| missing_and_given_back(&plane, *right));
    all.buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
}

#[tokio::test]
async fn without_the_right_to_write_the_status_the_log_the_metric_and_ready_say_so() {
    let plane = plane::shared().await;
    let right = ("update", "kubervisorservices/status");
    let stage = without(&plane, Some(right)).await;
    let first = stage.pods[0].clone();
    stage.bad(&[&first]);
    let (said, _) = until("/ready says why", || async {
        let (code, said) = stage.controller.get("/ready").await.ok()?;
        (code == 503 && said.contains("update kubervisorservices/status")).then_some(said)
    })
    .await;
    println!("{said}");
    assert!(stage.controller.log().contains("update kubervisorservices/status"));
    let (_, metrics) = stage.controller.get("/metrics").await.unwrap();
    assert!(metrics.contains(r#"alarm{reason="status_forbidden"} 1"#), "{metrics}");
    stage.nothing_is_withheld_for(Duration::from_secs(1)).await;
    grant(&plane, &stage.namespace, None);
    stage.says(&first, "no").await;
    stage.controller.ready().await;
    stage.recover().await;
}

#[tokio::test]
async fn without_the_right_to_see_its_resources_ready_names_it() {
    let plane = plane::shared().await;
    let stage = without(&plane, Some(("watch", "kubervisorservices"))).await;
    stage.bad(&[&stage.pods[0]]);
    until("/ready says why", || async {
        let (code, said) = stage.controller.get("/ready").await.ok()?;
        (code == 503 && said.contains("cannot watch kubervisorservices")).then_some(())
    })
    .await;
    grant(&plane, &stage.namespace, None);
    stage.says(&stage.pods[0], "no").await;
    stage.recover().await;
}

#[tokio::test]
async fn a_right_taken_away_at_work_is_named_and_cuts_stay_until_it_is_back() {
    let plane = plane::shared().await;
    let stage = without(&plane, None).await;
    let [first, second] = [stage.pods[0].clone(), stage.pods[1].clone()];
    stage.withhold(&first).await;
    grant(&plane, &stage.namespace, Some(("patch", "pods")));
    stage.bad(&[&first, &second]);
    stage.has_condition("Forbidden", &["may not patch pods:"]).await;
    assert_eq!(stage.saying("no").await, std::slice::from_ref(&first));
    grant(&plane, &stage.namespace, None);
    stage.says(&second, "no").await;
    stage.lacks_condition("Forbidden").await;
    stage.recover().await;
}

#[tokio::test]
async fn without_the_right_to_tell_events_everything_else_goes_on_and_it_is_counted() {
    let plane = plane::shared().await;
    let stage = without(&plane, Some(("create", "events"))).await;
    stage.withhold(&stage.pods[0]).await;
    until("it is counted", || async {
        let (_, metrics) = stage.controller.get("/metrics").await.ok()?;
        metrics.contains(r#"outcome="forbidden""#).then_some(())
    })
    .await;
    stage.recover().await;
}

#[tokio::test]
async fn without_the_right_to_evict_a_pod_that_is_to_end_stays_withheld_and_the_condition_says_why() {
    let plane = plane::shared().await;
    let stage = Stage::with(&plane, "evict", plane.kubeconfig(User::Nobody), |signals, namespace| {
        grant(&plane, namespace, Some(("create", "pods/eviction")));
        let activator = json!({"mode": "retryAndKill", "period": 1, "maxPeriod": 1, "maxRetryCount": 1, "maxKillsPerHour": 9});
        recipe(signals).spec("defaultActivator", activator)
    })
    .await;
    let [first, second] = [stage.pods[0].clone(), stage.pods[1].clone()];
    stage.withhold(&first).await;
    stage.bad(&[]);
    stage.says(&first, "yes").await;
    // Once too often.
    stage.bad(&[&first]);
    stage.has_condition("Forbidden", &["may not create pods/eviction:"]).await;
    assert_eq!(stage.saying("no").await, std::slice::from_ref(&first));
    stage.bad(&[&first, &second]);
    stage.says(&second, "no").await;
    stage.bad(&[&first]);
    grant(&plane, &stage.namespace, None);
    until("it is evicted", || async { (!stage.shop.names().await.ok()?.contains(&first)).then_some(()) })
        .await;
    stage.recover().await;
    stage.lacks_condition("Forbidden").await;
}

#[tokio::test]
async fn a_namespace_without_rights_is_named_and_the_other_one_does_not_wait_for_it() {
    let plane = plane::shared().await;
    let mut stage = without(&plane, None).await;
    let other = plane.namespace(&stage.client, "unseen").await;
    let both = controller::Recipe::with_kubeconfig(plane.kubeconfig(User::Nobody));
    stage.controller =
        both.namespace(&stage.namespace).argument("--namespace").argument(other.as_str()).start();
    stage.withhold(&stage.pods[0]).await;
    stage.controller.ready().await;
    until("the other one is named", || async {
        let (_, metrics) = stage.controller.get("/metrics").await.ok()?;
        let (_, services) = stage.controller.admin("/services").await.ok()?;
        (metrics.contains(r#"alarm{reason="namespace_unseen"} 1"#) && services.contains(&other)).then_some(())
    })
    .await;
    grant(&plane, &other, None);
    until("it is seen", || async {
        let (_, metrics) = stage.controller.get("/metrics").await.ok()?;
        (!metrics.contains(r#"alarm{reason="namespace_unseen"} 1"#)).then_some(())
    })
    .await;
    stage.recover().await;
}
