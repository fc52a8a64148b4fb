//! HTTP pages of a process: scrape and probes on one address, read-only JSON pages on another.
//!
//! `--addr` serves `/metrics /live /ready` to the cluster; `--admin-addr` serves the rest to the local machine.
//! Both depend on [`Views`] only, not on a role.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::{ConnectInfo, Path, State, connect_info::Connected},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, put},
    serve::{IncomingStream, Listener},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    adapters::store::StoreError,
    alarms::Alarms,
    metrics::{Exposition, Metrics},
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

    /// The replicas that share the work, where there are several.
    fn replicas(&self) -> Option<Arc<dyn MemberControl>> {
        None
    }

    /// The services that another replica works on: namespace, name, owner.
    fn elsewhere(&self) -> Vec<Value> {
        Vec::new()
    }

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
        let (here, elsewhere) = (self.fleets(), self.elsewhere());
        json!({ "services": here, "elsewhere": elsewhere, "alarms": { "up": alarms.up(), "history": alarms.history() } })
    }

    /// `/services/{namespace}/{name}`.
    fn service(&self, namespace: &str, name: &str) -> Option<Value> {
        let fleets = self.fleets();
        match fleets.iter().find(|fleet| fleet.namespace == namespace && fleet.name == name) {
            Some(found) => {
                let mut page = serde_json::to_value(found).ok()?;
                page["episodes"] = json!(found.episodes.all());
                Some(page)
            }
            None => {
                self.elsewhere().into_iter().find(|row| row["namespace"] == namespace && row["name"] == name)
            }
        }
    }

    /// `/explain/{namespace}/{pod}`.
    fn explain(&self, namespace: &str, pod: &str) -> Option<Value> {
        let fleets = self.fleets();
        fleets.iter().filter(|fleet| fleet.namespace == namespace).find_map(|fleet| fleet.explain(pod))
    }
}

/// Changes that the members of a cluster can be asked for.
#[async_trait]
pub trait MemberControl: Send + Sync {
    /// Gives the member no work any more, or again.
    ///
    /// # Errors
    /// There is no such member, or the store does not answer.
    async fn set_cordoned(&self, member: &str, cordoned: bool) -> Result<(), StoreError>;

