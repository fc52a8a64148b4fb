//! Owners other than Deployments and StatefulSets: each says how many pods it wants, however few there are. Where that cannot
//! be known nothing is withheld.

use serde_json::{Value, json};

use crate::{
    plane::{Plane, User},
    scene::{Scene, Stage},
    shop,
};

/// Four pods of an owner, behind a Service; half of what it wants has to serve.
async fn fleet_of(hint: &str, owner: &Value) -> Scene {
    let stage = Stage::set(hint).await;
    let recipe = shop::Recipe::of("web", 0).breaker("slow", &stage.asks(), 50);
    let scene = stage.play(&recipe).await;
    scene.stage.kubectl(&["apply", "-f", "-"], owner);
    let reference = reference(&scene, owner);
    let pods: Vec<Value> = (0..4)
        .map(|n| {
            let labels = json!({"app": "web", "kubervisor/traffic": "yes"});
            let metadata =
                json!({"name": format!("web-{n}"), "labels": labels, "ownerReferences": [reference]});
            let spec = json!({"containers": [{"name": "app", "image": "app:1"}]});
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        })
        .collect();
    scene.stage.kubectl(&["apply", "-f", "-"], &json!({"apiVersion": "v1", "kind": "List", "items": pods}));
    scene.until("four endpoints", async || scene.shop.endpoints().await.unwrap().len() == 4).await;
    scene
}

/// What `kubectl get` prints of an object's UID, as an owner reference to it.
fn reference(scene: &Scene, owner: &Value) -> Value {
    let (kind, name) = (owner["kind"].as_str().unwrap(), owner["metadata"]["name"].as_str().unwrap());
    let arguments = ["-n", &scene.stage.namespace, "get", kind, name, "-o", "jsonpath={.metadata.uid}"];
    let done = Plane::kubectl(&scene.stage.plane, User::Admin, &arguments, "");
    let uid = String::from_utf8(done.stdout).unwrap();
    json!({"apiVersion": owner["apiVersion"], "kind": kind, "name": name, "uid": uid, "controller": true})
}

async fn until_floor(scene: &Scene, floor: u32) {
    let is = async || scene.shop.resource().await.unwrap()["status"]["floor"] == floor;
    scene.until(&format!("the floor is {floor}"), is).await;
}

/// All four are bad, and half of eight have to serve: nobody is cut.
async fn four_of_eight_go_on_serving(scene: &Scene) {
    until_floor(scene, 4).await;
    scene.bad(scene.names().await);
    scene.looks(2).await;
    scene.throughout(4, "nobody is cut", async || scene.those("no").await.is_empty()).await;
}

fn template() -> Value {
    let labels = json!({"app": "web", "kubervisor/traffic": "yes"});
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}})
}

#[tokio::test]
async fn a_replication_controller_that_wants_eight_and_has_four_loses_none() {
    let owner = json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web"},
        "spec": {"replicas": 8, "selector": {"app": "web"}, "template": template()},
    });
    let scene = fleet_of("replication", &owner).await;
    four_of_eight_go_on_serving(&scene).await;
    scene.stage.kubectl(&["scale", "rc/web", "--replicas=4"], &json!(null));
    scene.until_those("no", 2).await;
}

#[tokio::test]
async fn a_daemon_set_wants_a_pod_on_each_of_its_nodes() {
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template()},
    });
    let scene = fleet_of("daemons", &owner).await;
    let nodes = json!({"status": {"desiredNumberScheduled": 8, "currentNumberScheduled": 4, "numberMisscheduled": 0, "numberReady": 4}});
    let nodes = nodes.to_string();
    let patch = ["patch", "ds/web", "--subresource=status", "--type=merge", "-p", &nodes];
    scene.stage.kubectl(&patch, &json!(null));
    four_of_eight_go_on_serving(&scene).await;
}

#[tokio::test]
async fn a_job_wants_as_many_as_it_runs_at_a_time() {
    let mut pod = template();
    pod["spec"]["restartPolicy"] = json!("Never");
    let owner = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "web"},
        "spec": {"parallelism": 8, "completions": 20, "template": pod},
    });
    four_of_eight_go_on_serving(&fleet_of("job", &owner).await).await;
}

/// Defines a custom kind that may own pods, with a `scale` subresource or without.
fn define(stage: &Stage, kind: &str, scaled: bool) {
    let plural = format!("{}s", kind.to_lowercase());
    let name = format!("{plural}.owners.example.com");
    let scale = json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"});
    let subresources = if scaled { json!({"scale": scale}) } else { json!({}) };
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": schema, "subresources": subresources});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
        "spec": {
            "group": "owners.example.com", "scope": "Namespaced", "versions": [version],
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
        },
    });
    stage.kubectl(&["apply", "-f", "-"], &definition);
    stage.kubectl(
        &["wait", "--for=condition=Established", &format!("crd/{name}"), "--timeout=60s"],
        &json!(null),
    );
}

fn custom(kind: &str, replicas: u32) -> Value {
    let metadata = json!({"name": "web"});
    let spec = json!({"replicas": replicas});
    json!({"apiVersion": "owners.example.com/v1", "kind": kind, "metadata": metadata, "spec": spec})
}

#[tokio::test]
async fn a_custom_owner_counts_by_its_scale_when_all_of_its_sets_are_selected_and_by_the_selected_sets_else()
{
    let stage = Stage::set("colour").await;
    define(&stage, "Rollout", true);
    let recipe = shop::Recipe::of("web", 0).breaker("slow", &stage.asks(), 50);
    let scene = stage.play(&recipe).await;
    let owner = custom("Rollout", 12);
    scene.stage.kubectl(&["apply", "-f", "-"], &owner);
    let reference = reference(&scene, &owner);
    let set = |colour: &str, replicas: u32| {
        let mut pod = template();
        pod["metadata"]["labels"]["colour"] = json!(colour);
        let metadata = json!({"name": format!("web-{colour}"), "ownerReferences": [reference]});
        let selector = json!({"matchLabels": {"app": "web", "colour": colour}});
        let spec = json!({"replicas": replicas, "selector": selector, "template": pod});
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec})
    };
    let sets = [set("blue", 4), set("green", 2)];
    scene.stage.kubectl(&["apply", "-f", "-"], &json!({"apiVersion": "v1", "kind": "List", "items": sets}));
    // Both colours: half of the twelve that the owner wants.
    until_floor(&scene, 6).await;
    scene.stage.edit_service("web", json!({"spec": {"selector": {"colour": "blue"}}})).await;
    until_floor(&scene, 2).await;
    scene.stage.edit_service("web", json!({"spec": {"selector": {"colour": null}}})).await;
    until_floor(&scene, 6).await;
    scene.stage.kubectl(&["scale", "rollouts.owners.example.com/web", "--replicas=6"], &json!(null));
    until_floor(&scene, 3).await;
}

#[tokio::test]
async fn where_an_owner_does_not_say_how_many_it_wants_nothing_is_withheld_and_a_condition_names_it() {
    let stage = Stage::set("silentowner").await;
    define(&stage, "Herd", false);
    drop(stage);
    let scene = fleet_of("herd", &custom("Herd", 8)).await;
    let told = scene.until_condition("DesiredUnknown", "True").await;
    assert!(told.message.contains("Herd web") && told.message.contains("no scale subresource"), "{told:?}");
    assert_eq!(scene.until_condition("Ready", "False").await.reason, "OwnerUnreadable");
    scene.bad(scene.names().await.into_iter().take(1));
    scene.looks(2).await;
    scene.throughout(4, "nobody is cut", async || scene.those("no").await.is_empty()).await;
}
