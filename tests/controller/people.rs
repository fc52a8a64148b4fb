//! Manual changes of the traffic label, which take precedence.

use serde_json::json;

use crate::{
    scene::{Scene, Stage, annotation},
    shop,
};

#[tokio::test]
async fn a_pod_that_a_person_gives_its_traffic_back_is_spared_for_a_period() {
    let stage = Stage::set("spared").await;
    let activator = json!({"mode": "periodic", "period": 4});
    let recipe =
        shop::Recipe::of("web", 3).breaker("slow", &stage.asks(), 50).spec("defaultActivator", activator);
    let scene = stage.play(&recipe).await;
    let chosen = scene.names().await.swap_remove(0);
    scene.bad([&chosen]);
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    scene.until("it has landed", async || scene.shop.endpoints().await.unwrap().len() == 2).await;
    scene.switch(&chosen, json!("yes")).await;
    let freed = std::time::Instant::now();
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    assert!(freed.elapsed().as_secs_f64() > 3.5, "cut again after {:?}", freed.elapsed());
}

#[tokio::test]
async fn a_pod_that_another_manager_sets_back_each_time_is_left_alone_and_the_manager_is_named() {
    let stage = Stage::set("fight").await;
    let activator = json!({"mode": "retryAndKill", "period": 4, "maxRetryCount": 1});
    let recipe =
        shop::Recipe::of("web", 3).breaker("slow", &stage.asks(), 50).spec("defaultActivator", activator);
    let scene = stage.play(&recipe).await;
    let chosen = scene.names().await.swap_remove(0);
    let wanted = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": chosen, "labels": {"kubervisor/traffic": "yes"}},
    });
    let apply =
        ["apply", "--server-side", "--force-conflicts", "--field-manager=argocd-controller", "-f", "-"];
    scene.bad([&chosen]);
    for _ in 0..3 {
        scene.until_withheld(std::slice::from_ref(&chosen)).await;
        assert_eq!(scene.condition("SetBack").await, None, "three times make a fight");
        scene.stage.kubectl(&apply, &wanted);
    }
    let since = std::time::Instant::now();
    let told = scene.until_condition("SetBack", "True").await;
    assert_eq!(told.reason, "AnotherManager");
    let named = format!("{chosen}: 3 times in succession by argocd-controller");
    scene
        .until("the manager is named", async || {
            scene.condition("SetBack").await.is_some_and(|told| told.message.contains(&named))
        })
        .await;
    scene.until_event("KubervisorService", "SetBack").await;
    let why = scene.explain(&chosen).await;
    let said = why["pod"]["explanation"].to_string();
    assert!(
        said.contains("in a fight with another manager") && said.contains("argocd-controller"),
        "{why:#}"
    );
    let counts = annotation(&scene.pod(&chosen).await, "breaker/retryCount");
    assert_eq!(counts.as_deref(), Some("0"), "no retry is counted, so it is never killed");
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    assert!(since.elapsed().as_secs_f64() > 7.0, "left alone for two periods: {:?}", since.elapsed());
    // The other manager gives up: the pod comes back by its activator, and the condition goes.
    scene.bad::<String>([]);
    scene.until_those("yes", 3).await;
    scene.until("it is over", async || scene.condition("SetBack").await.is_none()).await;
}

#[tokio::test]
async fn a_pause_by_hand_stays_whatever_the_signal_says() {
    let scene = Scene::simple("pause", 3, 50).await;
    let chosen = scene.names().await.swap_remove(0);
    scene.bad([&chosen]);
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    scene.switch(&chosen, json!("pause")).await;
    scene.bad::<String>([]);
    scene.throughout(6, "it stays paused", async || scene.those("pause").await == [chosen.clone()]).await;
    let status = scene.shop.resource().await.unwrap()["status"].take();
    assert_eq!(status["podCount"]["nbPodsPaused"], 1, "{status:#}");
    // A person takes it back, too.
    scene.switch(&chosen, json!("yes")).await;
    scene.until("the ledger is empty", async || scene.shop.entries().await == Some(0)).await;
    scene.throughout(2, "it serves", async || scene.those("yes").await.len() == 3).await;
}

#[tokio::test]
async fn a_foreign_no_is_never_flipped_and_is_named() {
    let scene = Scene::simple("foreign", 3, 50).await;
    scene.until_condition("Ready", "True").await;
    let chosen = scene.names().await.swap_remove(0);
    scene.switch(&chosen, json!("no")).await;
    let told = scene.until_condition("ForeignNo", "True").await;
    assert!(told.reason == "WithheldByOthers" && told.message.contains(&chosen), "{told:?}");
    scene.until_event("KubervisorService", "ForeignNo").await;
    assert_eq!(scene.explain(&chosen).await["pod"]["traffic"], "no", "as it is stored");
    let counts = async || {
        let count = scene.shop.resource().await.unwrap()["status"]["podCount"].take();
        (count["nbPodsManaged"] == 3, count["nbPodsBreaked"] == 1) == (true, true)
    };
    scene.until("it is counted by its label", counts).await;
    // It counts as not serving: 2 of 3 have to serve, so that nobody else may go.
    let others = scene.those("yes").await;
    scene.bad(&others);
    scene.throughout(5, "nobody else", async || scene.those("no").await == [chosen.clone()]).await;
    scene.switch(&chosen, json!("yes")).await;
    scene.until("no longer named", async || scene.condition("ForeignNo").await.is_none()).await;
    scene.until_those("no", 1).await;
}

#[tokio::test]
async fn a_switch_that_is_removed_is_restored() {
    let scene = Scene::simple("removed", 3, 50).await;
    let all = scene.names().await;
    scene.bad(&all[..1]);
    scene.until_withheld(&all[..1]).await;
    // Of one that serves, and of one that is withheld.
    scene.switch(&all[1], json!(null)).await;
    scene.until_those("yes", 2).await;
    scene.switch(&all[0], json!(null)).await;
    scene.until("it has a switch again", async || scene.those("").await.is_empty()).await;
    scene.bad::<String>([]);
    scene.until_those("yes", 3).await;
    scene.until("the ledger is empty", async || scene.shop.entries().await == Some(0)).await;
}
