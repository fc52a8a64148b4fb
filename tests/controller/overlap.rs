//! Several resources: over the same pods, and of the same name elsewhere.

use kube::api::DeleteParams;
use serde_json::json;

use crate::{
    scene::{Scene, Stage, condition_of, label},
    shop::{self, Shop},
};

/// A second resource of the same Service, with a signal of its own.
fn younger(scene: &Scene) -> (shop::Recipe, Shop) {
    let second = scene.stage.signals.service("second");
    let recipe = shop::Recipe::of("younger", 4).breaker("second", &second, 50).spec("service", json!("web"));
    let shop = Shop { name: "younger".to_owned(), ..scene.shop.clone() };
    (recipe, shop)
}

#[tokio::test]
async fn the_younger_of_two_over_the_same_pods_steps_back_and_takes_over_when_the_elder_is_gone() {
    let scene = Scene::simple("overlap", 4, 50).await;
    scene.until_condition("Ready", "True").await;
    // Which of two is older is told by whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let (recipe, younger) = younger(&scene);
    scene.stage.kubectl(&["apply", "-f", "-"], &recipe.resource());
    let overlaps =
        async || condition_of(&younger, "Overlapping").await.is_some_and(|found| found.status == "True");
    scene.until("the younger one steps back", overlaps).await;
    let told = condition_of(&younger, "Overlapping").await.unwrap();
    assert!(told.message.contains("web"), "{told:?}");
    let all = scene.names().await;
    scene.stage.signals.bad("second", &scene.stage.namespace, &all[2..3]);
    scene.bad(&all[..1]);
    scene.until_withheld(&all[..1]).await;
    scene.throughout(3, "only the elder cuts", async || scene.those("no").await == all[..1]).await;
    assert_eq!(condition_of(&scene.shop, "Ready").await.unwrap().status, "True");

    scene.shop.resources().delete("web", &DeleteParams::default()).await.unwrap();
    scene.until("the younger one cuts", async || scene.those("no").await == all[2..3]).await;
    scene
        .until("it is ready", async || {
            condition_of(&younger, "Ready").await.is_some_and(|c| c.status == "True")
        })
        .await;
    for (name, pod) in scene.pods().await {
        assert_eq!(label(&pod, "kubervisor/name").as_deref(), Some("younger"), "{name}");
    }
}

#[tokio::test]
async fn a_service_that_begins_to_select_the_pods_of_an_elder_makes_the_younger_give_back() {
    let stage = Stage::set("intrude").await;
    let elder = shop::Recipe::of("web", 2).breaker("slow", &stage.asks(), 50);
    let mut scene = stage.play(&elder).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let second = scene.stage.signals.service("second");
    let other = scene.stage.fleet(&shop::Recipe::of("other", 2).breaker("second", &second, 50)).await;
    let elder = std::mem::replace(&mut scene.shop, other);
    let theirs = scene.names().await;
    scene.stage.signals.bad("second", &scene.stage.namespace, &theirs[..1]);
    scene.until_withheld(&theirs[..1]).await;
    scene.stage.edit_service("other", json!({"spec": {"selector": {"app": "web"}}})).await;
    scene.until_condition("Overlapping", "True").await;
    scene.until_withheld(&[]).await;
    assert_eq!(condition_of(&elder, "Overlapping").await, None);
    scene.stage.edit_service("other", json!({"spec": {"selector": {"app": "other"}}})).await;
    scene.until_withheld(&theirs[..1]).await;
}

#[tokio::test]
async fn namesakes_in_two_namespaces_do_not_disturb_each_other() {
    let here = Scene::simple("namesake", 2, 50).await;
    let there = here.stage.beside("namesake").await;
    let recipe = shop::Recipe::of("web", 2).breaker("slow", &there.asks(), 50);
    let shop = there.fleet(&recipe).await;
    // One controller of both.
    let both = here.stage.controller().namespace(&there.namespace).start();
    both.ready().await;
    let there = Scene { stage: there, shop, controller: both };
    here.controller.kill();
    let (ours, theirs) = (here.names().await, there.names().await);
    here.bad(&ours[..1]);
    there.bad(&theirs[..1]);
    here.until_withheld(&ours[..1]).await;
    there.until_withheld(&theirs[..1]).await;
    there.shop.resources().delete("web", &DeleteParams::default()).await.unwrap();
    there.until_withheld(&[]).await;
    here.throughout(3, "still withheld", async || here.those("no").await == ours[..1]).await;
    let marked =
        here.pods().await.into_values().all(|pod| label(&pod, "kubervisor/name").as_deref() == Some("web"));
    assert!(marked, "their farewell took our marks");
}
