//! `spec.notify`: pods are told about decisions, by the real notifier from a real API server's pods. The receivers listen
//! on the loopback, where a Service cannot have endpoints; so the notifier is called as the controller calls it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use kubervisor::{
    adapters::notify::{Loopback, Notification, Notifier, NotifyError, NotifyMetrics, TargetRefusal},
    alarms::Alarms,
    api::notify::{NotifyPort, NotifyRule},
    clock::Clock,
    decide::detect::metric_source::Credential,
    metrics::Metrics,
};
use serde_json::{Value, json};

use crate::{
    plane::{Plane, User},
    scene::Stage,
    shop,
};

/// A pod with this status and network; its UID.
fn pod(stage: &Stage, name: &str, host_network: bool, ip: &str) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "hostNetwork": host_network, "nodeName": "no-such-node",
            "containers": [{"name": "app", "image": "app", "ports": [{"name": "web", "containerPort": 1}]}],
        },
    });
    stage.kubectl(&["apply", "-f", "-"], &pod);
    let status = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "192.0.2.1"}}).to_string();
    stage.kubectl(&["patch", "pod", name, "--subresource", "status", "-p", &status], &Value::Null);
    let get = ["-n", &stage.namespace, "get", "pod", name, "-o", "jsonpath={.metadata.uid}"];
    String::from_utf8(Plane::kubectl(&stage.plane, User::Admin, &get, "").stdout).unwrap()
}

struct Notifying {
    notifier: Notifier,
    metrics: Metrics,
}

impl Notifying {
    async fn start(stage: &Stage, loopback: Loopback) -> Self {
        let metrics = Metrics::new(&Alarms::new(Clock::start()));
        let counted = metrics.with_registry(NotifyMetrics::register);
        let client = stage.plane.client(User::Kubervisor).await;
        Self { notifier: Notifier::new(client, counted, loopback).unwrap(), metrics }
    }

    fn counted(&self, outcome: &str) -> bool {
        let line = format!("kubervisor_notifications_total{{outcome=\"{outcome}\"}} 1");
        self.metrics.text().unwrap().contains(&line)
    }

    /// Tells the pod, and returns how it ended.
    async fn tell(&self, note: Notification, rule: NotifyRule) -> Result<(), NotifyError> {
        let (sender, ended) = tokio::sync::oneshot::channel();
        self.notifier.notify(note, rule, move |result| drop(sender.send(result.clone())));
        tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap().unwrap()
    }
}

fn note(stage: &Stage, name: &str, uid: &str, traffic: &'static str, serial: i64) -> Notification {
    Notification {
        namespace: stage.namespace.clone(),
        pod: name.to_owned(),
        uid: uid.to_owned(),
        traffic,
        reason: "codes: 80 % of its answers are 5xx".to_owned(),
        until: Some("2026-01-02T03:04:05.000Z".to_owned()),
        id: "1.7".to_owned(),
        serial,
    }
}

fn rule(port: u16) -> NotifyRule {
    NotifyRule { port: NotifyPort::Number(port), path: "/traffic".to_owned(), hmac: None }
}

/// The server of the examples.
struct ExampleServer {
    child: Child,
    port: u16,
}

impl ExampleServer {
    fn start(uid: &str, key: &str) -> Self {
        let mut child = Command::new("python3")
            .arg("examples/notified_server.py")
            .envs([("HOST", "127.0.0.1"), ("PORT", "0"), ("POD_UID", uid), ("NOTIFY_KEY", key)])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap() }
    }
}

impl Drop for ExampleServer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Asks again and again on one open connection; the time at which the server ended it.
fn until_closed(port: u16, ready: &mpsc::Sender<()>) -> Instant {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    loop {
        if stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").is_err() {
            return Instant::now();
        }
        let mut answer = [0; 1024];
        match stream.read(&mut answer) {
            Ok(0) | Err(_) => return Instant::now(),
            Ok(_) => drop(ready.send(())),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_told_of_its_withdrawal_ends_connections_that_are_open() {
    let stage = Stage::set("told").await;
    let uid = pod(&stage, "web-1", false, "127.0.0.1");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "notify"}, "stringData": {"key": "a key"},
    });
    stage.kubectl(&["apply", "-f", "-"], &secret);
    let server = ExampleServer::start(&uid, "a key");
    let notifying = Notifying::start(&stage, Loopback::Allowed).await;
    let signed = NotifyRule {
        hmac: Some(Credential::Secret { name: "notify".to_owned(), key: "key".to_owned() }),
        ..rule(server.port)
    };
    let refused = notifying.tell(note(&stage, "web-1", &uid, "no", 1), rule(server.port)).await;
    assert!(matches!(refused, Err(NotifyError::Status(403))), "unsigned: {refused:?}");
    let (sender, asked) = mpsc::channel();
    let port = server.port;
    let client = std::thread::spawn(move || until_closed(port, &sender));
    asked.recv().unwrap();
    let began = Instant::now();
    notifying.tell(note(&stage, "web-1", &uid, "no", 2), signed.clone()).await.unwrap();
    let closed = client.join().unwrap().duration_since(began);
    println!("notification to the last request on an open connection: {closed:?}");
    assert!(closed < Duration::from_secs(2), "{closed:?}");
    assert!(notifying.counted("delivered"));
    // An older decision that arrives late changes nothing; a newer one does.
    for (traffic, serial, stays_open) in [("yes", 1, false), ("yes", 3, true)] {
        notifying.tell(note(&stage, "web-1", &uid, traffic, serial), signed.clone()).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
        assert_eq!(!answer.contains("connection: close"), stays_open, "{serial}: {answer}");
    }
}

