//! The end of a resource: traffic first, then the marks, then the finalizer.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    controller,
    plane::User,
    scene::{Scene, marks},
};

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
    let gone = async || !scene.controller.get("/metrics").await.unwrap().1.contains("name=\"web\"");
    scene.until("its gauges are gone with it", gone).await;
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

/// Runs a release of the scene's namespace to its end: the exit code and the log.
async fn released(scene: &Scene, seconds: &str, further: &[&str]) -> (Option<i32>, String) {
    let kubeconfig = scene.stage.plane.kubeconfig(User::Admin);
    let recipe = controller::Recipe::with_kubeconfig(kubeconfig).namespace(&scene.stage.namespace);
    let recipe = further
        .iter()
        .fold(recipe.argument("--release").argument(seconds), |recipe, word| recipe.argument(*word));
    let release = recipe.start();
    scene.until("the release ends", async || !release.lives()).await;
    (release.stop(), release.log())
}

/// A Deployment that stands for the controllers.
fn controllers(scene: &Scene, finalizers: &serde_json::Value) {
    let labels = json!({"app": "controllers"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "controllers"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels, "finalizers": finalizers},
            "spec": {"containers": [{"name": "app", "image": "app:1"}], "terminationGracePeriodSeconds": 1},
        }},
    });
    scene.stage.kubectl(&["apply", "-f", "-"], &deployment);
    scene.stage.kubectl(&["rollout", "status", "deployment/controllers", "--timeout=60s"], &json!({}));
}

async fn replicas(scene: &Scene) -> Option<i32> {
    let deployments = Api::<Deployment>::namespaced(scene.stage.client.clone(), &scene.stage.namespace);
    deployments.get("controllers").await.unwrap().spec.unwrap().replicas
}

#[tokio::test]
async fn a_release_gives_all_traffic_back_and_keeps_the_resources_for_a_controller_that_comes_later() {
    let scene = with_one_withheld("uninstall").await;
    scene.controller.stop();
    controllers(&scene, &json!([]));
    let name = format!("{}/controllers", scene.stage.namespace);
    let (code, log) = released(&scene, "30", &["--release-after", &name]).await;
    assert_eq!(code, Some(0), "{log}");
    let left: Vec<String> = scene.pods().await.into_values().flat_map(|pod| marks(&pod)).collect();
    assert_eq!((scene.those("yes").await.len(), left), (3, vec![]));
    let resource = scene.shop.resource().await.unwrap();
    assert_eq!(resource["metadata"]["finalizers"], json!(null), "a kubectl delete of it does not hang");
    assert_eq!(replicas(&scene).await, Some(0), "the controllers were stopped first");
    scene.controller.launch();
    scene.until_those("no", 1).await;
}

#[tokio::test]
async fn a_release_withholds_nobody_even_while_pods_are_bad() {
    let scene = Scene::simple("uninstall-bad", 3, 50).await;
    scene.controller.stop();
    scene.bad(scene.names().await);
    let (code, log) = released(&scene, "30", &[]).await;
    assert_eq!((code, scene.those("yes").await.len()), (Some(0), 3), "{log}");
}

#[tokio::test]
async fn controllers_that_do_not_end_in_time_get_their_replicas_back_and_nothing_is_released() {
    let scene = with_one_withheld("uninstall-late").await;
    controllers(&scene, &json!(["example.test/keeps-it"]));
    let name = format!("{}/controllers", scene.stage.namespace);
    let (code, log) = released(&scene, "2", &["--release-after", &name]).await;
    assert_eq!(code, Some(124), "{log}");
    assert!(log.contains("did not end within 2 s") && log.contains("uninstall again"), "{log}");
    assert_eq!((replicas(&scene).await, scene.those("no").await.len()), (Some(2), 1));
    let gone = json!({"metadata": {"finalizers": null}});
    let pods = Api::<Pod>::namespaced(scene.stage.client.clone(), &scene.stage.namespace);
    for pod in pods.list(&ListParams::default().labels("app=controllers")).await.unwrap() {
        let name = pod.metadata.name.unwrap();
        let _gone_already = pods.patch(&name, &PatchParams::default(), &Patch::Merge(&gone)).await;
    }
}

#[tokio::test]
async fn a_release_that_is_refused_says_what_is_left_and_the_controllers_run_again() {
    let scene = with_one_withheld("uninstall-refused").await;
    scene.controller.stop();
    controllers(&scene, &json!([]));
    // The right to stop the controllers, and none to write pods.
    let (code, log) = {
        let kubeconfig = scene.stage.plane.kubeconfig(User::Nobody);
        let recipe = controller::Recipe::with_kubeconfig(kubeconfig).namespace(&scene.stage.namespace);
        let rules = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
            "rules": [
                {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
                {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"]},
            ],
        });
        scene.stage.kubectl(&["apply", "-f", "-"], &rules);
        scene
            .stage
            .kubectl(&["create", "rolebinding", "reader", "--role=reader", "--user=nobody"], &json!({}));
        let name = format!("{}/controllers", scene.stage.namespace);
        let release =
            recipe.argument("--release").argument("3").argument("--release-after").argument(name).start();
        scene.until("the release ends", async || !release.lives()).await;
        (release.stop(), release.log())
    };
    assert_eq!(code, Some(124), "{log}");
    assert!(log.contains("KubervisorService") && log.contains("The controllers run again"), "{log}");
    assert_eq!((replicas(&scene).await, scene.those("no").await.len()), (Some(2), 1));
}
