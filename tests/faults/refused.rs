//! Writes to pods that admission refuses or changes (policies, webhooks, budgets): each pod stands for itself, the API
//! server's sentence is told, and the others go on.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    plane::{self, Plane, User, until},
    proxy::Proxy,
    shop::Shop,
    stage::{Stage, recipe, traffic},
};

const LOCKED: &str = "!has(oldObject.metadata.labels) || !('locked' in oldObject.metadata.labels)";

fn kubectl(plane: &Plane, arguments: &[&str], input: &str) {
    let done = plane.kubectl(User::Admin, arguments, input);
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Writes of the namespace to `resource` for which `expression` is false are refused, with 403 or 422.
fn policy(namespace: &str, resource: &str, operation: &str, expression: &str, forbidden: bool) -> Value {
    let mut validation = json!({"expression": expression, "message": "managed elsewhere"});
    if forbidden {
        validation["reason"] = json!("Forbidden");
    }
    let metadata = json!({"name": namespace});
    let kind = |kind: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec});
    let rule =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": [resource], "operations": [operation]});
    let matching = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}, "resourceRules": [rule],
    });
    let policy = json!({"failurePolicy": "Fail", "matchConstraints": matching, "validations": [validation]});
    let items = [
        kind("ValidatingAdmissionPolicy", policy),
        kind(
            "ValidatingAdmissionPolicyBinding",
            json!({"policyName": namespace, "validationActions": ["Deny"]}),
        ),
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Applies the policy against writes to pods with the label `locked`, locks this pod, and waits until that holds.
async fn lock(plane: &Plane, shop: &Shop, pod: &str, forbidden: bool) {
    let policy = policy(&shop.namespace, "pods", "UPDATE", LOCKED, forbidden);
    kubectl(plane, &["apply", "-f", "-"], &policy.to_string());
    shop.patch_pod(pod, &json!({"metadata": {"labels": {"locked": "x"}}})).await.unwrap();
    refuses(shop, pod).await;
}

/// Waits until the API server refuses a change of the pod.
async fn refuses(shop: &Shop, pod: &str) {
    let mut round = 0;
    until("writes to the pod are refused", || {
        round += 1;
        let patch = json!({"metadata": {"annotations": {"tried": round.to_string()}}});
        async move { shop.patch_pod(pod, &patch).await.is_err().then_some(()) }
    })
    .await;
}

fn unlock(plane: &Plane, namespace: &str) {
    let kinds = ["validatingadmissionpolicybinding", "validatingadmissionpolicy"];
    kinds.into_iter().for_each(|kind| kubectl(plane, &["delete", kind, namespace], ""));
}

/// One pod of four cannot be claimed: the next bad one is withheld, the refusal is told, and patches are seconds apart.
async fn one_pod_refuses(
    plane: &Plane,
    hint: &str,
    words: &[&str],
    prepare: impl AsyncFnOnce(&Shop, &str),
) -> (Stage, Proxy) {
    let proxy = Proxy::start(&plane.kubeconfig(User::Kubervisor));
    let mut refusing = String::new();
    let stage = Stage::prepared(
        plane,
        hint,
        proxy.kubeconfig(),
        |signals, _| recipe(signals),
        async |shop| {
            refusing = shop.names().await.unwrap()[0].clone();
            prepare(shop, &refusing).await;
        },
    )
    .await;
    let other = stage.pods[1].clone();
    stage.bad(&[&refusing, &other]);
    let took = stage.says(&other, "no").await;
    let words: Vec<&str> = words.iter().copied().chain([refusing.as_str(), "claim: "]).collect();
    println!("{hint}: withheld after {took:?}: {}", stage.has_condition("WritesRefused", &words).await);
    stage.has_condition("Ready", &["True"]).await;
    assert!(stage.condition("Forbidden").await.is_none(), "no right is missing");
    let page = format!("/explain/{}/{refusing}", stage.namespace);
    let (_, said) = stage.controller.admin(&page).await.unwrap();
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    proxy.forget();
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mine =
        |asked: &crate::proxy::Asked| asked.verb == "patch" && asked.name.as_deref() == Some(&*refusing);
    let patches = proxy.asked().iter().filter(|asked| mine(asked)).count();
    println!("{hint}: {patches} patches in {:?}", began.elapsed());
    assert!(patches <= 4, "{patches} patches");
    assert_eq!(stage.shop.traffic(&refusing).await.as_deref(), Some("yes"), "it is never cut");
    (stage, proxy)
}

#[tokio::test]
async fn a_pod_that_a_policy_forbids_to_claim_stops_nobody_else_and_is_told() {
    let plane = plane::shared().await;
    let both = [true, false].map(|forbidden| {
        let plane = &plane;
        async move {
            let hint = if forbidden { "denied-403" } else { "denied-422" };
            let (stage, _proxy) = one_pod_refuses(plane, hint, &["managed elsewhere"], async |shop, pod| {
                lock(plane, shop, pod, forbidden).await;
            })
            .await;
            unlock(plane, &stage.namespace);
            stage.says(&stage.pods[0], "no").await;
            stage.lacks_condition("WritesRefused").await;
            stage.recover().await;
        }
    });
    futures::future::join_all(both).await;
}

#[tokio::test]
async fn a_pod_whose_annotations_are_full_does_not_stop_the_fleet() {
    let plane = plane::shared().await;
    let (stage, _proxy) = one_pod_refuses(&plane, "full", &["Too long"], async |shop, pod| {
        let full = json!({"metadata": {"annotations": {"big": "x".repeat(262_121)}}});
        shop.patch_pod(pod, &full).await.unwrap();
    })
    .await;
    let empty = json!({"metadata": {"annotations": {"big": null}}});
    stage.shop.patch_pod(&stage.pods[0], &empty).await.unwrap();
    stage.says(&stage.pods[0], "no").await;
    stage.recover().await;
}

#[tokio::test]
async fn a_withheld_pod_that_may_not_come_back_is_shouted_until_it_may() {
    let plane = plane::shared().await;
    let stage = Stage::begin(&plane, "no-return").await;
    let [first, second] = [stage.pods[0].clone(), stage.pods[1].clone()];
    stage.withhold(&first).await;
    lock(&plane, &stage.shop, &first, true).await;
    stage.bad(&[&second]);
    let words = ["ReturnRefused", "WITHOUT TRAFFIC", first.as_str(), "managed elsewhere"];
    println!("{}", stage.has_condition("WritesRefused", &words).await);
    stage.says(&second, "no").await;
    let (_, metrics) = stage.controller.get("/metrics").await.unwrap();
    assert!(metrics.contains(r#"alarm{reason="return_refused"} 1"#), "{metrics}");
    until("an Event tells it", || async {
        let events = plane.kubectl(User::Admin, &["get", "events", "-n", &stage.namespace], "").stdout;
        String::from_utf8_lossy(&events).contains("ReturnRefused").then_some(())
    })
    .await;
    unlock(&plane, &stage.namespace);
    stage.recover().await;
    stage.lacks_condition("WritesRefused").await;
}

const IS_LOCKED: &str = "has(object.metadata.labels) && 'locked' in object.metadata.labels";
/// The write that gives a pod its traffic back, and no other.
const IS_RETURN: &str = "oldObject.metadata.labels['kubervisor/traffic'] == 'no' && object.metadata.labels['kubervisor/traffic'] == 'yes'";

/// A policy that writes `word` into the traffic label where `condition` holds, whatever is written.
fn resetting(namespace: &str, condition: &str, word: &str) -> Value {
    let metadata = json!({"name": namespace});
    let kind = |kind: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec});
    let rule =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["UPDATE"]});
    let matching = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}, "resourceRules": [rule],
    });
    let locked = json!({"name": "locked", "expression": condition});
    let labels = format!("Object{{metadata: Object.metadata{{labels: {{'kubervisor/traffic': '{word}'}}}}}}");
    let mutation = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": labels}});
    let policy = json!({
        "failurePolicy": "Fail", "reinvocationPolicy": "Never", "matchConstraints": matching,
        "matchConditions": [locked], "mutations": [mutation],
    });
    let items = [
        kind("MutatingAdmissionPolicy", policy),
        kind("MutatingAdmissionPolicyBinding", json!({"policyName": namespace})),
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn unreset(plane: &Plane, namespace: &str) {
    let kinds = ["mutatingadmissionpolicybinding", "mutatingadmissionpolicy"];
    kinds.into_iter().for_each(|kind| kubectl(plane, &["delete", kind, namespace], ""));
}

/// The policy is in force for the return of that pod, as a dry run of it shows.
async fn concerns_the_return(shop: &Shop, pod: &str) {
    let pods = kube::Api::<Pod>::namespaced(shop.client.clone(), &shop.namespace);
    let patch = Patch::Merge(json!({"metadata": {"labels": {"kubervisor/traffic": "yes"}}}));
    let trial = PatchParams { dry_run: true, ..PatchParams::default() };
    until("the policy is in force", || async {
        let answer = pods.patch(pod, &trial, &patch).await;
        let given = answer.is_ok_and(|pod| traffic(&pod) == Some("yes"));
        (!given).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_denies_or_changes_only_the_return_is_shouted_and_the_pod_comes_back_without_it() {
    let plane = plane::shared().await;
    let both = [true, false].map(|denies| {
        let plane = &plane;
        async move {
            let stage = Stage::begin(plane, if denies { "return-denied" } else { "return-changed" }).await;
            let first = stage.pods[0].clone();
            stage.withhold(&first).await;
            let policy = match denies {
                true => policy(&stage.namespace, "pods", "UPDATE", &format!("!({IS_RETURN})"), false),
                false => resetting(&stage.namespace, IS_RETURN, "no"),
            };
            kubectl(plane, &["apply", "-f", "-"], &policy.to_string());
            concerns_the_return(&stage.shop, &first).await;
            stage.bad(&[]);
            let said = if denies { "managed elsewhere" } else { "policy or webhook changes it" };
            let words = ["ReturnRefused", "WITHOUT TRAFFIC", first.as_str(), said];
            println!("{}", stage.has_condition("WritesRefused", &words).await);
            let (_, metrics) = stage.controller.get("/metrics").await.unwrap();
            assert!(metrics.contains(r#"alarm{reason="return_refused"} 1"#), "{metrics}");
            assert_eq!(stage.shop.traffic(&first).await.as_deref(), Some("no"));
            if denies {
                unlock(plane, &stage.namespace);
            } else {
                unreset(plane, &stage.namespace);
            }
            stage.recover().await;
            stage.lacks_condition("WritesRefused").await;
        }
    });
    futures::future::join_all(both).await;
}

#[tokio::test]
async fn a_policy_that_changes_what_we_write_is_told_and_stops_no_other_pod() {
    let plane = plane::shared().await;
    let stage = Stage::begin(&plane, "changed").await;
    let [first, second] = [stage.pods[0].clone(), stage.pods[1].clone()];
    kubectl(&plane, &["apply", "-f", "-"], &resetting(&stage.namespace, IS_LOCKED, "yes").to_string());
    until("the policy is in force", || async {
        let patch = json!({"metadata": {"labels": {"locked": "x", "kubervisor/traffic": "maybe"}}});
        stage.shop.patch_pod(&first, &patch).await.ok()?;
        (stage.shop.traffic(&first).await.as_deref() == Some("yes")).then_some(())
    })
    .await;
    stage.bad(&[&first, &second]);
    stage.says(&second, "no").await;
    let words = [first.as_str(), "policy or webhook changes it", "kubervisor/traffic is \"yes\", not \"no\""];
    println!("{}", stage.has_condition("WritesRefused", &words).await);
    assert_eq!(stage.shop.traffic(&first).await.as_deref(), Some("yes"));
    unreset(&plane, &stage.namespace);
    stage.says(&first, "no").await;
    stage.lacks_condition("WritesRefused").await;
    stage.recover().await;
}

#[tokio::test]
async fn a_deleted_resource_frees_the_other_pods_while_one_refuses() {
    let plane = plane::shared().await;
    let stage = Stage::begin(&plane, "leaving").await;
    stage.has_condition("Ready", &["True"]).await;
    let mut pods = stage.pods.clone();
    pods.sort();
    // Of the pods in any order, so that the first one of the release is among the locked ones in one run of two.
    lock(&plane, &stage.shop, &pods[0], true).await;
    stage.shop.patch_pod(&pods[1], &json!({"metadata": {"labels": {"locked": "x"}}})).await.unwrap();
    stage.shop.resources().delete(&stage.shop.name, &kube::api::DeleteParams::default()).await.unwrap();
    let named = || async {
        let pods = stage.shop.pods().await.ok()?.into_iter();
        let named = pods
            .filter(|pod| pod.metadata.labels.as_ref().is_some_and(|l| l.contains_key("kubervisor/name")));
        Some(named.filter_map(|pod| pod.metadata.name).collect::<std::collections::BTreeSet<_>>())
    };
    let locked = pods[..2].iter().cloned().collect();
    until("the others are free", || async { (named().await? == locked).then_some(()) }).await;
    unlock(&plane, &stage.namespace);
    until("it is gone", || async { stage.shop.resource().await.is_err().then_some(()) }).await;
    until("all are free", || async { named().await?.is_empty().then_some(()) }).await;
}

/// Four pods of which two must serve; one that was withheld twice is to be killed.
async fn killing(plane: &Plane, hint: &str) -> Stage {
    Stage::with(plane, hint, plane.kubeconfig(User::Kubervisor), |signals, _| {
        let activator = json!({"mode": "retryAndKill", "period": 1, "maxPeriod": 1, "maxRetryCount": 1, "maxKillsPerHour": 9});
        recipe(signals).spec("defaultActivator", activator)
    })
    .await
}

/// The first pod is to be killed, which is refused with these words; the second one is withheld all the same.
async fn a_refused_kill(stage: &Stage, words: &[&str]) {
    let [first, second] = [stage.pods[0].clone(), stage.pods[1].clone()];
    stage.withhold(&first).await;
    stage.bad(&[]);
    stage.says(&first, "yes").await;
    stage.bad(&[&first]);
    let words: Vec<&str> = words.iter().copied().chain([first.as_str(), "eviction: "]).collect();
    println!("{}", stage.has_condition("WritesRefused", &words).await);
    assert!(stage.condition("Forbidden").await.is_none(), "no right is missing");
    stage.bad(&[&first, &second]);
    stage.says(&second, "no").await;
    assert_eq!(stage.shop.traffic(&first).await.as_deref(), Some("no"), "it stays withheld");
}

#[tokio::test]
async fn a_refused_eviction_bars_no_withholding_and_names_no_right() {
    let plane = plane::shared().await;
    let stage = killing(&plane, "no-evict").await;
    let policy = policy(&stage.namespace, "pods/eviction", "CREATE", "false", true);
    kubectl(&plane, &["apply", "-f", "-"], &policy.to_string());
    a_refused_kill(&stage, &["managed elsewhere"]).await;
    unlock(&plane, &stage.namespace);
    let gone = || async { (!stage.shop.names().await.ok()?.contains(&stage.pods[0])).then_some(()) };
    until("it is evicted", gone).await;
}

#[tokio::test]
async fn a_pod_with_two_budgets_cannot_be_evicted_and_the_reason_is_told() {
    let plane = plane::shared().await;
    let stage = killing(&plane, "budgets").await;
    let budget = |name: &str| {
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
            "spec": {"maxUnavailable": 2, "selector": {"matchLabels": {"app": "web"}}},
        })
    };
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [budget("one"), budget("two")]});
    kubectl(&plane, &["apply", "-n", &stage.namespace, "-f", "-"], &both.to_string());
    a_refused_kill(&stage, &["more than one PodDisruptionBudget"]).await;
}

#[tokio::test]
async fn while_a_webhook_is_away_the_condition_names_it_and_work_goes_on_once_it_is_gone() {
    let plane = plane::shared().await;
    let stage = Stage::begin(&plane, "webhook").await;
    stage.has_condition("Ready", &["True"]).await;
    let rule =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["UPDATE"]});
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": stage.namespace},
        "webhooks": [{
            "name": "pods.away.example.com", "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 1,
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:9/validate"}, "rules": [rule],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": stage.namespace}},
        }],
    });
    kubectl(&plane, &["apply", "-f", "-"], &webhook.to_string());
    refuses(&stage.shop, &stage.pods[3]).await;
    let first = stage.pods[0].clone();
    stage.bad(&[&first]);
    let words = ["pods.away.example.com", first.as_str(), "withdrawal: "];
    println!("{}", stage.has_condition("WritesRefused", &words).await);
    kubectl(&plane, &["delete", "validatingwebhookconfiguration", &stage.namespace], "");
    stage.says(&first, "no").await;
    stage.recover().await;
    stage.lacks_condition("WritesRefused").await;
}

#[tokio::test]
async fn the_switch_in_the_workloads_own_selector_is_told_and_nothing_is_withheld() {
    let plane = plane::shared().await;
    let kubeconfig = plane.kubeconfig(User::Kubervisor);
    let switched = |signals: &crate::signals::Signals, _: &str| recipe(signals).switched();
    let stage = Stage::with(&plane, "switched", kubeconfig, switched).await;
    stage.bad(&[&stage.pods[0]]);
    let words = ["Deployment web", "let the pod go"];
    println!("{}", stage.has_condition("SwitchInWorkloadSelector", &words).await);
    stage.has_condition("Ready", &["False", "KeyInSelector"]).await;
    stage.nothing_is_withheld_for(Duration::from_secs(1)).await;
}
