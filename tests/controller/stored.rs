//! Resources stored under an older, less strict definition.

use serde_json::json;

use crate::{
    plane::{self, User, until},
    scene::{Scene, Stage},
    shop,
};

/// A definition that takes anything.
fn loose() -> serde_json::Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "kubervisorservices.kubervisor.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, compatible with existing KubervisorService manifests"},
        },
        "spec": {
            "group": "kubervisor.k8s.io", "scope": "Namespaced",
            "names": {"kind": "KubervisorService", "listKind": "KubervisorServiceList", "plural": "kubervisorservices", "singular": "kubervisorservice"},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

#[tokio::test]
async fn a_resource_that_an_older_definition_took_is_said_to_be_invalid_and_its_repair_is_seen() {
    let (namespace, recipe) = {
        let plane = plane::alone().await;
        let client = plane.client(User::Admin).await;
        let namespace = plane.namespace(&client, "stored").await;
        let definition = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        let done = plane.kubectl(User::Admin, &definition, &loose().to_string());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let recipe = shop::Recipe::of("web", 3).raw_breaker(json!({"name": "none", "evaluationPeriod": -1}));
        let resource = recipe.resource().to_string();
        let apply = ["apply", "-n", &namespace, "-f", "-"];
        until("it is stored", || async {
            plane.kubectl(User::Admin, &apply, &resource).status.success().then_some(())
        })
        .await;
        shop::install(&plane);
        (namespace, recipe)
    };
    let stage = Stage { namespace, ..Stage::set("unused").await };
    stage.kubectl(&["apply", "-f", "-"], &recipe.workload());
    let shop = shop::Shop {
        client: stage.client.clone(),
        namespace: stage.namespace.clone(),
        name: "web".to_owned(),
    };
    let controller = stage.controller().start();
    controller.ready().await;
    let scene = Scene { stage, shop, controller };
    let told = scene.until_condition("InitFailed", "True").await;
    assert!(told.reason == "InvalidSpec" && told.message.contains("evaluationPeriod"), "{told:?}");
    assert_eq!(scene.until_condition("Ready", "False").await.reason, "InvalidSpec");
    let breaker = json!({"name": "slow", "customService": scene.stage.asks(), "evaluationPeriod": 0.3, "minPodsAvailableRatio": 50});
    scene.set("breakers", json!([breaker])).await;
    scene.until_condition("InitFailed", "False").await;
    scene.until_condition("Ready", "True").await;
    let chosen = scene.names().await.swap_remove(0);
    scene.bad([&chosen]);
    scene.until_withheld(&[chosen]).await;
}
