//! HTTP pages of a process: scrape and probes on one address, read-only JSON pages on another.
//!
//! `--addr` serves `/metrics /live /ready` to the cluster; `--admin-addr` serves the rest to the local machine.
//! Both depend on [`Views`] only, not on a role.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    alarms::Alarms,
    metrics::{CONTENT_TYPE, Metrics},
    roles::gate::snapshot::GateSnapshot,
};

/// How long a stop waits for readers that are slow.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The data behind the pages; one implementation per role.
pub trait Views: Send + Sync + 'static {
    /// Whether this process can do its work.
    ///
    /// # Errors
    /// The reason why it is not ready.
    fn ready(&self) -> Result<(), String>;

    /// Digest, leader, and the pods with sequence and age.
    fn ensemble(&self) -> Value;

    /// Name, leader and members.
    fn cluster(&self) -> Value;

    /// The newest snapshots of the fleets that are gated here.
    fn fleets(&self) -> Vec<Arc<GateSnapshot>>;

    /// The process's alarms.
    fn alarms(&self) -> &Alarms;

    /// The newest Events about a fleet and its pods, newest first, as far as this process recorded them.
    fn events(&self, _namespace: &str, _name: &str) -> Vec<AdminEvent> {
        Vec::new()
    }

    /// `/services`.
    fn services(&self) -> Value {
        let alarms = self.alarms();
        json!({ "services": self.fleets(), "alarms": { "up": alarms.up(), "history": alarms.history() } })
    }

    /// `/services/{namespace}/{name}`.
    fn service(&self, namespace: &str, name: &str) -> Option<Value> {
        let fleets = self.fleets();
        let found = fleets.iter().find(|fleet| fleet.namespace == namespace && fleet.name == name)?;
        let mut page = serde_json::to_value(found).ok()?;
        page["episodes"] = json!(found.episodes.all());
        Some(page)
    }

    /// `/explain/{namespace}/{pod}`.
    fn explain(&self, namespace: &str, pod: &str) -> Option<Value> {
        let fleets = self.fleets();
        fleets.iter().filter(|fleet| fleet.namespace == namespace).find_map(|fleet| fleet.explain(pod))
    }
}

/// A Kubernetes Event as the pages show it.
#[derive(Clone, Debug, Serialize)]
pub struct AdminEvent {
    /// When it was recorded.
    pub at: String,
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    /// A CamelCase word.
    pub reason: &'static str,
    /// Kind and name of its object.
    pub about: String,
    /// The message.
    pub note: String,
}

type Shown = Arc<dyn Views>;

/// `/metrics /live /ready`.
pub fn probes(views: Shown, metrics: Metrics) -> Router {
    Router::new()
        .route("/metrics", get(move || async move { scrape(&metrics) }))
        .route("/live", get(|| async { "alive\n" }))
        .route("/ready", get(ready))
        .fallback(unknown)
        .with_state(views)
}

/// `/cluster /ensemble /services /services/NAMESPACE/NAME /explain/NAMESPACE/POD`.
pub fn pages(views: Shown) -> Router {
    Router::new()
        .route("/ensemble", get(|State(views): State<Shown>| async move { Json(views.ensemble()) }))
        .route("/cluster", get(|State(views): State<Shown>| async move { Json(views.cluster()) }))
        .route("/services", get(|State(views): State<Shown>| async move { Json(views.services()) }))
        .route("/services/{namespace}/{name}", get(service))
        .route("/explain/{namespace}/{pod}", get(explain))
        .fallback(unknown)
        .with_state(views)
}

/// Binds `address`; the caller turns a failure into a configuration error.
///
/// # Errors
/// The address is taken, not ours, or not allowed.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stop`.
pub async fn serve<L>(listener: L, router: Router, stop: CancellationToken)
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::error!(%error, "the admin listener ended");
        },
        () = late => {}
    }
}

fn scrape(metrics: &Metrics) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(views): State<Shown>) -> Response {
    match views.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn service(State(views): State<Shown>, Path((namespace, name)): Path<(String, String)>) -> Response {
    found(views.service(&namespace, &name), || {
        format!("no service {namespace}/{name} is worked on here; see /services")
    })
}

async fn explain(State(views): State<Shown>, Path((namespace, pod)): Path<(String, String)>) -> Response {
    found(views.explain(&namespace, &pod), || {
        format!("no pod {namespace}/{pod} is known here; see /ensemble")
    })
}

async fn unknown() -> Response {
    let known = "/metrics /live /ready on --addr; \
                 /view /cluster /ensemble /services /services/NAMESPACE/NAME /explain/NAMESPACE/POD on --admin-addr";
    (StatusCode::NOT_FOUND, Json(json!({ "error": format!("no such page; there are {known}") })))
        .into_response()
}

fn found(page: Option<Value>, missing: impl FnOnce() -> String) -> Response {
    match page {
        Some(page) => Json(page).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({ "error": missing() }))).into_response(),
    }
}
