//! Which pods there were: from the series of kube-state-metrics in the form of its documentation, a query, or the
//! queries' own series.

use serde_json::{Value, json};

use crate::{
    shop::{LENGTH, PODS, Shop, episodes, policy},
    stage::Stage,
};

/// Twelve pods that are measured, two more that are not; one is not Ready for a while, one is replaced.
fn shop() -> Shop {
    let mut shop = Shop::measured();
    for pod in 0..PODS + 2 {
        let end = if pod == 8 { 25_200 } else { LENGTH };
        shop.state(pod, 0..end, |at| pod != 7 || !(7800..8400).contains(&at));
    }
    shop.state(14, 25_200..LENGTH, |_| true);
    let replicas = |at| if at < 28_800 { 14.0 } else { 20.0 };
    shop.deployment(replicas);
    // Of a second kube-state-metrics.
    let twin = "namespace=\"shop\",deployment=\"web\",instance=\"second\"";
    shop.gauge("kube_deployment_spec_replicas", twin, 0..LENGTH, replicas);
    shop
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_state_metrics_tells_pods_that_no_query_names_and_how_many_are_wanted() {
    let (stage, shop) = (Stage::new(), shop());
    let prometheus = shop.serve(&stage).await;
    let server = prometheus.address.to_string();
    // 13 of 14 must serve: the slow pod may go, and another one that is not Ready meanwhile leaves no room.
    let tight = policy(&json!({"minPodsAvailableRatio": 90}));
    let model = shop.model(&stage, &server, &tight, &[]);
    let fleet = &model["fleet"];
    assert_eq!((&fleet["source"], &fleet["pods"]), (&"kube-state-metrics".into(), &15.into()), "{fleet}");
    let report = &model["policies"][0];
    let first = ("web-3".to_owned(), shop.time(7210), shop.time(7800));
    assert_eq!(episodes(&model)[0], first, "back when another pod is lost, because the floor goes first");
    assert_eq!(report["floorReached"][0]["from"], shop.time(7800));
    // 20 are wanted from then on, and 14 serve.
    let below: Vec<&Value> =
        report["belowFloor"].as_array().unwrap().iter().map(|span| &span["from"]).collect();
    assert_eq!(below, [&Value::from(shop.time(28_800))]);

    let labelled = shop.model(&stage, &server, &tight, &["--selector", "app=web"]);
    assert_eq!(labelled["policies"], model["policies"]);
    assert!(labelled["fleet"]["text"].as_str().unwrap().contains("labels"));
    let service =
        json!({"kind": "Service", "spec": {"selector": {"app": "web", "kubervisor/traffic": "yes"}}});
    let service = stage.write("service.json", &service.to_string());
    let by_service = shop.model(&stage, &server, &tight, &["--service-file", service.to_str().unwrap()]);
    assert_eq!(by_service["policies"], model["policies"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_query_and_labels_that_nobody_exports_are_said_to_be_so() {
    let (stage, shop) = (Stage::new(), shop());
    let prometheus = shop.serve(&stage).await;
    let server = prometheus.address.to_string();
    let query = "max by (pod) (kube_pod_status_ready{namespace=\"shop\",condition=\"true\"})";
    let model = shop.model(&stage, &server, &policy(&json!({})), &["--fleet-query", query]);
    assert_eq!((&model["fleet"]["source"], &model["fleet"]["pods"]), (&"fleet-query".into(), &15.into()));
    assert_eq!(episodes(&model).len(), 2);

    let unknown = shop.model(&stage, &server, &policy(&json!({})), &["--selector", "team=a"]);
    let notes: Vec<&str> = unknown["notes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(notes.iter().any(|note| note.contains("kube_pod_labels")), "{notes:?}");
    assert_eq!(unknown["fleet"]["source"], "kube-state-metrics");
}
