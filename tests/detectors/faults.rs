//! Answers of a faulty server, and the custom service.

use std::{
    net::SocketAddrV4,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kubervisor::{
    clock::Clock,
    decide::detect::{Custom, Detector, MetricSource, listed::NamedPod, queried::QueryAnswer},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    fleet::{Fleet, policy},
    login::{asked, asker, question},
    stage::{Stage, keeping_alive, throughout, until},
};

/// The behaviour of the server.
#[derive(Clone)]
enum Manner {
    /// Sends exactly this and closes.
    Says(String),
    /// Sends a hundred megabytes of `[`, with or without `Content-Length`.
    Floods { told: bool },
    /// Takes the request and never answers.
    Hangs,
    /// Begins an answer and never ends it.
    Trickles,
}

struct Server {
    address: SocketAddrV4,
    asked: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

impl Server {
    async fn start(stage: &Stage, host: u8, manner: Manner) -> Self {
        let ip = stage.ip(host);
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = SocketAddrV4::new(ip, listener.local_addr().unwrap().port());
        let (asked, sent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (asked_here, sent_here) = (Arc::clone(&asked), Arc::clone(&sent));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                asked_here.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, manner.clone(), Arc::clone(&sent_here)));
            }
        });
        Self { address, asked, sent }
    }

    async fn saying(stage: &Stage, host: u8, status: &str, kind: &str, body: &str) -> Self {
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        Self::start(stage, host, Manner::Says(text)).await
    }

    /// The error categories of a query to it as Prometheus and as a custom service.
    async fn categories(&self) -> [&'static str; 2] {
        let asker = asker();
        let word =
            |answer: Result<QueryAnswer, &'static str>| answer.map_or_else(|category| category, |_| "ok");
        let mut by_query = question(self.address.to_string(), "x", None);
        if let Detector::Deviation(deviation) = &mut by_query {
            deviation.query.timeout = Duration::from_secs(1);
        }
        let by_list = Detector::Custom(custom(self));
        [word(asked(&asker, &by_query).await), word(asked(&asker, &by_list).await)]
    }
}

async fn serve(mut stream: TcpStream, manner: Manner, sent: Arc<AtomicUsize>) {
    let mut request = [0; 8192];
    let _ = stream.read(&mut request).await;
    match manner {
        Manner::Says(text) => {
            let _gone = stream.write_all(text.as_bytes()).await;
            // Closing with unread bytes would reset the connection before the answer is read.
            let _end = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut request)).await;
        }
        Manner::Floods { told } => {
            let length = if told { "Content-Length: 104857600\r\n" } else { "" };
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{length}\r\n");
            let chunk = vec![b'['; 1 << 16];
            let mut going = stream.write_all(head.as_bytes()).await.is_ok();
            for _ in 0..1600 {
                going = going && stream.write_all(&chunk).await.is_ok();
                sent.fetch_add(if going { chunk.len() } else { 0 }, Ordering::SeqCst);
            }
        }
        Manner::Hangs => std::future::pending().await,
        Manner::Trickles => {
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"items\"").await;
            std::future::pending().await
        }
    }
}

fn custom(server: &Server) -> Custom {
    Custom {
        source: Arc::new(MetricSource::at(format!("{}/pods?of=shop", server.address))),
        path: String::new(),
        min_pod_age: Duration::ZERO,
        timeout: Duration::from_secs(1),
    }
}

#[tokio::test]
async fn a_hundred_megabytes_are_cut_off_early_whether_announced_or_not() {
    let stage = Stage::new();
    for (host, told) in [(2, true), (3, false)] {
        let server = Server::start(&stage, host, Manner::Floods { told }).await;
        assert_eq!(server.categories().await, ["too_large"; 2]);
        // 16 MiB for each of the two, and what the sockets hold.
        assert!(server.sent.load(Ordering::SeqCst) < 60 << 20, "{:?}", server.sent);
    }
}

