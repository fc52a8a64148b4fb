//! Histories as they are: holes, pods that come and go, samples that are no numbers, a pod that is measured twice.

use serde_json::{Value, json};

use crate::{
    command::seconds,
    shop::{LENGTH, PODS, Shop, episodes, policy},
    stage::Stage,
};

/// How long Prometheus repeats the last sample of a series, less the time between two samples.
const REPEATED: u64 = 300 - 60;

async fn replayed(shop: &Shop) -> Value {
    let stage = Stage::new();
    let prometheus = shop.serve(&stage).await;
    shop.model(&stage, &prometheus.address.to_string(), &policy(&json!({})), &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_of_the_whole_server_is_no_data_and_no_end_of_any_pod() {
    let mut shop = Shop::new();
    for pod in 0..PODS {
        shop.latency(pod, 0..LENGTH, |at| !(10_800..14_400).contains(&at));
    }
    let model = replayed(&shop).await;
    assert_eq!(model["fleet"]["pods"], PODS);
    let pods: Vec<String> = episodes(&model).into_iter().map(|(pod, ..)| pod).collect();
    assert_eq!(pods, ["web-3", "web-5"]);
    let holes = model["policies"][0]["noData"].as_array().unwrap();
    let [hole] = holes.as_slice() else { panic!("{holes:?}") };
    let begins = seconds(&shop.time(10_800 + REPEATED), hole["from"].as_str().unwrap());
    let ends = seconds(&shop.time(14_400), hole["to"].as_str().unwrap());
    assert!((0..=60).contains(&begins) && (0..=60).contains(&ends), "{hole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withheld_pod_that_is_deleted_ends_its_episode_and_one_that_comes_later_counts() {
    let mut shop = Shop::new();
    for pod in 0..PODS {
        shop.latency(pod, 0..if pod == 3 { 8100 } else { LENGTH }, |_| true);
    }
    shop.latency(PODS, 8100..LENGTH, |_| true);
    let model = replayed(&shop).await;
    assert_eq!(model["fleet"]["pods"], PODS + 1);
    let first = &model["policies"][0]["episodes"][0];
    assert_eq!((&first["pod"], &first["ended"]), (&"web-3".into(), &"deleted".into()));
    let late = seconds(&shop.time(8100 + REPEATED), first["to"].as_str().unwrap());
    assert!((0..=15).contains(&late), "{first}");
    assert_eq!(model["policies"][0]["episodes"][1]["ended"], "admitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_samples_are_no_numbers_or_are_there_twice_has_no_verdict_meanwhile() {
    let mut shop = Shop::measured();
    // The first quarter of an hour of web-3's slow time.
    shop.gauge("latency", "namespace=\"shop\",pod=\"web-3\",copy=\"1\"", 7200..8100, |_| 0.8);
    let twice = replayed(&shop).await;
    let (pod, from, _) = &episodes(&twice)[0];
    assert_eq!(pod, "web-3");
    let late = seconds(&shop.time(8100 + REPEATED), from);
    assert!((0..=30).contains(&late), "{late} s after the last copy");

    let mut shop = Shop::new();
    for pod in (0..PODS).filter(|pod| *pod != 3) {
        shop.latency(pod, 0..LENGTH, |_| true);
    }
    shop.gauge("latency", "namespace=\"shop\",pod=\"web-3\"", 0..LENGTH, |at| {
        if (7200..9000).contains(&at) { f64::NAN } else { 0.11 }
    });
    shop.gauge("latency", "namespace=\"shop\",pod=\"web-99\"", 0..LENGTH, |_| f64::INFINITY);
    let nan = replayed(&shop).await;
    let pods: Vec<String> =
        episodes(&nan).into_iter().map(|(pod, ..)| pod).filter(|pod| pod != "web-99").collect();
    assert_eq!(pods, ["web-5"], "NaN is neither bad nor good");
    assert_eq!(nan["fleet"]["pods"], PODS + 1, "a pod with such samples exists");
}
