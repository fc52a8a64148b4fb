//! An API server without streaming lists, which the plane cannot provide: a minimal fake.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use kubervisor::{
    adapters::kubernetes::{
        cluster::{Cluster, WatchScope},
        connect::{self, ConnectOptions},
    },
    alarms::Alarms,
    clock::Clock,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{fleet, plane::until};

/// The number of lists that were started.
type Lists = Arc<AtomicU32>;

fn pod(name: &str, version: u32) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("u-{name}"), "resourceVersion": version.to_string(),
            "labels": {"app": "web"},
        },
    })
}

fn refusal(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

fn answer(code: u16, body: &Value) -> Response {
    (StatusCode::from_u16(code).unwrap(), body.to_string()).into_response()
}

/// Two pages of pods; the first watch gets 410, the second one more pod.
async fn pods(State(lists): State<Lists>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let page = |more: Option<&str>, names: &[&str]| {
        let version = (100 * lists.load(Ordering::SeqCst)).to_string();
        let items: Vec<Value> = names.iter().map(|name| pod(name, 7)).collect();
        answer(200, &json!({"metadata": {"resourceVersion": version, "continue": more}, "items": items}))
    };
    if uri.path() != "/api/v1/namespaces/shop/pods" {
        answer(404, &refusal(404, "NotFound"))
    } else if query.contains("sendInitialEvents") {
        answer(422, &refusal(422, "Invalid"))
    } else if query.contains("watch=true") {
        let event = match lists.load(Ordering::SeqCst) {
            1 => json!({"type": "ERROR", "object": refusal(410, "Expired")}),
            _ => json!({"type": "ADDED", "object": pod("c", 200)}),
        };
        Body::from(format!("{event}\n")).into_response()
    } else if query.contains("continue=next") {
        page(None, &["b"])
    } else if query.contains("limit=1&") || query.ends_with("limit=1") {
        page(Some("next"), &["a"])
    } else {
        lists.fetch_add(1, Ordering::SeqCst);
        page(Some("next"), &["a"])
    }
}

#[tokio::test]
async fn without_streaming_lists_pods_are_listed_in_pages() {
    let (lists, stop) = (Lists::default(), CancellationToken::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let master = format!("http://{}", listener.local_addr().unwrap());
    let served = Router::new().fallback(pods).with_state(Arc::clone(&lists));
    let server = tokio::spawn(axum::serve(listener, served).into_future());
    let options = ConnectOptions { server: Some(master), ..ConnectOptions::default() };
    let client = connect::client(&options).await.unwrap();
    let cluster = Cluster::start(
        client,
        &WatchScope::Namespaces(vec!["shop".into()]),
        &Alarms::new(Clock::start()),
        &stop,
    );
    let names = || cluster.pods("shop", &fleet()).iter().map(|pod| pod.name.to_string()).collect::<String>();
    until("all pages and a change are seen", || async { (names() == "abc").then_some(()) }).await;
    assert_eq!(lists.load(Ordering::SeqCst), 2, "only the expired watch listed again");
    let failures = cluster.synced().unwrap_err();
    assert!(failures.iter().any(|failure| failure.resource == "services" && failure.message == "NotFound"));
    stop.cancel();
    server.abort();
}
