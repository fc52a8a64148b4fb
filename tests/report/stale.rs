//! A pod whose target goes away while a real Prometheus scrapes it: the server ends its series with stale markers.

use std::net::SocketAddrV4;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

use crate::{
    command::seconds,
    scraper::Prometheus,
    shop::policy,
    stage::{Stage, kubervisor, said, until},
};

const PODS: u8 = 4;

/// A target with one gauge; it is gone once its task is aborted.
async fn target(stage: &Stage, host: u8) -> (SocketAddrV4, JoinHandle<()>) {
    let listener = TcpListener::bind((stage.ip(host), 0)).await.unwrap();
    let address = SocketAddrV4::new(stage.ip(host), listener.local_addr().unwrap().port());
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let body = format!("latency 0.1{host}\n");
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let mut request = [0; 4096];
            let _gone = stream.read(&mut request).await;
            let _gone = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    (address, serving)
}

/// The report from `from` until now, as JSON.
fn report(stage: &Stage, server: &str, from: i64) -> Value {
    let mut manifest = policy(&json!({"evaluationPeriod": 1, "minCoveragePercent": 100}));
    let breaker = &mut manifest["spec"]["breakers"][0]["outlier"];
    (breaker["promQL"], breaker["minPeers"]) = ("latency".into(), 3.into());
    let file = stage.write("policy.json", &manifest.to_string()).display().to_string();
    let from = from.to_string();
    let arguments = ["report", "-f", &file, "--prometheus", server, "--from", &from, "-o", "json"];
    let output = kubervisor(&arguments, &[]);
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_target_goes_away_has_no_verdict_from_its_last_scrape_on() {
    let stage = Stage::new();
    let (mut targets, mut serving) = (Vec::new(), Vec::new());
    for pod in 0..PODS {
        let (address, task) = target(&stage, pod + 1).await;
        targets.push((format!("web-{pod}"), address));
        serving.push(task);
    }
    let prometheus = Prometheus::start(stage.directory(), stage.ip(200), &targets, None).await;
    let server = prometheus.address.to_string();
    let pods = async || {
        let url = format!("http://{server}/api/v1/query?query=latency");
        let (_, text) = crate::stage::get(&url).await?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        answer.pointer("/data/result")?.as_array().map(Vec::len)
    };
    until("all pods are scraped", async || pods().await == Some(usize::from(PODS))).await;
    let second = || jiff::Timestamp::now().as_second();
    let from = second();
    until("all are judged for a while", async || {
        let model = report(&stage, &server, from - 1);
        model["policies"][0]["breakers"][0]["evaluations"].as_u64() > Some(3)
    })
    .await;

    let last = serving.pop().unwrap();
    last.abort();
    let _aborted = last.await;
    let stopped = jiff::Timestamp::now();
    // Without the markers the last sample would count for five minutes.
    let span = until("the report says so", async || {
        let model = report(&stage, &server, from);
        let spans = model["policies"][0]["noData"].as_array().unwrap().clone();
        spans.into_iter().next_back().filter(|span| span["to"] == model["to"])
    })
    .await;
    let late = seconds(&stopped.to_string(), span["from"].as_str().unwrap());
    assert!((0..=3).contains(&late), "{late} s after the last scrape: {span}");
    let message = span["message"].as_str().unwrap();
    assert!(message.contains("1 of 4 pods without a series"), "the pod is still of the fleet: {message}");
}
