//! The simplest real signal: an HTTP server that a breaker's `customService` asks, and that answers with the pods which
//! a test says are bad.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, none uses all")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A path's answer: pods by namespace and name, or a failure.
#[derive(Clone, Default)]
struct Said {
    bad: BTreeSet<(String, String)>,
    instead: Option<Value>,
    fails: bool,
    asked: usize,
}

type Shared = Arc<Mutex<BTreeMap<String, Said>>>;

/// A running server; it ends when it is dropped.
pub struct Signals {
    address: SocketAddr,
    said: Shared,
    _stop: mpsc::Sender<()>,
}

impl Signals {
    /// Starts one: no pod of any path is bad.
    pub fn start() -> Self {
        let (said, (stop, stopped), (ready, address)) = (Shared::default(), mpsc::channel(), mpsc::channel());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&said));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    served = axum::serve(listener, router) => served.unwrap(),
                    _ = tokio::task::spawn_blocking(move || stopped.recv()) => {}
                }
            });
        });
        Self { address: address.recv().expect("it listens"), said, _stop: stop }
    }

    /// What a breaker's `customService` says to ask this path.
    pub fn service(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }

    /// From now on these pods of the namespace are the bad ones of the path.
    pub fn bad<T: Into<String>>(&self, path: &str, namespace: &str, pods: impl IntoIterator<Item = T>) {
        let bad = pods.into_iter().map(|pod| (namespace.to_owned(), pod.into())).collect();
        self.of(path, |said| said.bad = bad);
    }

    /// Whether the path answers 503.
    pub fn fails(&self, path: &str, fails: bool) {
        self.of(path, |said| said.fails = fails);
    }

    /// From now on the path answers this, whatever is bad.
    pub fn says(&self, path: &str, answer: Value) {
        self.of(path, |said| said.instead = Some(answer));
    }

    /// How often it was asked.
    pub fn asked(&self, path: &str) -> usize {
        self.of(path, |said| said.asked)
    }

    fn of<T>(&self, path: &str, with: impl FnOnce(&mut Said) -> T) -> T {
        with(locked(&self.said).entry(format!("/{path}")).or_default())
    }
}

fn locked(said: &Shared) -> MutexGuard<'_, BTreeMap<String, Said>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(said): State<Shared>, uri: Uri) -> Response {
    let said = {
        let mut all = locked(&said);
        let said = all.entry(uri.path().to_owned()).or_default();
        said.asked += 1;
        said.clone()
    };
    if said.fails {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if let Some(instead) = said.instead {
        return Json(instead).into_response();
    }
    let items: Vec<_> = said
        .bad
        .iter()
        .map(|(namespace, name)| json!({"metadata": {"namespace": namespace, "name": name}}))
        .collect();
    Json(json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items})).into_response()
}
