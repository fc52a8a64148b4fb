//! A fleet that changes its size or its version while pods of it are withheld.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    scene::{Scene, Stage, annotation},
    shop,
};

#[tokio::test]
async fn a_scale_down_takes_the_withheld_pods_first() {
    let scene = Scene::simple("scale", 10, 50).await;
    let all = scene.names().await;
    scene.bad(&all[..5]);
    scene.until_withheld(&all[..5]).await;
    for name in &all[..5] {
        let cost = annotation(&scene.pod(name).await, "controller.kubernetes.io/pod-deletion-cost");
        assert!(cost.is_some_and(|cost| cost.starts_with('-')), "{name}");
    }
    scene.stage.kubectl(&["scale", "deployment/web", "--replicas=5"], &json!(null));
    scene.until("five are left", async || scene.names().await.len() == 5).await;
    assert_eq!(scene.those("yes").await, all[5..], "the five that serve");
    scene.until("the ledger is empty", async || scene.shop.entries().await == Some(0)).await;
}

/// The names of the pods at `yes`, by node.
async fn serving_by_node(scene: &Scene) -> BTreeMap<String, Vec<String>> {
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let serving = scene.those("yes").await;
    for (name, pod) in scene.pods().await {
        let on = nodes.entry(pod.spec.unwrap().node_name.unwrap()).or_default();
        on.extend(Some(name).filter(|name| serving.contains(name)));
    }
    nodes
}

#[tokio::test]
async fn under_a_local_traffic_policy_each_node_keeps_one_pod() {
    let stage = Stage::set("local").await;
    let long = json!({"mode": "periodic", "period": 600});
    let recipe = shop::Recipe::of("web", 6).breaker("slow", &stage.asks(), 1).spec("defaultActivator", long);
    let scene = stage.play(&recipe).await;
    scene.stage.edit_service("web", json!({"spec": {"internalTrafficPolicy": "Local"}})).await;
    let nodes = serving_by_node(&scene).await;
    scene.looks(3).await;
    scene.bad(scene.names().await);
    scene.until_those("yes", nodes.len()).await;
    let kept = serving_by_node(&scene).await;
    assert!(kept.values().all(|on| on.len() == 1), "{kept:?}");
    scene.stage.kubectl(
        &["patch", "kvs/web", "--type=merge", "-p", r#"{"spec": {"keepOnePerNode": false}}"#],
        &json!(null),
    );
    scene.until_those("yes", 1).await;
}

#[tokio::test]
async fn a_fleet_scaled_to_zero_is_quiet() {
    let scene = Scene::simple("zero", 2, 50).await;
    scene.stage.kubectl(&["scale", "deployment/web", "--replicas=0"], &json!(null));
    let floor = async || scene.shop.resource().await.unwrap()["status"]["floor"].as_u64();
    scene.until("the floor is 0", async || floor().await == Some(0)).await;
    scene.looks(4).await;
    let available = scene.until_condition("DataAvailable", "True").await;
    assert_eq!(available.reason, "EnoughVerdicts");
    assert_eq!(scene.condition("FloorReached").await.unwrap().status, "False");
    assert!(!scene.controller.log().contains("too few pods"), "{}", scene.controller.log());
}

#[tokio::test]
async fn a_users_own_deletion_cost_stays() {
    let scene = Scene::simple("cost", 3, 50).await;
    let chosen = scene.names().await.swap_remove(0);
    let cost = json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "7"}}});
    scene.shop.patch_pod(&chosen, &cost).await.unwrap();
    scene.bad([&chosen]);
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    scene.bad::<String>([]);
    scene.until_withheld(&[]).await;
    let kept = annotation(&scene.pod(&chosen).await, "controller.kubernetes.io/pod-deletion-cost");
    assert_eq!(kept.as_deref(), Some("7"));
}

#[tokio::test]
async fn a_rollout_during_a_cut_leaves_a_fleet_that_serves_and_an_empty_ledger() {
    let scene = Scene::simple("rollout", 6, 50).await;
    let old = scene.names().await;
    scene.bad(&old);
    scene.until_those("no", 3).await;
    let version = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}}).to_string();
    scene.stage.kubectl(&["patch", "deployment/web", "-p", &version], &json!(null));
    let replaced = async || {
        let now = scene.those("yes").await;
        now.len() == 6 && now.iter().all(|name| !old.contains(name))
    };
    // Surged pods count as existing, never as desired: the old ones that serve are three at least until they go.
    scene.until("six new pods serve", replaced).await;
    scene.until("the ledger is empty", async || scene.shop.entries().await == Some(0)).await;
    scene.until_condition("Ready", "True").await;
    scene.until("six endpoints", async || scene.shop.endpoints().await.unwrap().len() == 6).await;
}

#[tokio::test]
async fn the_floor_is_of_an_autoscalers_least_while_fewer_pods_are_there() {
    let scene = Scene::simple("autoscaled", 4, 50).await;
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 6, "maxReplicas": 8,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        },
    });
    scene.stage.kubectl(&["apply", "-f", "-"], &autoscaler);
    // Half of the six that there should be, whether the autoscaler has made them already or not.
    let floor = async || scene.shop.resource().await.unwrap()["status"]["floor"] == 3;
    scene.until("the floor is three", floor).await;
    let all = scene.names().await;
    scene.bad(&all);
    scene.looks(3).await;
    scene.throughout(4, "three serve", async || scene.those("yes").await.len() >= 3).await;
}
