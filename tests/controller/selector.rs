//! The Service: its selector turns gating on and off, and some Services cannot be gated.

use k8s_openapi::api::core::v1::Service;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};

use crate::{
    scene::{Scene, Stage, condition_of, label, marks},
    shop,
};

const WITH_KEY: &str = "yes";

/// The key in the Service's selector; null takes it out.
async fn key(scene: &Scene, word: Value) {
    scene.stage.edit_service("web", json!({"spec": {"selector": {"kubervisor/traffic": word}}})).await;
}

#[tokio::test]
async fn without_the_key_a_fleet_is_watched_and_the_key_turns_gating_on_and_off() {
    let stage = Stage::set("key").await;
    let recipe = shop::Recipe::of("web", 4).ungated().breaker("slow", &stage.asks(), 50);
    let scene = stage.play(&recipe).await;
    let all = scene.names().await;
    scene.bad(&all[..2]);
    scene.until_condition("Ready", "True").await;
    let gating = scene.until_condition("Gating", "False").await;
    assert_eq!(gating.reason, "SelectorLacksKey");
    scene.throughout(3, "only watched", async || scene.those("yes").await.len() == 4).await;

    key(&scene, json!(WITH_KEY)).await;
    scene.until_withheld(&all[..2]).await;
    scene.until_condition("Gating", "True").await;
    scene.until("two endpoints", async || scene.shop.endpoints().await.unwrap().len() == 2).await;

    key(&scene, json!(null)).await;
    scene.until_those("yes", 4).await;
    scene.until_condition("Gating", "False").await;
    scene.until("the ledger is empty", async || scene.shop.entries().await == Some(0)).await;
    scene.throughout(3, "only watched again", async || scene.those("yes").await.len() == 4).await;
}

#[tokio::test]
async fn a_service_that_goes_is_named_and_nothing_is_cut_until_it_comes_back_by_itself() {
    let scene = Scene::simple("missing", 4, 50).await;
    scene.until_condition("Ready", "True").await;
    let all = scene.names().await;
    scene.bad(&all[..1]);
    scene.until_withheld(&all[..1]).await;
    let services = Api::<Service>::namespaced(scene.stage.client.clone(), &scene.stage.namespace);
    services.delete("web", &DeleteParams::default()).await.unwrap();
    let told = scene.until_condition("ServiceNotAvailable", "True").await;
    assert_eq!(told.reason, "ServiceMissing");
    scene.bad(&all[..2]);
    scene.throughout(4, "nobody more", async || scene.those("no").await == all[..1]).await;
    let recipe = shop::Recipe::of("web", 4);
    scene.stage.kubectl(&["apply", "-f", "-"], &recipe.workload());
    scene.until_withheld(&all[..2]).await;
    scene.until_condition("ServiceNotAvailable", "False").await;
    scene.until_condition("Ready", "True").await;
}

#[tokio::test]
async fn when_the_selector_moves_on_the_old_colours_withheld_pods_are_given_back_and_hold_no_room() {
    let stage = Stage::set("colours").await;
    let long = json!({"mode": "periodic", "period": 600});
    let recipe = shop::Recipe::of("blue", 4).breaker("slow", &stage.asks(), 50);
    let scene = stage.play(&recipe.spec("defaultActivator", long)).await;
    let blue = scene.names().await;
    scene.bad(&blue[..2]);
    scene.until_withheld(&blue[..2]).await;
    let green = shop::Recipe::of("green", 4).workload();
    scene.stage.kubectl(&["apply", "-f", "-"], &green["items"][0]);
    let green = shop::Shop { name: "green".to_owned(), ..scene.shop.clone() };
    scene
        .until("green is ready", async || {
            green.pods().await.unwrap().iter().filter(|p| shop::ready(p)).count() == 4
        })
        .await;
    scene.stage.edit_service("blue", json!({"spec": {"selector": {"app": "green"}}})).await;
    scene.until_those("yes", 4).await;
    let unmarked = async || scene.pods().await.values().all(|pod| marks(pod).is_empty());
    scene.until("no mark of ours is left on the old colour", unmarked).await;
    let bad = green.names().await.unwrap();
    scene.bad(&bad[..2]);
    let withheld = async || {
        let mut all = Vec::new();
        for pod in &bad[..2] {
            all.push(green.traffic(pod).await);
        }
        all.iter().all(|word| word.as_deref() == Some("no"))
    };
    scene.until("two green pods are withheld", withheld).await;
    assert_eq!(scene.shop.entries().await, Some(2));
}

