//! The floor: how many pods serve whatever the signal says.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    scene::{SIGNAL, Scene, Stage},
    shop,
};

/// All pods are bad from now on; so many are withheld, and it stays at that.
async fn all_bad(scene: &Scene, withheld: usize) {
    let all = scene.names().await;
    scene.bad(&all);
    scene.until_those("no", withheld).await;
    scene.throughout(4, "no more and no less", async || scene.those("no").await.len() == withheld).await;
}

#[tokio::test]
async fn ten_bad_pods_at_half_become_five_and_stay_five_over_the_periods() {
    let scene = Scene::simple("ratchet", 10, 50).await;
    all_bad(&scene, 5).await;
    let told = scene.until_condition("FloorReached", "True").await;
    assert_eq!(told.reason, "FloorHolds");
    scene.until_event("KubervisorService", "FloorReached").await;
    scene.until("five endpoints", async || scene.shop.endpoints().await.unwrap().len() == 5).await;
}

#[tokio::test]
async fn a_ratio_is_rounded_up() {
    // 34 % of 5 are 1.7.
    all_bad(&Scene::simple("rounded", 5, 34).await, 3).await;
}

#[tokio::test]
async fn two_breakers_share_one_budget_and_the_larger_floor_counts() {
    let stage = Stage::set("budget").await;
    let (asks, second) = (stage.asks(), stage.signals.service("second"));
    let recipe = shop::Recipe::of("web", 6).breaker("first", &asks, 50).breaker("second", &second, 60);
    let scene = stage.play(&recipe).await;
    let all = scene.names().await;
    scene.stage.signals.bad("second", &scene.stage.namespace, &all[3..]);
    scene.bad(&all[..3]);
    // 60 % of 6 are 3.6.
    scene.until_those("no", 2).await;
    scene.throughout(4, "two at most", async || scene.those("no").await.len() == 2).await;
}

#[tokio::test]
async fn tiny_fleets_keep_their_last_pod() {
    for (pods, withheld) in [(1, 0), (2, 1), (3, 2)] {
        let scene = Scene::simple("tiny", pods, 0).await;
        let all = scene.names().await;
        scene.bad(&all);
        scene.looks(2).await;
        all_bad(&scene, withheld).await;
    }
}

#[tokio::test]
async fn a_namesake_in_another_namespace_and_a_stranger_cut_nobody() {
    let scene = Scene::simple("stranger", 3, 50).await;
    let chosen = scene.names().await.swap_remove(0);
    scene.stage.signals.bad(SIGNAL, "elsewhere", [&chosen]);
    scene.throughout(3, "it is another pod", async || scene.those("no").await.is_empty()).await;
    scene.bad([&chosen, "nobody"]);
    scene.until_withheld(&[chosen]).await;
}

#[tokio::test]
async fn when_most_of_the_fleet_looks_bad_everybody_comes_back_until_it_is_over() {
    let stage = Stage::set("panic").await;
    let recipe =
        shop::Recipe::of("web", 5).breaker("slow", &stage.asks(), 20).spec("panicThreshold", json!(50));
    let scene = stage.play(&recipe).await;
    let all = scene.names().await;
    scene.bad(&all[..2]);
    scene.until_withheld(&all[..2]).await;
    scene.bad(&all[..3]);
    scene.until_condition("Panic", "True").await;
    scene.until_withheld(&[]).await;
    scene.until_event("KubervisorService", "PanicEntered").await;
    scene.throughout(3, "nobody is cut", async || scene.those("no").await.is_empty()).await;
    scene.bad(&all[..1]);
    scene.until_event("KubervisorService", "PanicLeft").await;
    scene.until_withheld(&all[..1]).await;
}

#[tokio::test]
async fn the_worst_are_withheld_first() {
    let stage = Stage::set("worst").await;
    let prometheus = stage.signals.service("").trim_end_matches('/').to_owned();
    let recipe = shop::Recipe::of("web", 4).raw_breaker(json!({
        "name": "errors", "evaluationPeriod": 0.3, "minPodsAvailableRatio": 50,
        "discreteValueOutOfList": {
            "prometheusService": prometheus, "promQL": "requests", "key": "code", "podNamekey": "pod",
            "goodValues": ["200"], "tolerance": 10,
        },
    }));
    let scene = stage.play(&recipe).await;
    let all = scene.names().await;
    let errors: BTreeMap<&String, u32> = all.iter().zip([30, 90, 60, 80]).collect();
    scene.stage.signals.says("api/v1/query", vector(&errors));
    scene.until_withheld(&[all[1].clone(), all[3].clone()]).await;
}

/// So many errors of a hundred requests for each pod, as Prometheus says it.
fn vector(errors: &BTreeMap<&String, u32>) -> Value {
    let now = jiff::Timestamp::now().as_second();
    let series = |pod: &str, code: &str, count: u32| json!({"metric": {"pod": pod, "code": code}, "value": [now, count.to_string()]});
    let both = errors.iter().flat_map(|(pod, bad)| [series(pod, "500", *bad), series(pod, "200", 100 - bad)]);
    json!({"status": "success", "data": {"resultType": "vector", "result": both.collect::<Vec<_>>()}})
}
