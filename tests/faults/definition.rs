//! The definition of our resource is deleted, or an older one drops the ledger (faults 10 and 11).

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    plane::{self, Plane, User, until},
    shop,
    stage::{Stage, annotation, recipe, traffic},
};

const DEFINITION: &str = "crd/kubervisorservices.kubervisor.k8s.io";

fn kubectl(plane: &Plane, arguments: &[&str], input: &str) {
    let done = plane.kubectl(User::Admin, arguments, input);
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn when_the_definition_is_deleted_everything_is_given_back_and_when_it_returns_work_goes_on() {
    let plane = plane::alone().await;
    let stage = Stage::begin(&plane, "undefined").await;
    let first = stage.pods[0].clone();
    stage.withhold(&first).await;
    release_others(&plane, &stage.namespace);
    // It returns when every resource is gone, and so when its finalizer is.
    kubectl(&plane, &["delete", DEFINITION, "--timeout=60s"], "");
    let pods = stage.shop.pods().await.unwrap();
    for pod in &pods {
        assert_eq!(traffic(pod), Some("yes"), "{:?}", pod.metadata.name);
        assert_eq!(annotation(pod, "kubervisor/fence"), None, "{:?}", pod.metadata.name);
        assert!(!pod.metadata.labels.as_ref().unwrap().contains_key("kubervisor/name"));
    }
    assert!(stage.controller.lives());
    shop::install(&plane);
    let resource = recipe(&stage.signals).resource().to_string();
    kubectl(&plane, &["apply", "-n", &stage.namespace, "-f", "-"], &resource);
    stage.says(&first, "no").await;
    stage.recover().await;
}

/// What earlier tests left behind has a finalizer and no controller any more.
fn release_others(plane: &Plane, namespace: &str) {
    let found = plane.kubectl(User::Admin, &["get", "kubervisorservices", "-A", "-o", "json"], "");
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let metadata = found["items"].as_array().unwrap().iter().map(|item| &item["metadata"]);
    for other in metadata.filter(|metadata| metadata["namespace"] != namespace) {
        let (name, of) = (other["name"].as_str().unwrap(), other["namespace"].as_str().unwrap());
        let none = r#"{"metadata": {"finalizers": null}}"#;
        kubectl(plane, &["patch", "kubervisorservices", name, "-n", of, "--type", "merge", "-p", none], "");
    }
}

/// As an older version had it: the status knows nothing of a ledger.
fn older() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/kubervisorservices.yaml");
    let mut definition: Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let status = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    let removed = status["properties"].as_object_mut().unwrap().remove("ledger");
    assert!(removed.is_some(), "the definition has a ledger");
    status.as_object_mut().unwrap().remove("x-kubernetes-preserve-unknown-fields");
    definition
}

#[tokio::test]
async fn while_an_older_definition_drops_the_ledger_nothing_is_withheld_and_a_condition_says_why() {
    let plane = plane::alone().await;
    let stage = Stage::begin(&plane, "pruned").await;
    let first = stage.pods[0].clone();
    stage.has_condition("Ready", &["True"]).await;
    kubectl(&plane, &["apply", "--server-side", "-f", "-"], &older().to_string());
    // The ledger is dropped with the next write of anybody.
    until("the ledger is gone", || async {
        stage.patch_status(&json!({"startTime": "2026-01-01T00:00:00Z"})).await;
        stage.ledger().await.is_null().then_some(())
    })
    .await;
    stage.bad(&[&first]);
    let said =
        stage.has_condition("LedgerNotStored", &["True LedgerDropped", "CustomResourceDefinition"]).await;
    println!("{said}");
    stage.nothing_is_withheld_for(Duration::from_secs(2)).await;
    assert!(stage.saying("no").await.is_empty());
    shop::install(&plane);
    stage.says(&first, "no").await;
    stage.lacks_condition("LedgerNotStored").await;
    stage.recover().await;
}