#[tokio::test]
async fn hangs_end_with_the_timeout_before_and_within_the_answer() {
    let stage = Stage::new();
    assert_eq!(Server::start(&stage, 2, Manner::Hangs).await.categories().await, ["timeout"; 2]);
    assert_eq!(Server::start(&stage, 3, Manner::Trickles).await.categories().await, ["timeout"; 2]);
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let stage = Stage::new();
    let elsewhere = Server::saying(&stage, 3, "200 OK", "application/json", r#"{"items":[]}"#).await;
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let head = format!(
            "HTTP/1.1 {status}\r\nLocation: http://{}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            elsewhere.address
        );
        let server = Server::start(&stage, 2, Manner::Says(head)).await;
        assert_eq!(server.categories().await, ["redirect"; 2]);
    }
    assert_eq!(elsewhere.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn html_other_json_and_other_statuses_are_no_answers() {
    let stage = Stage::new();
    let cases = [
        ("200 OK", "text/html", "<html><body>Sign in</body></html>", "format"),
        ("200 OK", "application/json", r#"{"message":"hello"}"#, "format"),
        ("200 OK", "application/json", "", "format"),
        ("503 Service Unavailable", "text/html", "<html>", "status"),
        ("204 No Content", "text/plain", "", "status"),
    ];
    for (status, kind, body, category) in cases {
        let server = Server::saying(&stage, 2, status, kind, body).await;
        assert_eq!(server.categories().await, [category; 2], "{status} {body}");
    }
    let nobody = format!("{}:1", stage.ip(9));
    assert_eq!(asked(&asker(), &question(nobody, "x", None)).await, Err("connect"));
}

#[tokio::test]
async fn the_envelope_says_whether_an_answer_is_complete() {
    let stage = Stage::new();
    let cases = [
        (json!({"status": "success", "warnings": ["store a is away"]}), "partial"),
        // Prometheus before 2.54 has its infos among the warnings.
        (json!({"status": "success", "warnings": ["PromQL info: metric might not be a counter"]}), "ok"),
        (json!({"status": "success", "infos": ["PromQL info: metric might not be a counter"]}), "ok"),
        (json!({"status": "success", "isPartial": true}), "partial"),
        (json!({"status": "success", "isPartial": false}), "ok"),
        // With a result beside the error.
        (json!({"status": "error", "errorType": "timeout", "error": "query timed out"}), "status"),
    ];
    for (mut body, expected) in cases {
        body["data"] = json!({"resultType": "vector", "result": []});
        let server = Server::saying(&stage, 2, "200 OK", "application/json", &body.to_string()).await;
        assert_eq!(server.categories().await[0], expected, "{body}");
    }
}

#[tokio::test]
async fn a_custom_service_names_pods_by_namespace_and_name() {
    let stage = Stage::new();
    let body = json!({"kind": "PodList", "apiVersion": "v1", "items": [{"metadata": {"name": "a", "namespace": "n"}}]});
    let server = Server::saying(&stage, 2, "200 OK", "application/json", &body.to_string()).await;
    let answer = asked(&asker(), &Detector::Custom(custom(&server))).await.unwrap();
    let named = NamedPod { namespace: Some("n".into()), name: "a".into(), bad: true, ..NamedPod::default() };
    assert_eq!(answer, QueryAnswer::Named(vec![named]));
}

#[tokio::test]
async fn a_custom_list_withholds_pods_of_this_fleet_only_and_a_hang_withholds_none() {
    let fleet = Fleet::new(5);
    let pod = |namespace: &str, name: &str| json!({"metadata": {"name": name, "namespace": namespace}});
    let list = json!({"kind": "PodList", "apiVersion": "v1", "items": [
        pod("test", "pod-11"), pod("other", "pod-12"), pod("test", "ghost"), {"metadata": {"name": "pod-13"}},
    ]});
    let naming = Server::saying(&fleet.stage, 2, "200 OK", "application/json", &list.to_string()).await;
    let hanging = Server::start(&fleet.stage, 3, Manner::Hangs).await;
    let by = |server: &Server| policy(60.0, &json!({"customService": server.address.to_string()}));
    let master = fleet.master(&by(&naming)).await;
    let mut pods = fleet.pods();
    keeping_alive(&master, &mut pods, async {
        until("the named one is out", async || {
            fleet.stage.lines(crate::fleet::FILE).len() == 4 && !fleet.lists(1)
        })
        .await;
        until("strangers are counted", async || {
            master.metric("kubervisor_detector_strangers_total").await.filter(|count| *count >= 3.0)
        })
        .await;
        // A new policy takes effect without a restart; the old query's result is dropped.
        fleet.stage.write("policy.yaml", &by(&hanging));
        until("the alarm", async || master.alarm_is_up("detector_failing").await).await;
        assert!(master.page("services").await.to_string().contains("no answer within 1 s"));
        throughout(Duration::from_millis(800), "it holds", async || {
            fleet.stage.lines(crate::fleet::FILE).len() == 4 && !fleet.lists(1)
        })
        .await;
        // One query in flight: at most one per second, although five evaluations per second are due.
        let before = hanging.asked.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let asked = hanging.asked.load(Ordering::SeqCst) - before;
        assert!((1..=2).contains(&asked), "{asked}");
        fleet.stage.write("policy.yaml", &by(&naming));
        until("all is well again", async || !master.alarm_is_up("detector_failing").await).await;
    })
    .await;
}

/// Prometheus' answer with these pods and numbers, all of code 500.
fn vector(elements: &[(&str, &str)]) -> String {
    let now = Clock::start().wall().unix_millis() / 1000;
    let element =
        |(pod, value): &(&str, &str)| json!({"metric": {"pod": pod, "code": "500"}, "value": [now, value]});
    let result: Vec<_> = elements.iter().map(element).collect();
    json!({"status": "success", "data": {"resultType": "vector", "result": result}}).to_string()
}

#[tokio::test]
async fn invalid_numbers_withhold_no_pod_and_hide_no_bad_one() {
    let fleet = Fleet::new(5);
    // pod-12 is claimed twice, and the two agree.
    let odd = [("pod-10", "NaN"), ("pod-11", "+Inf"), ("pod-12", "9"), ("pod-12", "9"), ("pod-13", "-9")];
    let bad = [&odd[..], &[("pod-14", "9")]].concat();
    let server = Server::saying(&fleet.stage, 2, "200 OK", "application/json", &vector(&bad)).await;
    let service = server.address.to_string();
    let query = |more: Value| {
        let mut query = json!({"prometheusService": service, "podNamekey": "pod", "promQL": "x"});
        query.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        query
    };
    let discrete = query(json!({"key": "code", "goodValues": ["200"], "minActivity": 0}));
    let deviation = query(json!({"maxDeviationPercent": 75}));
    let outlier = query(json!({"minPeers": 3, "minDeviation": 0.1}));
    // Without a minimum coverage: one verdict of five counts.
    let judging = |field: &str, query: &Value| policy(60.0, &json!({field: query, "minCoveragePercent": 0}));
    let master = fleet.master(&judging("discreteValueOutOfList", &discrete)).await;
    let mut pods = fleet.pods();
    let others = || (0..4).all(|pod| fleet.lists(pod));
    let only_the_bad_one = async || !fleet.lists(4) && others();
    keeping_alive(&master, &mut pods, async {
        fleet.listed(5).await;
        until("only the one whose number counts is out", only_the_bad_one).await;
        let explained = master.page("explain/test/pod-14").await.to_string();
        assert!(explained.contains("9 bad of 9"), "{explained}");
        let taken = || master.log().matches("a new policy is in force").count();
        for (field, query) in [("continuousValueDeviation", &deviation), ("outlier", &outlier)] {
            let (before, asked) = (taken(), server.asked.load(Ordering::SeqCst));
            fleet.stage.write("policy.yaml", &judging(field, query));
            until("it is in force", async || taken() > before).await;
            until("it is asked", async || server.asked.load(Ordering::SeqCst) > asked + 5).await;
            // An outlier has a panic threshold, which the last verdict in force exceeds.
            let stays = async || others() && (field == "outlier" || !fleet.lists(4));
            throughout(Duration::from_millis(600), "nobody else is out", stays).await;
        }
    })
    .await;
}

#[tokio::test]
async fn without_events_no_pod_is_withheld_even_without_a_minimum_of_activity() {
    let fleet = Fleet::new(3);
    let idle = vector(&[("pod-10", "0"), ("pod-11", "0"), ("pod-12", "0")]);
    let server = Server::saying(&fleet.stage, 2, "200 OK", "application/json", &idle).await;
    let detector = json!({"discreteValueOutOfList": {
        "prometheusService": server.address.to_string(), "podNamekey": "pod", "promQL": "x", "key": "code",
        "goodValues": ["200"], "minActivity": 0, "tolerance": 0,
    }, "minCoveragePercent": 0});
    let master = fleet.master(&policy(60.0, &detector)).await;
    let mut pods = fleet.pods();
    keeping_alive(&master, &mut pods, async {
        fleet.listed(3).await;
        until("it is asked", async || server.asked.load(Ordering::SeqCst) > 5).await;
        throughout(Duration::from_millis(600), "all stay", async || {
            fleet.stage.lines(crate::fleet::FILE).len() == 3
        })
        .await;
        assert!(!master.alarm_is_up("detector_failing").await, "no traffic is no failure");
    })
    .await;
}
