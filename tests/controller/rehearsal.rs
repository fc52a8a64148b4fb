//! Decisions that are not carried out: `spec.paused`, `spec.dryRun`, a breaker's `dryRun`, the flag.

use serde_json::{Value, json};

use crate::{
    scene::{Scene, Stage},
    shop,
};

/// One of four is withheld.
async fn with_one_withheld(hint: &str) -> (Scene, Vec<String>) {
    let scene = Scene::simple(hint, 4, 50).await;
    let all = scene.names().await;
    scene.bad(&all[..1]);
    scene.until_withheld(&all[..1]).await;
    (scene, all)
}

#[tokio::test]
async fn paused_cuts_and_admits_nobody_but_claims_go_on() {
    let (scene, all) = with_one_withheld("paused").await;
    scene.set("paused", json!(true)).await;
    scene.until("it says so", async || scene.condition("Gating").await.unwrap().reason == "Paused").await;
    scene.bad(&all[1..2]);
    scene.throughout(5, "frozen", async || scene.those("no").await == all[..1]).await;
    // One that comes without the switch gets it.
    scene.switch(&all[3], json!(null)).await;
    scene.until_those("yes", 3).await;
    scene.set("paused", json!(false)).await;
    scene.until_withheld(&all[1..2]).await;
}

#[tokio::test]
async fn paused_restores_what_is_missing_at_the_floor() {
    let (scene, all) = with_one_withheld("pausedfloor").await;
    scene.set("paused", json!(true)).await;
    scene.until("it says so", async || scene.condition("Gating").await.unwrap().reason == "Paused").await;
    // Two are paused by hand: 1 of 4 serves, the floor is 2.
    scene.switch(&all[1], json!("no")).await;
    scene.throughout(2, "still two", async || scene.those("no").await.len() == 2).await;
    scene.switch(&all[2], json!("no")).await;
    scene.until("ours is given back", async || scene.those("yes").await.contains(&all[0])).await;
}

/// The writes on pods from now until the breaker has looked eight times.
async fn writes_meanwhile(scene: &Scene) -> Vec<String> {
    let before = scene.stage.pod_writes().len();
    scene.looks(8).await;
    scene.stage.pod_writes().split_off(before)
}

#[tokio::test]
async fn a_dry_run_gives_back_and_then_writes_no_pod_but_says_what_it_would_do() {
    let (scene, all) = with_one_withheld("dry").await;
    scene.set("dryRun", json!(true)).await;
    scene.until_withheld(&[]).await;
    scene.until_condition("DryRun", "True").await;
    scene.until_condition("DryRunWhileGated", "True").await;
    scene.bad(&all);
    scene.until("the ledger is empty", async || scene.shop.entries().await == Some(0)).await;
    assert_eq!(writes_meanwhile(&scene).await, Vec::<String>::new());
    let note = scene.until_event("KubervisorService", "WouldWithhold").await;
    scene.until_event("Pod", "WouldWithhold").await;
    assert!(note.contains("slow"), "{note}");
    let withheld = |explanations: &Value| {
        let all = explanations.as_array().into_iter().flatten();
        all.filter(|said| said["standing"] == "withheld" || said["standing"] == "leaving").count()
    };
    let reported = async || withheld(&scene.shop.resource().await.unwrap()["status"]["explanations"]) == 2;
    scene.until("the status reports two of four", reported).await;
    let page = scene.page("/services").await;
    let rehearsal = &page["services"][0]["rehearsal"];
    assert_eq!(withheld(&rehearsal["explanations"]), 2, "{page:#}");
    scene.set("dryRun", json!(false)).await;
    scene.until_those("no", 2).await;
}

#[tokio::test]
async fn the_status_keeps_real_and_would_be_episodes_apart_and_over_a_restart() {
    let (scene, all) = with_one_withheld("episodes").await;
    let told = async |kind: &str, over: bool| -> Vec<String> {
        let status = scene.shop.resource().await.unwrap()["status"].clone();
        let episodes = status["episodes"].as_array().cloned().unwrap_or_default();
        let ours = |one: &&Value| one["kind"] == kind && one["to"].is_string() == over;
        episodes.iter().filter(ours).map(|one| one["pod"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((told("real", false).await, told("dryRun", false).await), (all[..1].to_vec(), vec![]));
    scene.set("dryRun", json!(true)).await;
    scene.until_withheld(&[]).await;
    scene.bad(&all[..2]);
    scene.until("both would be withheld", async || told("dryRun", false).await.len() == 2).await;
    assert_eq!((told("real", true).await, told("real", false).await), (all[..1].to_vec(), vec![]));
    scene.bad(&all[..0]);
    scene.controller.kill();
    scene.controller.launch();
    scene.controller.ready().await;
    scene.until("the dry run begins anew", async || told("dryRun", true).await.len() >= 2).await;
    assert_eq!(told("real", true).await, all[..1]);
    scene.until("nobody would be withheld", async || told("dryRun", false).await.is_empty()).await;
}

#[tokio::test]
async fn a_breaker_that_rehearses_cuts_nobody_beside_one_that_does() {
    let stage = Stage::set("dryone").await;
    let second = stage.signals.service("second");
    let recipe = shop::Recipe::of("web", 4).breaker("slow", &stage.asks(), 50).raw_breaker(json!({
        "name": "trial", "customService": second, "evaluationPeriod": 0.3, "dryRun": true,
    }));
    let scene = stage.play(&recipe).await;
    let all = scene.names().await;
    scene.stage.signals.bad("second", &scene.stage.namespace, &all[3..]);
    scene.bad(&all[..1]);
    scene.until_withheld(&all[..1]).await;
    let note = scene.until_event("Pod", "WouldWithhold").await;
    assert!(note.contains("trial"), "{note}");
    let of_who_acts = scene.events("Pod", "WouldWithhold").await;
    assert!(
        !of_who_acts.iter().any(|note| note.contains("slow")),
        "it did, and not only would: {of_who_acts:?}"
    );
    assert_eq!(scene.condition("DryRun").await.unwrap().reason, "SomeBreakersRehearse");
    scene.throughout(4, "one is enough", async || scene.those("no").await == all[..1]).await;
}

#[tokio::test]
async fn with_the_flag_no_pod_is_ever_written() {
    let stage = Stage::set("flag").await;
    let recipe = shop::Recipe::of("web", 4).breaker("slow", &stage.asks(), 50);
    let shop = stage.fleet(&recipe).await;
    let controller = stage.controller().argument("--dry-run").start();
    controller.ready().await;
    let scene = Scene { stage, shop, controller };
    let all = scene.names().await;
    scene.bad(&all);
    scene.until_event("Pod", "WouldWithhold").await;
    scene.until_condition("DryRun", "True").await;
    scene.looks(6).await;
    assert_eq!(scene.stage.pod_writes(), Vec::<String>::new());
    let page = scene.page("/services").await;
    assert_eq!(
        (&page["services"][0]["dryRun"], page["services"].as_array().unwrap().len()),
        (&json!(true), 1)
    );
}
