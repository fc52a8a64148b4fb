//! The endpoint controller hangs: the EndpointSlices follow neither labels nor readiness.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    plane::{self, Component, until},
    stage::Stage,
};

async fn ready(stage: &Stage, pod: &str, ready: bool) {
    let word = if ready { Value::Null } else { json!("true") };
    let patch = json!({"metadata": {"annotations": {"stand-in/unready": word}}});
    stage.shop.patch_pod(pod, &patch).await.unwrap();
    until(&format!("{pod} is ready: {ready}"), || async {
        let pods = stage.shop.pods().await.ok()?;
        let found = pods.iter().find(|one| one.metadata.name.as_deref() == Some(pod))?;
        (crate::shop::ready(found) == ready).then_some(())
    })
    .await;
}

async fn listed(stage: &Stage, count: usize) {
    until(&format!("{count} pods are listed"), || async {
        (stage.shop.endpoints().await.ok()?.len() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_the_endpoint_controller_hangs_no_listed_pod_is_cut_for_an_unlisted_one_and_it_is_named() {
    let plane = plane::alone().await;
    let mut stage = Stage::begin(&plane, "unlisted").await;
    let [a, b, c, d] = std::array::from_fn(|n| stage.pods[n].clone());
    for pod in [&c, &d] {
        ready(&stage, pod, false).await;
    }
    listed(&stage, 2).await;
    plane.freeze(Component::ControllerManager);
    let frozen = stage.now();
    for pod in [&c, &d] {
        ready(&stage, pod, true).await;
    }
    // By labels and readiness four serve and the floor is two; the slices list only the bad ones.
    stage.bad(&[&a, &b]);
    let said = stage.has_condition("NotListed", &["SlicesStandStill", "endpoint controller hangs"]).await;
    assert!(said.contains(&c) && said.contains(&d), "{said}");
    stage.nothing_is_withheld_for(Duration::from_secs(1)).await;
    plane.thaw(Component::ControllerManager);
    let thawed = frozen..stage.now();
    for pod in [&a, &b] {
        stage.says(pod, "no").await;
    }
    stage.lacks_condition("NotListed").await;
    stage.recover().await;
    stage.judged(&plane, vec![thawed]).await;
}

#[tokio::test]
async fn a_withheld_pod_that_stays_listed_because_the_endpoint_controller_hangs_is_said_so() {
    let plane = plane::alone().await;
    let stage = Stage::begin(&plane, "standing").await;
    listed(&stage, 4).await;
    plane.freeze(Component::ControllerManager);
    let chosen = stage.pods[0].clone();
    stage.withhold(&chosen).await;
    let said = stage.has_condition("NotLeavingEndpoints", &["SlicesStandStill", &chosen]).await;
    assert!(said.contains("kube-controller-manager") && !said.contains("another Service"), "{said}");
    plane.thaw(Component::ControllerManager);
    stage.lacks_condition("NotLeavingEndpoints").await;
    stage.recover().await;
}
