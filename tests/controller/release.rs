//! The end of a resource: traffic first, then the marks, then the finalizer.

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::scene::{Scene, marks};

/// One of three is withheld.
async fn with_one_withheld(hint: &str) -> Scene {
    let scene = Scene::simple(hint, 3, 50).await;
    let chosen = scene.names().await.swap_remove(0);
    scene.bad([&chosen]);
    scene.until_withheld(&[chosen]).await;
    scene
}

async fn nobody_is_marked(scene: &Scene) {
    let clean = async || {
        let pods = scene.pods().await.into_values();
        let marks: Vec<String> = pods.flat_map(|pod| marks(&pod)).collect();
        marks.is_empty() && scene.those("yes").await.len() == 3
    };
    scene.until("no mark of ours is left on any pod, and all have traffic", clean).await;
}

async fn is_gone(scene: &Scene) {
    let gone = async || scene.shop.resources().get_opt("web").await.unwrap().is_none();
    scene.until("the resource is gone", gone).await;
}

#[tokio::test]
async fn a_deleted_resource_gives_traffic_back_and_takes_its_marks_off() {
    let scene = with_one_withheld("deleted").await;
    scene.shop.resources().delete("web", &DeleteParams::default()).await.unwrap();
    let began = std::time::Instant::now();
    while scene.shop.resources().get_opt("web").await.unwrap().is_some() {
        assert!(began.elapsed().as_secs() < 60, "the finalizer stays");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // By then all is done: nothing is left for later.
    let left: Vec<String> = scene.pods().await.into_values().flat_map(|pod| marks(&pod)).collect();
    assert_eq!((scene.those("yes").await.len(), left), (3, vec![]));
    scene.until("three endpoints", async || scene.shop.endpoints().await.unwrap().len() == 3).await;
    let metrics = scene.controller.get("/metrics").await.unwrap().1;
    assert!(!metrics.contains("name=\"web\""), "its gauges are gone with it: {metrics}");
}

#[tokio::test]
async fn a_resource_deleted_while_nobody_looks_is_seen_through_at_the_next_start() {
    let scene = with_one_withheld("unattended").await;
    scene.controller.kill();
    scene.shop.resources().delete("web", &DeleteParams::default()).await.unwrap();
    assert!(scene.shop.resources().get_opt("web").await.unwrap().is_some(), "the finalizer holds it");
    scene.controller.launch();
    is_gone(&scene).await;
    nobody_is_marked(&scene).await;
}

#[tokio::test]
async fn a_finalizer_does_not_keep_a_namespace_from_being_deleted() {
    let scene = with_one_withheld("ending").await;
    let namespaces = Api::<Namespace>::all(scene.stage.client.clone());
    let name = &scene.stage.namespace;
    namespaces.delete(name, &DeleteParams::default()).await.unwrap();
    scene.until("the namespace is gone", async || namespaces.get_opt(name).await.unwrap().is_none()).await;
}

#[tokio::test]
async fn pods_of_a_resource_that_went_by_force_are_freed_at_once_and_at_the_next_start() {
    for down in [false, true] {
        let scene = with_one_withheld("forced").await;
        if down {
            scene.controller.kill();
        }
        let resources = scene.shop.resources();
        let force = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        resources.delete("web", &DeleteParams::default()).await.unwrap();
        // It may have gone by itself meanwhile.
        let _gone_already = resources.patch("web", &PatchParams::default(), &force).await;
        is_gone(&scene).await;
        if down {
            assert_eq!(scene.those("no").await.len(), 1);
            scene.controller.launch();
        }
        nobody_is_marked(&scene).await;
    }
}
