//! What a Service of Kubernetes does with connections, without us: what our decisions can and cannot bring about.

use std::time::{Duration, Instant};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, time::sleep};

use crate::{
    application::Application,
    cluster::{Space, client, until},
    figures,
    load::{Load, request},
};

pub(crate) async fn a_service_spreads_new_connections_over_its_pods() {
    let client = client().await;
    let space = Space::create(&client, "spread").await;
    let application = Application::start(&client, space.name, 3).await;
    let load = Load::start(application.address, 200);
    let pods = application.pods().await;
    until("each pod has answered 20 times", || async {
        let so_far = load.so_far();
        let counts = so_far.by_pod();
        pods.keys().all(|pod| counts.get(pod.as_str()).is_some_and(|count| *count >= 20)).then_some(())
    })
    .await;
    let answers = load.end().await;
    assert!(answers.failed().is_empty(), "{:?}", answers.failed());
    assert_eq!(answers.by_pod().len(), 3);
    space.delete(&client).await;
}

/// The label leaves the Service's selector 50 times; what lasts is EndpointSlice controller, watch and kube-proxy.
pub(crate) async fn a_pod_whose_label_leaves_the_selector_gets_no_new_connection() {
    let client = client().await;
    let space = Space::create(&client, "label").await;
    let application = Application::start(&client, space.name, 2).await;
    let pods: Vec<String> = application.pods().await.into_keys().collect();
    let load = Load::start(application.address, 400);
    let mut taken = Vec::new();
    for round in 0..50 {
        let pod = &pods[round % 2];
        let sent = Instant::now();
        application.label(pod, json!({"app": "away"})).await;
        taken.push(load.leaves(pod, sent).await - sent);
        let back = Instant::now();
        application.label(pod, json!({"app": "shop"})).await;
        load.returns(pod, back).await;
    }
    let answers = load.end().await;
    assert!(answers.failed().is_empty(), "{:?}", answers.failed());
    let goal = "p95 <= 100 ms on a machine that does nothing else";
    let (_, p95) = figures::times("label patch sent -> last new connection to the pod", taken, goal);
    assert!(p95 < Duration::from_millis(500), "{p95:?}");
    space.delete(&client).await;
}

pub(crate) async fn an_open_connection_stays_with_a_pod_that_left_the_service() {
    let client = client().await;
    let space = Space::create(&client, "open").await;
    let application = Application::start(&client, space.name, 2).await;
    let stream = TcpStream::connect(application.address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (_, pod) = request(&mut sender, "keep-alive").await.unwrap();
    application.label(&pod, json!({"app": "away"})).await;
    until("it has left the Service", || async { (application.listed().await == 1).then_some(()) }).await;
    for _ in 0..10 {
        assert_eq!(request(&mut sender, "keep-alive").await.unwrap(), (200, pod.clone()));
        sleep(Duration::from_millis(50)).await;
    }
    space.delete(&client).await;
}
