//! The ledger is missing, or of another version (faults 11 and 23); a pod comes back under its old name (28).

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};

use crate::{
    plane::{self, User, until},
    shop,
    stage::{Stage, annotation, traffic},
};

#[tokio::test]
async fn when_the_status_is_wiped_a_new_epoch_begins_and_what_is_withheld_is_adopted() {
    let plane = plane::shared().await;
    let mut stage = Stage::begin(&plane, "wiped").await;
    let first = stage.pods[0].clone();
    stage.withhold(&first).await;
    let lost = stage.ledger().await;
    stage.patch_status(&json!({"ledger": null})).await;
    until("a new ledger has the pod", || async {
        let ledger = stage.ledger().await;
        let adopted = ledger["entries"].as_object().is_some_and(|entries| entries.len() == 1);
        (ledger["epoch"].is_string() && ledger["epoch"] != lost["epoch"] && adopted).then_some(())
    })
    .await;
    assert_eq!(stage.shop.traffic(&first).await.as_deref(), Some("no"), "it was never given back meanwhile");
    let epoch = stage.ledger().await["epoch"].as_str().unwrap().to_owned();
    until("every pod is claimed anew", || async {
        let pods = stage.shop.pods().await.ok()?;
        let anew =
            |pod: &Pod| annotation(pod, "kubervisor/fence").is_some_and(|fence| fence.starts_with(&epoch));
        pods.iter().all(anew).then_some(())
    })
    .await;
    stage.recover().await;
    stage.judged(&plane, Vec::new()).await;
}

#[tokio::test]
async fn a_ledger_of_another_version_is_left_alone_and_a_condition_says_so() {
    let plane = plane::shared().await;
    let stage = Stage::begin(&plane, "unknown").await;
    let [first, second] = [stage.pods[0].clone(), stage.pods[1].clone()];
    stage.withhold(&first).await;
    until("it is in the ledger", || async { (stage.shop.entries().await == Some(1)).then_some(()) }).await;
    stage.patch_status(&json!({"ledger": {"schema": 7}})).await;
    let said = stage.has_condition("LedgerNotStored", &["True LedgerUnreadable", "schema 7"]).await;
    println!("{said}");
    let theirs = stage.ledger().await;
    assert_eq!(theirs["schema"], 7);
    stage.bad(&[&second]);
    stage.nothing_is_withheld_for(Duration::from_secs(3)).await;
    assert_eq!(stage.shop.traffic(&first).await.as_deref(), Some("no"), "nothing is admitted either");
    assert_eq!(stage.ledger().await, theirs, "it is not ours to write");
    let (code, services) = stage.controller.admin("/services").await.unwrap();
    assert!(code == 200 && services.contains("schema 7"), "{services}");
    // The other version was replaced, and left a ledger of our version.
    stage.patch_status(&json!({"ledger": {"schema": 1}})).await;
    stage.says(&second, "no").await;
    stage.says(&first, "yes").await;
    stage.lacks_condition("LedgerNotStored").await;
    stage.recover().await;
}

/// One pod at a time under each name.
fn set(name: &str) -> Value {
    let labels = json!({"app": name, "kubervisor/traffic": "yes"});
    let container = json!({"name": "app", "image": "app:1"});
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name},
        "spec": {
            "replicas": 3, "serviceName": name, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    })
}

#[tokio::test]
async fn a_pod_made_again_under_its_name_keeps_nothing_of_the_old_one() {
    let plane = plane::shared().await;
    let kubeconfig = plane.kubeconfig(User::Kubervisor);
    let stage = Stage::with(&plane, "again", kubeconfig, |signals, _| {
        // A cut that time does not end.
        shop::Recipe::of("web", 0)
            .breaker("slow", &signals.service("bad"), 50)
            .spec("defaultActivator", json!({"mode": "periodic", "period": 600}))
    })
    .await;
    let manifest = set("web").to_string();
    let made = plane.kubectl(User::Admin, &["apply", "-n", &stage.namespace, "-f", "-"], &manifest);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    until("three pods are ready", || async {
        let pods = stage.shop.pods().await.ok()?;
        (pods.iter().filter(|pod| shop::ready(pod)).count() == 3).then_some(())
    })
    .await;
    stage.withhold("web-1").await;
    until("it is in the ledger", || async { (stage.shop.entries().await == Some(1)).then_some(()) }).await;
    stage.bad(&[]);
    let pods = Api::<Pod>::namespaced(stage.client.clone(), &stage.namespace);
    let old = pods.get("web-1").await.unwrap().metadata.uid;
    pods.delete("web-1", &DeleteParams::default()).await.unwrap();
    let (new, _) = until("it is there again, claimed", || async {
        let pod = pods.get("web-1").await.ok()?;
        (pod.metadata.uid != old && annotation(&pod, "kubervisor/fence").is_some()).then_some(pod)
    })
    .await;
    assert_eq!((traffic(&new), annotation(&new, "breaker/breakAt")), (Some("yes"), None));
    assert_eq!(annotation(&new, "breaker/retryCount"), None);
    until("the old one's entry is gone", || async { (stage.shop.entries().await == Some(0)).then_some(()) })
        .await;
    until("it serves", || async { (stage.shop.endpoints().await.ok()?.len() == 3).then_some(()) }).await;
}
