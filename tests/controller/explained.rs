//! Why a pod is withheld, on the page, in the status and as Events; and the conditions of a failing detector.

use serde_json::{Value, json};

use crate::{
    scene::{Scene, Stage},
    shop,
};

#[tokio::test]
async fn the_page_of_a_pod_has_rule_value_threshold_arithmetic_next_step_and_history() {
    let stage = Stage::set("page").await;
    let prometheus = stage.signals.service("").trim_end_matches('/').to_owned();
    let breaker = json!({
        "name": "errors", "evaluationPeriod": 0.3, "minPodsAvailableRatio": 50,
        "discreteValueOutOfList": {
            "prometheusService": prometheus, "promQL": "requests", "key": "code", "podNamekey": "pod",
            "goodValues": ["200"], "tolerance": 10,
        },
    });
    let recipe =
        shop::Recipe::of("web", 3).raw_breaker(breaker).spec("defaultActivator", json!({"period": 600}));
    let scene = stage.play(&recipe).await;
    let all = scene.names().await;
    let now = jiff::Timestamp::now().as_second();
    let series = |pod: &String, code: &str, count: u32| json!({"metric": {"pod": pod, "code": code}, "value": [now, count.to_string()]});
    let result: Vec<Value> = all
        .iter()
        .zip([80, 0, 0])
        .flat_map(|(pod, bad)| [series(pod, "500", bad), series(pod, "200", 100 - bad)])
        .collect();
    scene.stage.signals.says(
        "api/v1/query",
        json!({"status": "success", "data": {"resultType": "vector", "result": result}}),
    );
    scene.until_withheld(&all[..1]).await;
    let settled = async || scene.explain(&all[0]).await["pod"]["explanation"]["standing"] == "withheld";
    scene.until("the page has it", settled).await;
    let page = scene.explain(&all[0]).await;
    let said = &page["pod"]["explanation"];
    assert_eq!((&said["breaker"], &page["service"]), (&json!("errors"), &json!("web")), "{page:#}");
    let why = said["why"].as_str().unwrap();
    assert!(why.contains("80") && why.contains("10"), "value and threshold: {why}");
    assert!(page["floor"]["formula"].as_str().is_some_and(|formula| formula.contains('2')), "{page:#}");
    assert_eq!((&page["floor"]["floor"], &page["floor"]["desired"]), (&json!(2), &json!(3)), "{page:#}");
    assert!(said["next"]["at"].is_number() || said["next"]["at"].is_string(), "{page:#}");
    assert!(!page["pod"]["history"].as_array().unwrap().is_empty(), "{page:#}");
    assert!(page["pod"]["summary"].as_str().unwrap().contains("errors"), "{page:#}");
    let good = scene.explain(&all[1]).await;
    assert!(good["pod"]["summary"].as_str().unwrap().contains("nobody objects"), "{good:#}");
    let (code, text) =
        scene.controller.admin(&format!("/explain/{}/nobody", scene.stage.namespace)).await.unwrap();
    assert_eq!(code, 404, "{text}");
}

#[tokio::test]
async fn status_and_events_tell_of_a_cut_and_of_its_end() {
    let scene = Scene::simple("told", 3, 50).await;
    let chosen = scene.names().await.swap_remove(0);
    scene.bad([&chosen]);
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    let told = async || {
        let status = scene.shop.resource().await.unwrap()["status"].take();
        let said = &status["explanations"][0];
        status["podCount"]["nbPodsBreaked"] == 1
            && status["podCount"]["nbPodsManaged"] == 3
            && status["serving"] == 2
            && said["name"] == *chosen
            && said["breaker"] == "slow"
            && said["standing"] == "withheld"
            && said["retryCount"] == 1
            && said["why"].is_string()
            && said["since"].is_string()
    };
    scene.until("the status tells of it", told).await;
    for kind in ["Pod", "KubervisorService"] {
        let note = scene.until_event(kind, "Withheld").await;
        assert!(note.contains("slow"), "{note}");
    }
    scene.bad::<String>([]);
    scene.until_withheld(&[]).await;
    for kind in ["Pod", "KubervisorService"] {
        scene.until_event(kind, "Admitted").await;
    }
    let over = async || {
        let status = scene.shop.resource().await.unwrap()["status"].take();
        status["podCount"]["nbPodsBreaked"] == 0 && status["serving"] == 3
    };
    scene.until("the status tells of its end", over).await;
    let unready = json!({"metadata": {"annotations": {"stand-in/unready": "true"}}});
    scene.shop.patch_pod(&chosen, &unready).await.unwrap();
    let uncounted = async || {
        let status = scene.shop.resource().await.unwrap()["status"].take();
        status["podCount"]["nbPodsManaged"] == 2 && status["podCount"]["nbPodsUnknown"] == 0
    };
    scene.until("a pod that is not ready is in none of the numbers", uncounted).await;
}

#[tokio::test]
async fn a_detector_that_fails_is_named_and_cuts_nobody_until_it_answers_again() {
    let scene = Scene::simple("deaf", 3, 50).await;
    scene.stage.signals.fails(crate::scene::SIGNAL, true);
    let told = scene.until_condition("DataAvailable", "False").await;
    assert!(told.message.contains("slow"), "{told:?}");
    let all = scene.names().await;
    scene.bad(&all[..1]);
    scene.throughout(4, "nobody is cut", async || scene.those("no").await.is_empty()).await;
    scene.stage.signals.fails(crate::scene::SIGNAL, false);
    scene.until_condition("DataAvailable", "True").await;
    scene.until_withheld(&all[..1]).await;
}