/// A server that answers each request with this, and counts them.
fn answering(answer: &'static str) -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::<std::sync::atomic::AtomicUsize>::default();
    let counted = Arc::clone(&requests);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _length = stream.read(&mut request);
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let _sent = stream.write_all(answer.as_bytes());
        }
    });
    (port, requests)
}

fn count(requests: &std::sync::atomic::AtomicUsize) -> usize {
    requests.load(std::sync::atomic::Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_pods_own_address_is_told_and_no_redirect_is_followed() {
    let stage = Stage::set("own").await;
    let (elsewhere, strangers) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let uid = pod(&stage, "web-1", false, "127.0.0.1");
    let on_host = pod(&stage, "host-1", true, "127.0.0.1");
    let redirect: &'static str = Box::leak(
        format!("HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:{elsewhere}/\r\nContent-Length: 0\r\n\r\n")
            .into_boxed_str(),
    );
    let (port, asked) = answering(redirect);
    let strict = Notifying::start(&stage, Loopback::Refused).await;
    let refused = strict.tell(note(&stage, "web-1", &uid, "no", 1), rule(port)).await;
    assert!(matches!(refused, Err(NotifyError::Target(TargetRefusal::Address(_)))), "{refused:?}");
    assert!(strict.counted("target"));
    let notifying = Notifying::start(&stage, Loopback::Allowed).await;
    let host = notifying.tell(note(&stage, "host-1", &on_host, "no", 1), rule(port)).await;
    assert!(matches!(host, Err(NotifyError::Target(TargetRefusal::HostNetwork))), "{host:?}");
    let other = notifying.tell(note(&stage, "web-1", "another-uid", "no", 1), rule(port)).await;
    assert!(matches!(other, Err(NotifyError::Target(TargetRefusal::Gone))), "{other:?}");
    assert_eq!(count(&asked), 0, "nothing was sent");
    let redirected = notifying.tell(note(&stage, "web-1", &uid, "no", 2), rule(port)).await;
    assert!(matches!(redirected, Err(NotifyError::Status(307))), "{redirected:?}");
    assert_eq!((count(&asked), count(&strangers)), (3, 0), "three attempts, and none elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_decision_ends_the_attempts_of_the_older_one() {
    let stage = Stage::set("newer").await;
    let uid = pod(&stage, "web-1", false, "127.0.0.1");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let notifying = Notifying::start(&stage, Loopback::Allowed).await;
    let (sender, ended) = tokio::sync::oneshot::channel::<()>();
    let port = silent.local_addr().unwrap().port();
    notifying.notifier.notify(note(&stage, "web-1", &uid, "no", 5), rule(port), move |_| drop(sender));
    let (good, asked) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    notifying.tell(note(&stage, "web-1", &uid, "yes", 6), rule(good)).await.unwrap();
    assert_eq!(count(&asked), 1);
    assert!(ended.await.is_err() && notifying.counted("superseded"), "the older one is not told of");
}

#[tokio::test]
async fn a_decision_does_not_wait_for_its_notification_whose_end_explain_and_metrics_show() {
    let stage = Stage::set("chain").await;
    let mut recipe = shop::Recipe::of("web", 4).breaker("slow", &stage.asks(), 50);
    // Nobody listens there, and nothing is sent: pods of the host's network are never told.
    recipe = recipe.spec("notify", json!({"port": "http", "path": "/traffic"}));
    let scene = stage.play(&recipe).await;
    scene.until_condition("Ready", "True").await;
    let chosen = scene.names().await.swap_remove(0);
    scene.bad([&chosen]);
    scene.until_withheld(std::slice::from_ref(&chosen)).await;
    let notified = async || {
        let status = scene.shop.resource().await.unwrap()["status"].take();
        let explained = status["explanations"].as_array().cloned().unwrap_or_default();
        let told = explained
            .iter()
            .find(|it| it["name"] == *chosen)
            .and_then(|it| it["notified"].as_str().map(str::to_owned));
        told.is_some_and(|told| told.contains("not told traffic=no: no container has a port named"))
    };
    scene.until("the end is in the explanation", notified).await;
}
