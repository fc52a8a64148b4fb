//! The effect of a withdrawal on the endpoints and on the fleet's signal.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, api::PostParams};
use serde_json::json;

use crate::{
    scene::{Scene, Stage},
    shop,
};

#[tokio::test]
async fn a_second_service_without_the_key_is_found_out() {
    let scene = Scene::simple("loophole", 3, 50).await;
    let hole = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "hole"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    });
    scene.stage.kubectl(&["apply", "-f", "-"], &hole);
    let chosen = scene.names().await.swap_remove(0);
    scene.bad([&chosen]);
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    let told = scene.until_condition("NotLeavingEndpoints", "True").await;
    assert!(told.message.contains(&chosen), "{told:?}");
    scene.until_event("KubervisorService", "NotLeavingEndpoints").await;
    let explained = scene.explain(&chosen).await;
    assert!(explained["pod"]["summary"].as_str().unwrap().contains("Service hole"), "{explained:#}");
    assert_eq!(told.reason, "OtherService");
    let key = json!({"spec": {"selector": {"kubervisor/traffic": "yes"}}});
    scene.stage.edit_service("hole", key).await;
    scene.until("it is over", async || scene.condition("NotLeavingEndpoints").await.is_none()).await;
}

#[tokio::test]
async fn a_slice_of_another_manager_that_names_a_withheld_pod_by_its_address_is_named() {
    let scene = Scene::simple("foreign-slice", 3, 50).await;
    let chosen = scene.names().await.swap_remove(0);
    let address = scene.pod(&chosen).await.status.unwrap().pod_ip.unwrap();
    let slice = json!({
        "metadata": {"name": "web-old", "labels": {
            "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "somebody",
        }},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    });
    let slices = Api::<EndpointSlice>::namespaced(scene.stage.client.clone(), &scene.stage.namespace);
    slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
    scene.bad([&chosen]);
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    let told = scene.until_condition("NotLeavingEndpoints", "True").await;
    assert_eq!(told.reason, "ForeignSlice");
    for word in [&chosen, "web-old", "somebody"] {
        assert!(told.message.contains(word), "{told:?}");
    }
    slices.delete("web-old", &Default::default()).await.unwrap();
    scene.until("it is over", async || scene.condition("NotLeavingEndpoints").await.is_none()).await;
}

#[tokio::test]
async fn pods_without_the_port_of_the_service_count_for_no_withdrawal_and_the_condition_says_so() {
    let scene = Scene::simple("no-port", 3, 30).await;
    let port = |target| json!({"spec": {"ports": [{"port": 80, "targetPort": target}]}});
    scene.stage.edit_service("web", port("nowhere")).await;
    let told = scene.until_condition("NotListed", "True").await;
    assert_eq!(told.reason, "NoSuchPort", "{told:?}");
    let chosen = scene.names().await.swap_remove(0);
    scene.bad([&chosen]);
    scene.throughout(4, "nothing is withheld", async || scene.those("no").await.is_empty()).await;
    let explained = scene.explain(&chosen).await;
    assert_eq!(explained["pod"]["explanation"]["standing"], "notListed", "{explained:#}");
    let back = json!({"spec": {"ports": [{"port": 80, "targetPort": 80}]}});
    scene.stage.edit_service("web", back).await;
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
}

#[tokio::test]
async fn a_cut_that_does_not_lower_the_share_of_bad_pods_is_taken_back() {
    let stage = Stage::set("revert").await;
    let recipe = shop::Recipe::of("web", 4)
        .breaker("slow", &stage.asks(), 50)
        .spec("revertIfNoBetter", json!(2))
        .spec("defaultActivator", json!({"mode": "periodic", "period": 6}));
    let scene = stage.play(&recipe).await;
    let all = scene.names().await;
    scene.bad(&all);
    scene.until_those("no", 2).await;
    scene.until_those("no", 0).await;
    let note = scene.until_event("KubervisorService", "Reverted").await;
    assert!(note.contains("did not lower"), "{note}");
    scene.throughout(4, "nobody is cut at once", async || scene.those("no").await.is_empty()).await;
}

#[tokio::test]
async fn a_cut_that_helps_stays() {
    let stage = Stage::set("helps").await;
    let recipe = shop::Recipe::of("web", 4)
        .breaker("slow", &stage.asks(), 50)
        .spec("revertIfNoBetter", json!(1))
        .spec("defaultActivator", json!({"mode": "periodic", "period": 60}));
    let scene = stage.play(&recipe).await;
    let all = scene.names().await;
    scene.bad(&all[..1]);
    scene.until_withheld(&all[..1]).await;
    scene.throughout(8, "it stays withheld", async || scene.those("no").await == all[..1]).await;
}