#[tokio::test]
async fn two_services_that_swap_their_selectors_swap_their_pods_and_come_to_rest() {
    let stage = Stage::set("swap").await;
    let long = json!({"mode": "periodic", "period": 600});
    let one =
        shop::Recipe::of("one", 4).breaker("slow", &stage.asks(), 50).spec("defaultActivator", long.clone());
    let scene = stage.play(&one).await;
    let second = scene.stage.signals.service("second");
    let two = shop::Recipe::of("two", 4).breaker("second", &second, 50).spec("defaultActivator", long);
    let two = scene.stage.fleet(&two).await;
    let (ones, twos) = (scene.names().await, two.names().await.unwrap());
    // Of each one a pod is withheld.
    scene.bad(&ones[..1]);
    scene.stage.signals.bad("second", &scene.stage.namespace, &twos[..1]);
    let says = async |pod: &str, word: &str| two.traffic(pod).await.as_deref() == Some(word);
    scene.until("both are withheld", async || says(&ones[0], "no").await && says(&twos[0], "no").await).await;
    scene.bad::<String>([]);
    scene.stage.signals.bad::<String>("second", &scene.stage.namespace, []);
    for (service, app) in [("one", "two"), ("two", "one")] {
        scene.stage.edit_service(service, json!({"spec": {"selector": {"app": app}}})).await;
    }
    let owned = async |shop: &shop::Shop, owner: &str| {
        shop.pods().await.unwrap().iter().all(|pod| label(pod, "kubervisor/name").as_deref() == Some(owner))
    };
    let swapped = async || owned(&scene.shop, "two").await && owned(&two, "one").await;
    scene.until("each has the pods of the other", swapped).await;
    for shop in [&scene.shop, &two] {
        let ready = async || condition_of(shop, "Ready").await.is_some_and(|found| found.status == "True");
        scene.until("both are ready", ready).await;
    }
    // What the former owner withheld does not hold the new one up, and nobody fights.
    scene.bad(&twos[1..2]);
    scene.until("the new owner cuts", async || says(&twos[1], "no").await).await;
    let writes = scene.stage.pod_writes().len();
    scene.looks(5).await;
    let later = scene.stage.pod_writes();
    assert!(later.len() <= writes + 4, "{} more: {:#?}", later.len() - writes, &later[writes..]);
}

#[tokio::test]
async fn a_resource_may_come_before_its_service() {
    let stage = Stage::set("before").await;
    let recipe = shop::Recipe::of("web", 2).breaker("slow", &stage.asks(), 50);
    stage.kubectl(&["apply", "-f", "-"], &recipe.resource());
    let scene = stage.play(&recipe).await;
    let chosen = scene.names().await.swap_remove(0);
    scene.bad([&chosen]);
    scene.until_withheld(&[chosen]).await;
}

/// The spec of a Service that cannot be gated is said to be so, in these words, and nothing is cut.
async fn refused(hint: &str, change: Value, words: &str) {
    let scene = Scene::simple(hint, 2, 50).await;
    scene.until_condition("Ready", "True").await;
    scene.stage.edit_service("web", json!({"spec": change})).await;
    let told = scene.until_condition("Ready", "False").await;
    assert_eq!(told.reason, "ServiceRefused");
    assert!(told.message.contains(words), "{told:?}");
    let all = scene.names().await;
    scene.bad(&all);
    scene.throughout(3, "nothing is cut", async || scene.those("no").await.is_empty()).await;
}

#[tokio::test]
async fn an_external_name_is_refused() {
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    refused("external", external, "ExternalName").await;
}

#[tokio::test]
async fn a_selector_with_nothing_but_the_key_is_refused() {
    refused("bare", json!({"selector": {"app": null}}), "nothing but the traffic key").await;
}

#[tokio::test]
async fn a_selector_that_asks_for_true_is_named() {
    refused("true", json!({"selector": {"kubervisor/traffic": "true"}}), "write yes, in quotes").await;
}

#[tokio::test]
async fn a_pod_that_says_true_is_named_and_left_as_it_is() {
    let scene = Scene::simple("odd", 3, 50).await;
    let odd = scene.names().await.swap_remove(0);
    scene.switch(&odd, json!("true")).await;
    let told = scene.until_condition("ForeignNo", "True").await;
    assert_eq!(told.reason, "OddSwitch");
    assert!(told.message.contains(&odd), "{told:?}");
    let explained = scene.explain(&odd).await;
    assert!(
        explained["pod"]["summary"].as_str().unwrap().contains("write \"yes\" in quotes"),
        "{explained:#}"
    );
    scene.throughout(3, "left as it is", async || scene.those("true").await == [odd.clone()]).await;
}
