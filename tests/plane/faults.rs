//! Each component of the plane fails by itself, and no stored object is lost.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    plane::{self, Component, User, until},
    workloads::{ready, web},
};

#[tokio::test]
async fn an_api_server_that_was_killed_keeps_every_object() {
    let plane = plane::alone().await;
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "restart").await;
    let maps = Api::<ConfigMap>::namespaced(client, &namespace);
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "kept"}})).unwrap();
    let stored = maps.create(&PostParams::default(), &map).await.unwrap();
    plane.kill(Component::ApiServer);
    maps.get("kept").await.expect_err("the API server is down");
    plane.restart(Component::ApiServer);
    let maps = Api::<ConfigMap>::namespaced(plane.client(User::Admin).await, &namespace);
    let found = maps.get("kept").await.unwrap();
    assert_eq!(found.metadata.resource_version, stored.metadata.resource_version);
}

#[tokio::test]
async fn a_frozen_api_server_answers_nothing_until_it_goes_on() {
    let plane = plane::alone().await;
    let client = plane.client(User::Admin).await;
    client.apiserver_version().await.unwrap();
    plane.freeze(Component::ApiServer);
    let silent = tokio::time::timeout(Duration::from_millis(500), client.apiserver_version()).await;
    plane.thaw(Component::ApiServer);
    assert!(silent.is_err(), "it answered: {silent:?}");
    until("it answers again", || async { client.apiserver_version().await.ok() }).await;
}

#[tokio::test]
async fn after_each_component_was_killed_a_new_fleet_still_gets_ready() {
    let plane = plane::alone().await;
    for component in Component::ALL {
        let before = plane.pid(component);
        plane.kill(component);
        plane.restart(component);
        assert_ne!(plane.pid(component), before);
    }
    let client = plane.client(User::Admin).await;
    until("the API server takes writes", || async {
        let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "after-kills"}})).ok()?;
        maps.create(&PostParams::default(), &map).await.ok()
    })
    .await;
    let namespace = plane.namespace(&client, "kills").await;
    web(&plane, &client, &namespace, 2).await;
}

#[tokio::test]
async fn a_component_that_ends_by_itself_is_started_again() {
    let plane = plane::alone().await;
    for component in [Component::ControllerManager, Component::Scheduler] {
        let before = plane.pid(component);
        kill(Pid::from_raw(before.cast_signed()), Signal::SIGKILL).unwrap();
        until("another process runs", || async { (plane.pid(component) != before).then_some(()) }).await;
    }
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "by-itself").await;
    web(&plane, &client, &namespace, 2).await;
}

#[tokio::test]
async fn the_pods_of_a_lost_node_are_not_ready_until_it_is_back() {
    let plane = plane::alone().await;
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "node").await;
    web(&plane, &client, &namespace, 2).await;
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let chosen = ready(&client, &namespace).await.unwrap().pop().unwrap();
    let node = pods.get(&chosen).await.unwrap().spec.unwrap().node_name.unwrap();
    let nodes = Api::<Node>::all(client.clone());
    let lost = |value: Value| Patch::Merge(json!({"metadata": {"annotations": {"stand-in/lost": value}}}));
    nodes.patch(&node, &PatchParams::default(), &lost(json!("true"))).await.unwrap();
    let (_, took) = until("its pods are not ready", || async {
        (!ready(&client, &namespace).await?.contains(&chosen)).then_some(())
    })
    .await;
    println!("node lost -> its pods not ready: {:.1} s", took.as_secs_f64());
    nodes.patch(&node, &PatchParams::default(), &lost(Value::Null)).await.unwrap();
    until("its pods are ready again", || async {
        ready(&client, &namespace).await?.contains(&chosen).then_some(())
    })
    .await;
    // Leaves the node ready for the next test.
    until("the node is ready, and without a taint", || async {
        let node = nodes.get(&node).await.ok()?;
        node.spec.unwrap().taints.is_none().then_some(())
    })
    .await;
}
