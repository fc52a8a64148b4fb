//! Queries Prometheus; only a complete instant vector is accepted.
//!
//! An answer with warnings may be partial (a store behind Thanos that did not answer), and a missing pod would
//! look idle: it is refused as a whole. [`range`] asks for the history of the same queries.

mod matrix;
pub mod range;

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, de::IgnoredAny};

use super::{
    http_client::{HttpAnswer, beginning, brief},
    sources::{SourceClient, SourceError},
};
use crate::decide::{
    detect::{
        Query,
        series::{Vector, VectorElement},
    },
    time::Timestamp,
};

/// The age in seconds from which Prometheus leaves a sample out by default.
const LOOKBACK: f64 = 300.0;

/// Prometheus before 2.54 sends its infos, which harm nobody, among the warnings.
const INFO: &str = "PromQL info:";

/// A failed query.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// No complete answer.
    #[error(transparent)]
    Ask(#[from] SourceError),
    /// Any other status except 200, with the message; most often a mistake in the query.
    #[error("answered with status {0}: {1}")]
    Refused(u16, String),
    /// Status 200 and an error in the body, or a result that is no success.
    #[error("answered with an error: {0}")]
    Failed(String),
    /// The body, which begins so, is not of Prometheus's API (HTML, for example).
    #[error("did not answer as Prometheus does but with {0:?}: is prometheusService its address?")]
    Read(String, #[source] serde_json::Error),
    /// A matrix, a scalar or a text.
    #[error("answered with a {0}: write a promQL that gives an instant vector")]
    NotAVector(&'static str),
    /// An answer with warnings, of which this is the first, or with a flag that says so.
    #[error("answered with the warning {0:?}: it may be incomplete")]
    Partial(String),
    /// A part of a history with more values, or bytes, than are read at once.
    #[error("answered with more than {0}: ask for fewer series, or for less at once")]
    TooLarge(&'static str),
    /// No complete answer within this time.
    #[error("gave no complete answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

impl PrometheusError {
    /// The metric's label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Ask(error) => error.category(),
            Self::Refused { .. } | Self::Failed(_) => "status",
            Self::Read { .. } => "format",
            Self::NotAVector { .. } => "not_a_vector",
            Self::Partial { .. } => "partial",
            Self::TooLarge(_) => "too_large",
            Self::TimedOut(_) => "timeout",
        }
    }
}

/// Sends one query. `key` is the label that the detector counts by, if any.
///
/// # Errors
/// [`PrometheusError`] for anything except a complete vector.
pub async fn ask(
    client: &SourceClient,
    query: &Query,
    promql: &str,
    key: Option<&str>,
    now: Timestamp,
) -> Result<Vector, PrometheusError> {
    let lookback = lookback(query);
    let parameters = [("query", promql), ("lookback_delta", &lookback)];
    let HttpAnswer { status, body, .. } = client.ask(&query.source, "api/v1/query", &parameters).await?;
    match status.as_u16() {
        200 => read(&body, query, key, now),
        status => Err(PrometheusError::Refused(status, error_message(&body))),
    }
}

/// Recent versions leave out samples older than `lookback_delta`; the answer shows the query's time, not the sample's.
fn lookback(query: &Query) -> String {
    query.max_sample_age.as_secs_f64().min(LOOKBACK).to_string()
}

/// The envelope. Servers with the same API say in their own ways that a part of the data is missing.
#[derive(Deserialize)]
struct PrometheusResponse {
    status: String,
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    warnings: Vec<String>,
    /// VictoriaMetrics.
    #[serde(default, rename = "isPartial")]
    is_partial: bool,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Element>),
    Matrix(IgnoredAny),
    Scalar(IgnoredAny),
    String(IgnoredAny),
}

#[derive(Deserialize)]
struct Element {
    metric: HashMap<String, String>,
    /// Absent for a histogram.
    value: Option<(f64, String)>,
}

#[derive(Deserialize)]
struct PrometheusErrorBody {
    #[serde(rename = "errorType", default)]
    kind: String,
    error: String,
}

/// Prometheus's message, or the beginning of another body.
fn error_message(body: &[u8]) -> String {
    match serde_json::from_slice::<PrometheusErrorBody>(body) {
        Ok(PrometheusErrorBody { kind, error }) => brief(&format!("{kind}: {error}")),
        Err(_) => beginning(body),
    }
}

fn read(body: &[u8], query: &Query, key: Option<&str>, asked: Timestamp) -> Result<Vector, PrometheusError> {
    let answer: PrometheusResponse =
        serde_json::from_slice(body).map_err(|source| PrometheusError::Read(error_message(body), source))?;
    if answer.status != "success" {
        return Err(PrometheusError::Failed(error_message(body)));
    }
    if let Some(warning) = answer.warnings.iter().find(|warning| !warning.starts_with(INFO)) {
        return Err(PrometheusError::Partial(brief(warning)));
    }
    if answer.is_partial {
        return Err(PrometheusError::Partial("isPartial".to_owned()));
    }
    let found = match answer.data {
        Some(Data::Vector(elements)) => {
            let elements =
                elements.into_iter().map(|element| element.into_element(query, key, asked)).collect();
            return Ok(Vector { asked, elements });
        }
        Some(Data::Matrix(_)) => "matrix",
        Some(Data::Scalar(_)) => "scalar",
        Some(Data::String(_)) => "text",
        None => "answer without data",
    };
    Err(PrometheusError::NotAVector(found))
}

impl Element {
    fn into_element(self, query: &Query, key: Option<&str>, asked: Timestamp) -> VectorElement {
        let (at, value) = match &self.value {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "a cast saturates, and such a time is stale or new"
            )]
            Some((seconds, text)) => (
                Timestamp::from_unix_millis((seconds * 1000.0) as i64),
                Some(text.parse().unwrap_or(f64::NAN)),
            ),
            None => (asked, None),
        };
        VectorElement { value, at, ..labelled(self.metric, query, key) }
    }
}

/// An element with these labels, without a sample.
fn labelled(mut labels: HashMap<String, String>, query: &Query, key: Option<&str>) -> VectorElement {
    // Two of these may name the same label.
    let of = |label: &str| labels.get(label).cloned();
    let (pod, namespace, key) = (of(&query.pod_name_key), of(&query.namespace_key), key.and_then(of));
    labels.remove(&query.pod_name_key);
    VectorElement { pod, namespace, key, labels, value: None, at: Timestamp::default() }
}
