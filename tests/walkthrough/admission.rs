//! `examples/kubernetes/admission.yaml`: while no controller runs, new pods of a fleet get their label from the API
//! server.

use std::{collections::BTreeMap, fs};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use serde_json::json;

use crate::{
    controller,
    plane::{self, Plane, User, until},
    root,
    shop::{self, Shop, ready},
};

const TRAFFIC: &str = "kubervisor/traffic";

fn admin(plane: &Plane, arguments: &[&str], input: &str) {
    let done = plane.kubectl(User::Admin, arguments, input);
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A pod that the API server would make of these labels, without keeping it: its labels.
async fn rehearsed(shop: &Shop, labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    let labels: BTreeMap<_, _> = labels.iter().copied().collect();
    let pod = json!({
        "metadata": {"name": "rehearsed", "labels": labels}, "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let pods = Api::<Pod>::namespaced(shop.client.clone(), &shop.namespace);
    let kept = PostParams { dry_run: true, ..PostParams::default() };
    pods.create(&kept, &pod).await.unwrap().metadata.labels.unwrap_or_default()
}

#[tokio::test]
async fn while_no_controller_runs_new_pods_of_a_fleet_are_labelled_by_the_api_server_and_serve() {
    let plane = plane::shared().await;
    shop::install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "admission").await;
    // What the controller asks of a custom service that nobody runs is no verdict.
    let recipe = shop::Recipe::of("web", 3).unlabelled().breaker("b", "127.0.0.1:1", 50);
    let controller =
        controller::Recipe::with_kubeconfig(plane.kubeconfig(User::Kubervisor)).namespace(&namespace).start();
    let shop = recipe.apply(&plane, &client, &namespace).await;
    until("the status names the fleet's selector, and everyone serves", async || {
        let resource = shop.resource().await.ok()?;
        let named = resource["status"]["selector"] == json!({"app": "web"});
        (named && shop.endpoints().await.ok()?.len() == 3).then_some(())
    })
    .await;
    controller.kill();

    // Without the policy a new pod has no label: nobody sends it traffic.
    assert!(!rehearsed(&shop, &[("app", "web")]).await.contains_key(TRAFFIC));
    let policy = fs::read_to_string(root().join("examples/kubernetes/admission.yaml")).unwrap();
    admin(&plane, &["apply", "-f", "-"], &policy);
    until("the API server follows the policy", async || {
        rehearsed(&shop, &[("app", "web")]).await.contains_key(TRAFFIC).then_some(())
    })
    .await;

    let before = shop.names().await.unwrap();
    admin(&plane, &["rollout", "restart", "deployment/web", "-n", &namespace], "");
    until("all pods are new, have the label and serve", async || {
        let pods = shop.pods().await.ok()?;
        let fresh = |pod: &Pod| pod.metadata.name.as_ref().is_some_and(|name| !before.contains(name));
        let labelled = |pod: &Pod| {
            let labels = pod.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(TRAFFIC)).is_some_and(|value| value == "yes")
        };
        let serve = shop.endpoints().await.ok()?.len() == 3;
        (serve && pods.len() == 3 && pods.iter().all(|pod| fresh(pod) && labelled(pod) && ready(pod)))
            .then_some(())
    })
    .await;

    // What is not of the fleet, or has a switch already, stays as it is.
    assert!(!rehearsed(&shop, &[("app", "other")]).await.contains_key(TRAFFIC));
    assert!(!rehearsed(&shop, &[]).await.contains_key(TRAFFIC));
    assert_eq!(rehearsed(&shop, &[("app", "web"), (TRAFFIC, "no")]).await[TRAFFIC], "no");
    let elsewhere = plane.namespace(&client, "elsewhere").await;
    let elsewhere = Shop { namespace: elsewhere, ..shop.clone() };
    assert!(!rehearsed(&elsewhere, &[("app", "web")]).await.contains_key(TRAFFIC));
    admin(&plane, &["delete", "-f", "-"], &policy);
}
