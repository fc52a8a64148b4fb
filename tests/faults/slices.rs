//! The endpoint controller hangs: the EndpointSlices follow neither labels nor readiness.

use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    plane::{self, Component, User, until},
    shop::Shop,
    stage::{self, Stage},
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
    let words = ["SlicesStandStill", "endpoint controller hangs", &c, &d];
    stage.has_condition("NotListed", &words).await;
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

/// Has the Service's endpoints in one slice of IPv6 addresses, as in a Service that has only such ones.
async fn sixth(shop: &Shop, pods: &[&str]) {
    let slices = Api::<EndpointSlice>::namespaced(shop.client.clone(), &shop.namespace);
    let endpoints = shop.pods().await.unwrap().into_iter().enumerate().filter_map(|(number, pod)| {
        let name = pod.metadata.name?;
        pods.contains(&name.as_str()).then(|| {
            json!({"addresses": [format!("fd00::{:x}", number + 1)], "conditions": {"ready": true}, "targetRef": {
                "kind": "Pod", "namespace": shop.namespace, "name": name, "uid": pod.metadata.uid,
            }})
        })
    });
    let labels = json!({
        "kubernetes.io/service-name": shop.name,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    });
    let slice = json!({
        "metadata": {"name": "sixth", "labels": labels}, "addressType": "IPv6", "endpoints": endpoints.collect::<Vec<Value>>(),
        "ports": [{"port": 80}],
    });
    let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
    slices.patch("sixth", &PatchParams::apply("test").force(), &Patch::Apply(slice)).await.unwrap();
    let of = ListParams::default()
        .labels(&format!("kubernetes.io/service-name={}", shop.name))
        .fields("metadata.name!=sixth");
    slices.delete_collection(&DeleteParams::default(), &of).await.unwrap();
}

/// The stand-in's pods have IPv4 addresses, so that the test writes the slices in the place of the endpoint controller.
#[tokio::test]
async fn a_service_with_ipv6_endpoints_only_is_gated_like_any_other() {
    let plane = plane::alone().await;
    let user = plane.kubeconfig(User::Kubervisor);
    let recipe = |signals: &_, _: &str| stage::recipe(signals);
    let prepare = async |shop: &Shop| {
        plane.freeze(Component::ControllerManager);
        let names = shop.names().await.unwrap();
        sixth(shop, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    };
    let stage = Stage::prepared(&plane, "sixth", user, recipe, prepare).await;
    let [a, b, c, d] = std::array::from_fn(|n| stage.pods[n].as_str());
    stage.withhold(a).await;
    sixth(&stage.shop, &[b, c, d]).await;
    // The floor is two of four: that one more is withheld shows that the slice is read.
    stage.bad(&[a, b, c]);
    until("a second one is withheld", || async {
        let labels = [stage.shop.traffic(b).await?, stage.shop.traffic(c).await?];
        (labels.iter().filter(|label| *label == "no").count() == 1).then_some(())
    })
    .await;
    stage.lacks_condition("NotListed").await;
    stage.nothing_is_withheld_for(Duration::from_secs(1)).await;
    plane.thaw(Component::ControllerManager);
}
