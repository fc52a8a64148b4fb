//! What is written on pods, and when: the switch, the name, and the marks of a cut.

use serde_json::json;

use crate::{
    scene::{Scene, Stage, annotation, label, marks},
    shop,
};

#[tokio::test]
async fn pods_without_the_switch_get_yes_and_every_pod_gets_the_name() {
    let stage = Stage::set("initial").await;
    let recipe = shop::Recipe::of("web", 3).unlabelled().breaker("slow", &stage.asks(), 50);
    let scene = stage.play(&recipe).await;
    scene.until_condition("Ready", "True").await;
    for (name, pod) in scene.pods().await {
        assert_eq!(label(&pod, "kubervisor/traffic").as_deref(), Some("yes"), "{name}");
        assert_eq!(label(&pod, "kubervisor/name").as_deref(), Some("web"), "{name}");
    }
    scene.until("all serve", async || scene.shop.endpoints().await.unwrap().len() == 3).await;
    let told = scene.until_condition("TemplateUnlabelled", "True").await;
    assert!(told.message.contains("pod template"), "{told:?}");
    // One more comes, and one loses its switch.
    scene.stage.kubectl(&["scale", "deployment/web", "--replicas=4"], &json!(null));
    scene.until_those("yes", 4).await;
    let lost = scene.names().await.swap_remove(0);
    scene.switch(&lost, json!(null)).await;
    scene.until_those("yes", 4).await;
}

#[tokio::test]
async fn a_cut_leaves_its_marks_on_the_pod_and_an_admit_takes_them_off() {
    let scene = Scene::simple("marks", 3, 50).await;
    let chosen = scene.names().await.swap_remove(0);
    scene.bad([&chosen]);
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    let pod = scene.pod(&chosen).await;
    assert_eq!(label(&pod, "kubervisor/strategy").as_deref(), Some("slow"));
    assert_eq!(annotation(&pod, "breaker/retryCount").as_deref(), Some("1"));
    let cut: jiff::Timestamp = annotation(&pod, "breaker/breakAt").unwrap().parse().expect("RFC 3339");
    assert!(cut.duration_until(jiff::Timestamp::now()).as_secs() < 60);
    let left = async || !scene.shop.endpoints().await.unwrap().contains(&chosen);
    scene.until("it leaves the endpoints", left).await;
    scene.bad::<String>([]);
    scene.until_withheld(&[]).await;
    let pod = scene.pod(&chosen).await;
    assert_eq!(label(&pod, "kubervisor/strategy"), None);
    assert_eq!(annotation(&pod, "breaker/breakAt"), None);
    assert_eq!(annotation(&pod, "controller.kubernetes.io/pod-deletion-cost"), None);
    assert!(annotation(&pod, "breaker/admittedAt").is_some(), "{:?}", marks(&pod));
    scene.until("the ledger is empty", async || scene.shop.entries().await == Some(0)).await;
}

#[tokio::test]
async fn each_further_cut_of_a_pod_that_turns_bad_while_coming_back_is_counted() {
    let scene = Scene::simple("counted", 3, 50).await;
    let chosen = scene.names().await.swap_remove(0);
    for count in 1..=3 {
        scene.bad([&chosen]);
        scene.until_withheld(std::slice::from_ref(&chosen)).await;
        let retries = annotation(&scene.pod(&chosen).await, "breaker/retryCount");
        assert_eq!(retries, Some(count.to_string()));
        scene.bad::<String>([]);
        scene.until_withheld(&[]).await;
    }
}
