//! The pages: what is asked for, seen by the reader's rights, as HTML.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};
use minijinja::{context, value::Serde};
use serde::Deserialize;
use serde_json::Value;

use super::{
    View,
    audience::Audience,
    fleet_page::{AlarmRow, FleetPage},
    live::Topic,
    overview::{self, OverviewQuery},
    pod_page::PodPage,
    template::render,
};
use crate::roles::gate::snapshot::GateSnapshot;

/// Columns that sort the overview.
const COLUMNS: [(&str, &str); 5] = [
    ("name", "Service"),
    ("state", "State"),
    ("serving", "Serving/floor/wanted"),
    ("withheld", "Withheld"),
    ("alarms", "Alarms"),
];
/// Rows of the ensemble's page; the filter finds the others.
const ENSEMBLE_ROWS: usize = 1000;

type PageState = State<Arc<View>>;
type PageReader = Extension<Arc<Audience>>;

/// All pages; who reads them is an extension of the request.
pub(super) fn pages() -> Router<Arc<View>> {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/view") }))
        .route("/view", get(overview))
        .route("/view/services/{namespace}/{name}", get(fleet))
        .route("/view/pods/{namespace}/{name}/{pod}", get(pod))
        .route("/view/ensemble", get(ensemble))
        .route("/view/members", get(members))
        .route("/view/live", get(live))
}

/// What pages load; the same for everybody.
pub(super) fn assets() -> Router<Arc<View>> {
    let asset = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, kind)], text) })
    };
    Router::new()
        .route("/view/style.css", asset("text/css; charset=utf-8", include_str!("pages/style.css")))
        .route("/view/live.js", asset("text/javascript; charset=utf-8", include_str!("pages/live.js")))
}

async fn overview(
    State(view): PageState,
    Extension(reader): PageReader,
    Query(query): Query<OverviewQuery>,
) -> Response {
    let fleets = view.views.fleets();
    let seen = || fleets.iter().filter(|fleet| reader.sees(&fleet.namespace));
    let up = view.views.alarms().up();
    let rows = overview::rows(seen().map(|fleet| &**fleet), &up, &query);
    let own = up.iter().filter(|alarm| alarm.of.is_empty() && reader.sees_the_process());
    let own: Vec<AlarmRow> = own.map(AlarmRow::from).collect();
    page(
        "overview.html",
        context! {
            rows => Serde(&rows), all => seen().count(), alarms => Serde(&own), query => Serde(&query),
            columns => COLUMNS, live => "/view/live", version => VERSION,
        },
    )
}

async fn fleet(
    State(view): PageState,
    Extension(reader): PageReader,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let Some(fleet) = found(&view, &reader, &namespace, &name) else {
        return missing(&format!("No service {namespace}/{name} is worked on here, or you may not see it."));
    };
    let timeline = view.watcher.timeline(&namespace, &name);
    let model = FleetPage::of(&fleet, &view.views.alarms().up(), &timeline, view.clock.wall());
    let events = view.views.events(&namespace, &name);
    page(
        "fleet.html",
        context! {
            page => Serde(&model), events => Serde(&events), version => VERSION,
            live => live_address(&namespace, &name),
        },
    )
}

async fn pod(
    State(view): PageState,
    Extension(reader): PageReader,
    Path((namespace, name, pod)): Path<(String, String, String)>,
) -> Response {
    let fleet = found(&view, &reader, &namespace, &name);
    let known = fleet.as_ref().and_then(|fleet| fleet.pods.iter().find(|known| known.id == pod));
    let (Some(fleet), Some(known)) = (&fleet, known) else {
        return missing(&format!("No pod {pod} of {namespace}/{name} is known here, or you may not see it."));
    };
    let timeline = view.watcher.timeline(&namespace, &name);
    let model = PodPage::of(fleet, known, &timeline, view.clock.wall());
    page(
        "pod.html",
        context! { page => Serde(&model), version => VERSION, live => live_address(&namespace, &name) },
    )
}

#[derive(Deserialize)]
struct EnsembleQuery {
    #[serde(default)]
    q: String,
}

async fn ensemble(
    State(view): PageState,
    Extension(reader): PageReader,
    Query(EnsembleQuery { q }): Query<EnsembleQuery>,
) -> Response {
    if !reader.sees_the_process() {
        return missing(
            "The ensemble is shown to those who may get the KubervisorServices of all namespaces.",
        );
    }
    let ensemble = view.views.ensemble();
    let wanted = q.to_lowercase();
    let shows = |pod: &&Value| {
        let members = ["id", "ip", "role", "status"].into_iter().filter_map(|member| pod.get(member));
        members.filter_map(Value::as_str).any(|text| text.to_lowercase().contains(&wanted))
    };
    let pods = ensemble.get("pods").and_then(Value::as_array).into_iter().flatten();
    let pods: Vec<&Value> = pods.filter(shows).take(ENSEMBLE_ROWS).collect();
    page(
        "ensemble.html",
        context! {
            ensemble => Serde(&ensemble), pods => Serde(&pods), q => q, version => VERSION,
            live => "/view/live?of=ages",
        },
    )
}

async fn members(State(view): PageState, Extension(reader): PageReader) -> Response {
    if !reader.sees_the_process() {
        return missing(
            "The members are shown to those who may get the KubervisorServices of all namespaces.",
        );
    }
    let cluster = view.views.cluster();
    page(
        "members.html",
        context! { cluster => Serde(&cluster), version => VERSION, live => "/view/live?of=ages" },
    )
}

#[derive(Deserialize)]
struct LiveQuery {
    #[serde(default)]
    of: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

async fn live(
    State(view): PageState,
    Extension(reader): PageReader,
    Query(LiveQuery { of, namespace, name }): Query<LiveQuery>,
) -> Response {
    let topic = match of.as_str() {
        "ages" => Topic::Ages,
        "service" if reader.sees(&namespace) => Topic::Fleet((namespace, name)),
        "service" => return missing("You may not see this namespace."),
        _ => Topic::Overview,
    };
    match view.streams.open(topic, view.watcher.revisions()) {
        Some(stream) => stream.into_response(),
        None => {
            let why = "too many open views; this one is not updated by itself\n";
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "30")], why).into_response()
        }
    }
}

fn live_address(namespace: &str, name: &str) -> String {
    let encode = |text: &str| utf8(text);
    format!("/view/live?of=service&namespace={}&name={}", encode(namespace), encode(name))
}

/// Percent-encodes everything but letters, digits, `-` and `.`.
fn utf8(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn found(view: &View, reader: &Audience, namespace: &str, name: &str) -> Option<Arc<GateSnapshot>> {
    let fleets = view.views.fleets();
    fleets
        .into_iter()
        .find(|fleet| fleet.namespace == namespace && fleet.name == name && reader.sees(namespace))
}

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A page that cannot be written is an error of ours, told to the log and to the reader.
pub(super) fn page(name: &str, values: minijinja::Value) -> Response {
    match render(name, values) {
        Ok(text) => Html(text).into_response(),
        Err(why) => {
            tracing::error!("{why}");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")).into_response()
        }
    }
}

/// The answer to other addresses.
pub(super) async fn unknown() -> Response {
    missing("There is no such page.")
}

/// The answer to what is not there, or not for this reader: the same, so that it tells nothing.
pub(super) fn missing(text: &str) -> Response {
    let body = page(
        "message.html",
        context! { title => "Not found", text => text, form => false, version => VERSION },
    );
    (StatusCode::NOT_FOUND, body).into_response()
}
