//! What a start of the controller does to pods that are withheld.

use futures::future::join_all;
use serde_json::json;

use crate::{
    plane::until,
    scene::{SIGNAL, Stage},
    shop::{Recipe, Shop},
};

/// Pods of the fleet without traffic.
async fn withheld(shop: &Shop) -> Vec<String> {
    let label = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.metadata.labels.as_ref().and_then(|labels| labels.get("kubervisor/traffic").cloned())
    };
    let pods = shop.pods().await.unwrap().into_iter();
    pods.filter(|pod| label(pod).as_deref() == Some("no")).filter_map(|pod| pod.metadata.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_makes_no_plan_before_it_has_the_spec_of_the_resource() {
    let stage = Stage::set("restarts").await;
    // Of four pods one is enough here. Without the spec, half of them would have to serve, and one would return at once.
    let breaker = json!({
        "name": "errors", "customService": stage.asks(), "evaluationPeriod": 0.3, "minPodsAvailableCount": 1,
    });
    let recipe = |number: u32| {
        let recipe = Recipe::of(&format!("web-{number}"), 4).raw_breaker(breaker.clone());
        recipe.spec("defaultActivator", json!({"mode": "periodic", "period": 3600}))
    };
    let recipes: Vec<Recipe> = (0..8).map(recipe).collect();
    let shops = join_all(recipes.iter().map(|recipe| stage.fleet(recipe))).await;
    let mut bad = Vec::new();
    for shop in &shops {
        bad.extend(shop.names().await.unwrap().into_iter().take(3));
    }
    stage.signals.bad(SIGNAL, &stage.namespace, bad);
    let controller = stage.controller().start();
    for shop in &shops {
        until("three are withheld", || async { (withheld(shop).await.len() == 3).then_some(()) }).await;
    }
    let seen = stage.plane.audit(&stage.namespace).len();
    for _ in 0..6 {
        controller.kill();
        controller.launch();
        controller.ready().await;
        let asked = stage.signals.asked(SIGNAL);
        until("all have been looked at", || async {
            (stage.signals.asked(SIGNAL) >= asked + 3 * shops.len()).then_some(())
        })
        .await;
    }
    let events = stage.plane.audit(&stage.namespace).split_off(seen);
    let returned: Vec<_> = events
        .iter()
        .filter(|event| event["objectRef"]["resource"] == "pods" && event["verb"] == "patch")
        .filter(|event| event["stage"] == "ResponseComplete")
        .map(|event| &event["requestObject"])
        .collect();
    assert!(returned.is_empty(), "withheld pods were written: {returned:?}");
}
