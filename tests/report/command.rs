//! What a report says of a real Prometheus's history, in every format, and its exit codes.

use serde_json::{Value, json};

use crate::{
    shop::{LENGTH, PODS, Shop, episodes, policy},
    stage::{Stage, said},
};

/// Seconds from one RFC 3339 time to another.
pub(crate) fn seconds(from: &str, to: &str) -> i64 {
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
    at(to) - at(from)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_names_each_pod_that_would_have_been_withheld_with_when_and_why() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let server = prometheus.address.to_string();
    let model = shop.model(&stage, &server, &policy(&json!({})), &[]);
    assert_eq!(model["version"], "kubervisor.k8s.io/report/v1");
    assert_eq!((&model["partial"], &model["from"]), (&Value::Null, &shop.time(0).into()));
    assert_eq!((&model["fleet"]["source"], &model["fleet"]["pods"]), (&"series".into(), &PODS.into()));
    // Three bad evaluations, 5 s apart; back after the activator's minute that follows the last bad value.
    let found = episodes(&model);
    let pods: Vec<(&str, &str)> = found.iter().map(|(pod, from, _)| (pod.as_str(), from.as_str())).collect();
    assert_eq!(pods, [("web-3", shop.time(7210).as_str()), ("web-5", shop.time(18_010).as_str())]);
    for ((_, _, to), end) in found.iter().zip([9000, 19_200]) {
        let late = seconds(&shop.time(end), to);
        assert!((0..=120).contains(&late), "{late} s after the end: {to}");
    }
    let report = &model["policies"][0];
    let evidence = &report["episodes"][0]["evidence"];
    let number = |name: &str| evidence[name].as_f64().unwrap();
    assert!(number("value") > number("threshold") && number("threshold") > number("median"), "{evidence}");
    let summary = &report["summary"];
    assert_eq!(summary["evaluations"], LENGTH / 5);
    assert_eq!((&summary["episodes"], &summary["mostWithheldAtOnce"]), (&2.into(), &1.into()));
    let minutes = summary["podMinutesWithheld"].as_f64().unwrap();
    assert!((49.0..53.0).contains(&minutes), "{minutes}");
    assert_eq!(report["worst"][0]["pod"], "web-3");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_tells_the_same_and_ci_can_fail_on_it() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let server = prometheus.address.to_string();
    let policy = policy(&json!({}));
    let text = said(&shop.report(&stage, &server, &policy, &[]));
    for words in [
        "2 pods, 2 times",
        "At most at once",
        "1 (8.3 % of the wanted pods)",
        "web-3",
        "web-5",
        "MEDIAN",
        "cannot know",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let model = shop.model(&stage, &server, &policy, &[]);
    let yaml = shop.report(&stage, &server, &policy, &["-o", "yaml"]);
    let yaml: Value = serde_saphyr::from_str(&String::from_utf8(yaml.stdout).unwrap()).unwrap();
    assert_eq!(yaml["policies"][0]["episodes"], model["policies"][0]["episodes"]);
    assert_eq!(yaml["policies"][0]["summary"], model["policies"][0]["summary"]);

    let junit = |further: &[&str]| {
        let output = shop.report(&stage, &server, &policy, &[&["-o", "junit"], further].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, xml) = junit(&[]);
    assert_eq!(code, Some(0));
    assert!(xml.contains("failures=\"0\"") && xml.contains("name=\"withheld\""), "{xml}");
    let (code, xml) = junit(&["--fail-on", "withheld,panic"]);
    assert_eq!(code, Some(3));
    assert!(xml.contains("failures=\"1\"") && xml.contains("<failure message=\"2 episodes"), "{xml}");
    let (code, _) = junit(&["--fail-on", "panic,floor,no-data"]);
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_floor_and_missing_data_are_spans_that_ci_can_fail_on() {
    let (stage, mut shop) = (Stage::new(), Shop::new());
    for pod in 0..PODS {
        // A hole of an hour for all but three pods.
        shop.latency(pod, 0..LENGTH, |at| pod < 3 || !(10_800..14_400).contains(&at));
    }
    // The absolute bound is passed by most pods for half an hour.
    for pod in 0..PODS {
        let labels = format!("namespace=\"shop\",pod=\"web-{pod}\"");
        shop.gauge("queue", &labels, 0..LENGTH, |at| {
            f64::from(u8::from(pod < 8 && (21_600..23_400).contains(&at)) * 100)
        });
    }
    let prometheus = shop.serve(&stage).await;
    let server = prometheus.address.to_string();
    let mut panics = policy(&json!({"minPodsAvailableRatio": 10}));
    let outlier = &mut panics["spec"]["breakers"][0];
    outlier.as_object_mut().unwrap().remove("outlier");
    outlier["continuousValueDeviation"] = json!({
        "prometheusService": server, "promQL": "queue + 1", "podNamekey": "pod", "maxDeviationPercent": 300,
    });
    panics["spec"]["panicThreshold"] = 50.into();
    let output = shop.report(&stage, &server, &panics, &["-o", "json", "--fail-on", "panic"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let model: Value = serde_json::from_slice(&output.stdout).unwrap();
    let panic = &model["policies"][0]["panics"][0];
    let length = seconds(panic["from"].as_str().unwrap(), panic["to"].as_str().unwrap());
    assert!((1700..2000).contains(&length), "{model}");
    assert!(episodes(&model).is_empty(), "nothing is withheld in panic");

    // A floor of all pods but none: the slow ones go on serving.
    let tight = policy(&json!({"minPodsAvailableRatio": 100}));
    let output = shop.report(&stage, &server, &tight, &["-o", "json", "--fail-on", "floor"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let output = shop.report(&stage, &server, &tight, &["-o", "json", "--fail-on", "no-data"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let model: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(episodes(&model).is_empty());
    let report = &model["policies"][0];
    assert_eq!(report["floorReached"][0]["from"], shop.time(7210));
    let hole = &report["noData"][0];
    let late = seconds(&shop.time(10_800), hole["from"].as_str().unwrap());
    assert!((0..=360).contains(&late), "{hole}: a sample counts for 5 minutes at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_without_history_is_named_as_left_out_and_the_others_are_replayed() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let mut both = policy(&json!({}));
    both["spec"]["breakers"].as_array_mut().unwrap().push(json!({
        "name": "asked", "customService": "http://judge:8080/pods",
    }));
    let model = shop.model(&stage, &prometheus.address.to_string(), &both, &[]);
    assert_eq!(model["policies"][0]["leftOut"][0]["breaker"], "asked");
    assert_eq!(episodes(&model).len(), 2);
    both["spec"]["breakers"].as_array_mut().unwrap().remove(0);
    let output = shop.report(&stage, &prometheus.address.to_string(), &both, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("no breaker has a query"), "{}", said(&output));
}