    /// This process gives up the leadership; another one is elected.
    ///
    /// # Errors
    /// This process does not lead, or the store does not answer.
    async fn hand_over(&self) -> Result<(), StoreError>;
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

/// The address that a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

type Shown = Arc<dyn Views>;

/// `/metrics /live /ready`.
pub fn probes(views: Shown, metrics: Metrics) -> Router {
    Router::new()
        .route("/metrics", get(move |headers: HeaderMap| async move { scrape(&metrics, &headers) }))
        .route("/live", get(|| async { "alive\n" }))
        .route("/ready", get(ready))
        .fallback(unknown)
        .with_state(views)
}

/// `/cluster /ensemble /services /services/NAMESPACE/NAME /explain/NAMESPACE/POD`.
pub fn pages(views: Shown) -> Router {
    Router::new()
        .route("/ensemble", get(|State(views): State<Shown>| async move { Json(views.ensemble()) }))
        .route("/cluster/leader", delete(hand_over))
        .route("/cluster/members/{id}/cordon", put(cordon).delete(uncordon))
        .route("/cluster", get(|State(views): State<Shown>| async move { Json(views.cluster()) }))
        .route("/services", get(|State(views): State<Shown>| async move { Json(views.services()) }))
        .route("/services/{namespace}/{name}", get(service))
        .route("/explain/{namespace}/{pod}", get(explain))
        .fallback(unknown)
        .with_state(views)
}

/// Serves until `stop`.
pub async fn serve<L>(listener: L, router: Router, stop: CancellationToken)
where
    L: Listener<Addr = SocketAddr>,
    Peer: for<'a> Connected<IncomingStream<'a, L>>,
{
    let router = router.into_make_service_with_connect_info::<Peer>();
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

fn scrape(metrics: &Metrics, headers: &HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Exposition::accepted(accept);
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], format.of(text)).into_response(),
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

/// `DELETE /cluster/leader`: this replica, which leads, hands over.
async fn hand_over(State(views): State<Shown>, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    change(&views, peer, MemberChange::HandOver).await
}

/// `PUT /cluster/members/ID/cordon`.
async fn cordon(
    State(views): State<Shown>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
) -> Response {
    change(&views, peer, MemberChange::Cordon(id, true)).await
}

/// `DELETE /cluster/members/ID/cordon`.
async fn uncordon(
    State(views): State<Shown>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
) -> Response {
    change(&views, peer, MemberChange::Cordon(id, false)).await
}

/// What a request changes.
enum MemberChange {
    HandOver,
    Cordon(String, bool),
}

/// Changes are for this machine only, and their methods are none that a web page can send by itself.
async fn change(views: &Shown, Peer(peer): Peer, what: MemberChange) -> Response {
    let refuse = |code: StatusCode, why: String| (code, Json(json!({ "error": why }))).into_response();
    if !peer.ip().is_loopback() {
        return refuse(
            StatusCode::FORBIDDEN,
            format!("{peer} may only read; send this from the replica's own machine"),
        );
    }
    let Some(replicas) = views.replicas() else {
        let alone = "this process shares its work with nobody; start it with --store";
        return refuse(StatusCode::NOT_FOUND, alone.to_owned());
    };
    let done = match what {
        MemberChange::HandOver => replicas.hand_over().await,
        MemberChange::Cordon(id, cordoned) => replicas.set_cordoned(&id, cordoned).await,
    };
    match done {
        Ok(()) => Json(json!({ "done": true })).into_response(),
        Err(StoreError::Unusable(why)) => refuse(StatusCode::CONFLICT, why),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::clock::Clock;

    /// One replica, which counts what it is asked to change.
    struct Replica {
        alarms: Alarms,
        changes: Arc<Changes>,
    }

    #[derive(Default)]
    struct Changes(AtomicUsize);

    #[async_trait]
    impl MemberControl for Changes {
        async fn set_cordoned(&self, _member: &str, _cordoned: bool) -> Result<(), StoreError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        async fn hand_over(&self) -> Result<(), StoreError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    impl Views for Replica {
        fn ready(&self) -> Result<(), String> {
            Ok(())
        }

        fn ensemble(&self) -> Value {
            Value::Null
        }

        fn cluster(&self) -> Value {
            Value::Null
        }

        fn replicas(&self) -> Option<Arc<dyn MemberControl>> {
            Some(Arc::<Changes>::clone(&self.changes))
        }

        fn fleets(&self) -> Vec<Arc<GateSnapshot>> {
            Vec::new()
        }

        fn alarms(&self) -> &Alarms {
            &self.alarms
        }
    }

    /// The codes of all three changes, sent from there.
    async fn codes(views: &Shown, from: &str) -> [u16; 3] {
        let peer = || ConnectInfo(Peer(from.parse().unwrap()));
        let (state, id) = (|| State(Arc::clone(views)), || Path("a-1".to_owned()));
        let handed_over = hand_over(state(), peer()).await;
        let cordoned = cordon(state(), peer(), id()).await;
        let uncordoned = uncordon(state(), peer(), id()).await;
        [handed_over, cordoned, uncordoned].map(|answer| answer.status().as_u16())
    }

    #[tokio::test]
    async fn members_are_changed_from_the_replicas_own_machine_only() {
        let changes = Arc::<Changes>::default();
        let replica = Replica { alarms: Alarms::new(Clock::start()), changes: Arc::clone(&changes) };
        let views: Shown = Arc::new(replica);
        for stranger in ["10.0.0.7:40000", "[fd00::7]:40000"] {
            assert_eq!(codes(&views, stranger).await, [403; 3]);
        }
        assert_eq!(changes.0.load(Ordering::Relaxed), 0);
        for here in ["127.0.0.1:40000", "[::1]:40000"] {
            assert_eq!(codes(&views, here).await, [200; 3]);
        }
        assert_eq!(changes.0.load(Ordering::Relaxed), 6);
    }
}
