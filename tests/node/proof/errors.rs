//! One of six pods answers with errors: how long new connections, and open ones, still reach it.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    application::Application,
    cluster::{ADDRESS, Space, client, shell, until},
    figures,
    gate::{Detector, gate},
    load::{Load, OpenConnections},
    release,
    scraper::Prometheus,
};

/// A pod that comes back does so 2 s after it left.
fn returning() -> Value {
    json!({"mode": "periodic", "period": 2})
}

/// A pod fails, leaves the traffic, recovers, comes back. The time from its first error to its last new connection.
async fn episode(application: &Application, load: &Load, pod: &str) -> Duration {
    let began = Instant::now();
    application.fail(pod).await;
    application.has_traffic(pod, "no").await;
    application.recover(pod).await;
    let last = load.leaves(pod, began).await;
    let first = load.so_far().first_error(pod, began).unwrap();
    application.has_traffic(pod, "yes").await;
    let back = Instant::now();
    load.returns(pod, back).await;
    last - first
}

pub(crate) async fn a_pod_that_answers_errors_leaves_the_traffic_and_comes_back_when_it_recovers() {
    release::installed();
    let client = client().await;
    let space = Space::create(&client, "errors").await;
    let application = Application::start(&client, space.name, 6).await;
    let load = Load::start(application.address, 300);
    let detector = Detector::start(load.answers.clone()).await;
    gate(space.name, &detector.breaker(), &json!({"defaultActivator": returning()}));
    let pods: Vec<String> = application.pods().await.into_keys().collect();
    let mut taken = Vec::new();
    for round in 0..12 {
        taken.push(episode(&application, &load, &pods[round % pods.len()]).await);
    }
    let answers = load.end().await;
    println!("{} requests by pod: {:?}", answers.0.len(), answers.by_pod());
    assert!(answers.failed_by_us().is_empty(), "{:?}", answers.failed_by_us());
    let goal = "p95 <= 650 ms: evaluationPeriod + 150 ms";
    let (_, p95) = figures::times("a pod answers errors -> last new connection to it", taken, goal);
    assert!(p95 < Duration::from_millis(1500), "{p95:?}");
    figures::number("requests failed by our hand while pods left and came back", 0.0, "", "0");
    space.delete(&client).await;
}

pub(crate) async fn a_breaker_by_promql_takes_a_failing_pod_out_of_the_traffic() {
    release::installed();
    let client = client().await;
    let space = Space::create(&client, "promql").await;
    let application = Application::start(&client, space.name, 6).await;
    let load = Load::start(application.address, 300);
    let targets: Vec<(String, SocketAddrV4)> = application
        .pods()
        .await
        .into_iter()
        .map(|(pod, ip)| (pod, SocketAddrV4::new(ip.parse().unwrap(), 8080)))
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let ip: Ipv4Addr = ADDRESS.parse().unwrap();
    let prometheus = Prometheus::start_scraping(directory.path(), ip, &targets, None, &[], "1s").await;
    let codes = json!({
        "prometheusService": prometheus.address.to_string(), "key": "code", "podNamekey": "pod",
        "promQL": "sum by (pod, code) (increase(http_requests_total[4s]))", "goodValues": ["200"], "tolerance": 10,
    });
    let breaker = json!({
        "name": "codes", "discreteValueOutOfList": codes, "evaluationPeriod": 0.5, "minPodsAvailableRatio": 50,
    });
    // The errors of 4 s ago must have left the window when the pod comes back.
    gate(space.name, &breaker, &json!({"defaultActivator": {"mode": "periodic", "period": 6}}));
    shell("kubectl -n promql wait --for=condition=DataAvailable kvs/shop --timeout=30s");
    let mut taken = Vec::new();
    for (pod, _) in targets.iter().take(4) {
        taken.push(episode(&application, &load, pod).await);
    }
    let answers = load.end().await;
    assert!(answers.failed_by_us().is_empty(), "{:?}", answers.failed_by_us());
    println!("{taken:?}");
    let what = "the same by PromQL, scrape 1 s, window 4 s";
    let (_, p95) = figures::times(what, taken, "<= 3000 ms");
    assert!(p95 < Duration::from_secs(5), "{p95:?}");
    space.delete(&client).await;
}

pub(crate) async fn a_notified_pod_ends_its_open_connections() {
    release::installed();
    let client = client().await;
    let space = Space::create(&client, "notify").await;
    let application = Application::start(&client, space.name, 6).await;
    let open = OpenConnections::start(application.address, 24);
    let detector = Detector::start(open.answers.clone()).await;
    let notify = json!({"port": "http", "path": "/notify"});
    gate(space.name, &detector.breaker(), &json!({"defaultActivator": returning(), "notify": notify}));
    let pods: Vec<String> = application.pods().await.into_keys().collect();
    let mut taken = Vec::new();
    for _ in 0..10 {
        let busy = Instant::now();
        // Who has just come back has no client until one connects anew.
        let (pod, _) = until("a pod has a client", || async {
            let answers = open.answers.lock();
            pods.iter().find(|pod| answers.since(pod, busy) > 0)
        })
        .await;
        detector.name(&[pod]);
        application.has_traffic(pod, "no").await;
        let withdrawn = Instant::now();
        detector.name(&[]);
        until("the pod is not asked for 300 ms", || async {
            let last = open.answers.lock().last_from(pod).unwrap_or(busy);
            (last.max(withdrawn).elapsed() > Duration::from_millis(300)).then_some(())
        })
        .await;
        let last = open.answers.lock().last_from(pod).unwrap();
        taken.push(last.saturating_duration_since(withdrawn));
        application.has_traffic(pod, "yes").await;
    }
    assert!(open.answers.lock().failed().is_empty(), "{:?}", open.answers.lock().failed());
    let what = "with notify: last request on an open connection after the withdrawal";
    let (_, p95) = figures::times(what, taken, "p95 <= 250 ms");
    assert!(p95 < Duration::from_millis(1000), "{p95:?}");
    space.delete(&client).await;
}
