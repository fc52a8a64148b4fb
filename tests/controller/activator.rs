//! How a withheld pod comes back, or does not, under the breaker that cut it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    scene::{Scene, Stage},
    shop,
};

/// So many pods, and this activator.
async fn with_activator(hint: &str, pods: u32, activator: Value) -> Scene {
    let stage = Stage::set(hint).await;
    let recipe =
        shop::Recipe::of("web", pods).breaker("slow", &stage.asks(), 50).spec("defaultActivator", activator);
    stage.play(&recipe).await
}

/// How long these pods are withheld after they are good again at once.
async fn time_out(scene: &Scene, pods: &[String]) -> Duration {
    scene.bad(pods);
    scene.until_withheld(pods).await;
    let began = std::time::Instant::now();
    scene.bad::<String>([]);
    scene.until_withheld(&[]).await;
    began.elapsed()
}

#[tokio::test]
async fn periodic_waits_for_its_period_and_for_the_pod_to_be_good() {
    let scene = with_activator("periodic", 3, json!({"mode": "periodic", "period": 3})).await;
    let chosen = scene.names().await[..1].to_vec();
    let out = time_out(&scene, &chosen).await;
    assert!(out > Duration::from_millis(2500), "{out:?}");
    scene.bad(&chosen);
    scene.until_withheld(&chosen).await;
    scene.looks(12).await;
    assert_eq!(scene.those("no").await, chosen, "its time is over, but it is still bad");
}

#[tokio::test]
async fn retries_wait_longer_each_time_up_to_the_longest_period() {
    let activator = json!({"mode": "retryAndPause", "period": 1, "maxPeriod": 3, "maxRetryCount": 9});
    let scene = with_activator("longer", 3, activator).await;
    let chosen = scene.names().await[..1].to_vec();
    for (retry, least) in [(1, 0.5), (2, 1.5), (3, 2.5), (4, 2.5)] {
        let out = time_out(&scene, &chosen).await.as_secs_f64();
        assert!(out > least, "retry {retry}: back after {out} s");
        // 3 s and the look after it; without a cap the fourth would take a second more.
        assert!(retry != 4 || out < 6.0, "retry {retry}: back after {out} s");
    }
}

#[tokio::test]
async fn each_breaker_brings_back_its_own_pods_at_its_own_pace() {
    let stage = Stage::set("pace").await;
    let second = stage.signals.service("second");
    let recipe = shop::Recipe::of("web", 4).breaker("fast", &stage.asks(), 50).raw_breaker(json!({
        "name": "patient", "customService": second, "evaluationPeriod": 0.3, "activator": {"period": 30},
    }));
    let scene = stage.play(&recipe).await;
    let all = scene.names().await;
    scene.stage.signals.bad("second", &scene.stage.namespace, &all[..1]);
    scene.bad(&all[1..2]);
    scene.until_withheld(&all[..2]).await;
    scene.stage.signals.bad::<String>("second", &scene.stage.namespace, []);
    scene.bad::<String>([]);
    scene.until_withheld(&all[..1]).await;
    scene.throughout(6, "the patient one's pod stays", async || scene.those("no").await == all[..1]).await;
}

#[tokio::test]
async fn no_more_than_a_batch_comes_back_at_a_time() {
    let activator = json!({"mode": "periodic", "period": 1, "batch": 1});
    let scene = with_activator("batch", 6, activator).await;
    let chosen = scene.names().await[..3].to_vec();
    scene.bad(&chosen);
    scene.until_withheld(&chosen).await;
    scene.looks(5).await;
    scene.bad::<String>([]);
    let mut seen = vec![3];
    scene
        .until("all are back", async || {
            let out = scene.those("no").await.len();
            if seen.last() != Some(&out) {
                seen.push(out);
            }
            out == 0
        })
        .await;
    assert_eq!(seen, [3, 2, 1, 0]);
}

#[tokio::test]
async fn after_its_retries_a_pod_is_paused_and_when_as_many_are_paused_as_may_be_the_next_is_killed() {
    let activator = json!({"mode": "retryAndPause", "period": 0.5, "maxRetryCount": 0, "maxPauseCount": 1});
    let scene = with_activator("pausing", 4, activator).await;
    let all = scene.names().await;
    scene.bad(&all[..1]);
    scene.until("the first is paused", async || scene.those("pause").await == all[..1]).await;
    scene.until_event("Pod", "Paused").await;
    scene.bad(&all[..2]);
    let replaced = async || {
        let now = scene.names().await;
        now.len() == 4 && !now.contains(&all[1])
    };
    scene.until("the second is killed, and another pod takes its place", replaced).await;
    scene.until_event("KubervisorService", "Killed").await;
    assert_eq!(scene.those("pause").await, all[..1], "the first stays paused");
    let metrics = scene.controller.get("/metrics").await.unwrap().1;
    for kind in ["break", "pause", "kill"] {
        let counted = metrics.lines().any(|line| {
            line.starts_with("kubervisor_breaker_count")
                && line.contains(&format!("type=\"{kind}\""))
                && !line.ends_with(" 0")
        });
        assert!(counted, "{kind} is counted: {metrics}");
    }
    assert!(scene.stage.pod_writes().iter().all(|write| !write.starts_with("\"delete\"")), "evictions only");
}

#[tokio::test]
async fn a_kill_waits_for_the_disruption_budget() {
    let activator = json!({"mode": "retryAndKill", "period": 0.5, "maxRetryCount": 0});
    let scene = with_activator("budgeted", 3, activator).await;
    let budget = |least: u32| {
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "all"},
            "spec": {"minAvailable": least, "selector": {"matchLabels": {"app": "web"}}},
        })
    };
    scene.stage.kubectl(&["apply", "-f", "-"], &budget(3));
    scene.stage.kubectl(
        &["wait", "--for=jsonpath={.status.currentHealthy}=3", "pdb/all", "--timeout=60s"],
        &json!(null),
    );
    let chosen = scene.names().await[..1].to_vec();
    scene.bad(&chosen);
    scene.until_withheld(&chosen).await;
    scene.throughout(8, "blocked", async || scene.those("no").await == chosen).await;
    scene.stage.kubectl(&["apply", "-f", "-"], &budget(1));
    let replaced = async || {
        let now = scene.names().await;
        now.len() == 3 && !now.contains(&chosen[0])
    };
    scene.until("it is killed, and another pod takes its place", replaced).await;
    scene.until("the ledger is empty", async || scene.shop.entries().await == Some(0)).await;
}

#[tokio::test]
async fn no_more_are_killed_in_an_hour_than_may_be() {
    let activator = json!({"mode": "retryAndKill", "period": 0.5, "maxRetryCount": 0, "maxKillsPerHour": 1});
    let scene = with_activator("hourly", 4, activator).await;
    let before = scene.names().await;
    scene.bad(&before[..2]);
    let survivors = async || scene.names().await.iter().filter(|name| before[..2].contains(name)).count();
    scene.until("one is killed", async || survivors().await == 1).await;
    scene.throughout(8, "the other one stays", async || survivors().await == 1).await;
    assert_eq!(scene.those("no").await.len(), 1);
}
