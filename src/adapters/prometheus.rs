//! Queries Prometheus; only a complete instant vector is accepted.
//!
//! An answer with warnings may be partial (a store behind Thanos that did not answer), and a missing pod would
//! look idle: it is refused as a whole.

use std::collections::HashMap;

use secrecy::ExposeSecret;
use serde::{Deserialize, de::IgnoredAny};

use super::{
    http_client::{self, HttpAnswer, HttpClient, HttpClientError, beginning, brief},
    secrets::{SecretError, Secrets},
};
use crate::decide::{
    detect::{
        Auth, Query,
        series::{Vector, VectorElement},
    },
    time::Timestamp,
};

/// The age in seconds from which Prometheus leaves a sample out by default.
const LOOKBACK: f64 = 300.0;

/// A failed query.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// The credentials cannot be read.
    #[error(transparent)]
    ReadSecret(#[from] SecretError),
    /// The Secret for basic authentication has no colon.
    #[error("the Secret {0} does not hold user:password")]
    SplitSecret(String),
    /// No complete answer.
    #[error(transparent)]
    Inquire(#[from] HttpClientError),
    /// Authentication failed, with status 401 or 403.
    #[error("refused us with status {0}: check auth")]
    LogIn(u16),
    /// Any other status except 200, with the message; most often a mistake in the query.
    #[error("answered with status {0}: {1}")]
    Refused(u16, String),
    /// The body, which begins so, is not of Prometheus's API (HTML, for example).
    #[error("did not answer as Prometheus does but with {0:?}: is prometheusService its address?")]
    Read(String, #[source] serde_json::Error),
    /// A matrix, a scalar or a text.
    #[error("answered with a {0}: write a promQL that gives an instant vector")]
    NotAVector(&'static str),
    /// An answer with warnings, of which this is the first.
    #[error("answered with the warning {0:?}: it may be incomplete")]
    Partial(String),
}

impl PrometheusError {
    /// The metric's label.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::ReadSecret(_) | Self::SplitSecret { .. } => "secret",
            Self::Inquire(error) => error.category(),
            Self::LogIn { .. } => "log_in",
            Self::Refused { .. } => "status",
            Self::Read { .. } => "format",
            Self::NotAVector { .. } => "not_a_vector",
            Self::Partial { .. } => "partial",
        }
    }
}

/// Sends one query. `key` is the label that the detector counts by, if any.
///
/// # Errors
/// [`PrometheusError`] for anything except a complete vector.
pub async fn ask(
    client: &HttpClient,
    secrets: &dyn Secrets,
    query: &Query,
    key: Option<&str>,
    now: Timestamp,
) -> Result<Vector, PrometheusError> {
    let service = query.service.trim_end_matches('/');
    let scheme =
        if service.starts_with("http://") || service.starts_with("https://") { "" } else { "http://" };
    // Recent versions leave out samples older than lookback_delta; the answer shows the query's time, not the sample's.
    let lookback = query.max_sample_age.as_secs_f64().min(LOOKBACK).to_string();
    let request = client
        .client()
        .post(format!("{scheme}{service}/api/v1/query"))
        .form(&[("query", query.promql.as_str()), ("lookback_delta", &lookback)]);
    let request = match &query.auth {
        None => request,
        Some(Auth::Bearer(secret)) => request.bearer_auth(secrets.read(secret).await?.expose_secret().trim()),
        Some(Auth::Basic(secret)) => {
            let text = secrets.read(secret).await?;
            let (user, password) = text
                .expose_secret()
                .trim_end_matches(['\r', '\n'])
                .split_once(':')
                .ok_or_else(|| PrometheusError::SplitSecret(secret.name.clone()))?;
            request.basic_auth(user, Some(password))
        }
    };
    let HttpAnswer { status, body } = http_client::send(request).await?;
    match status.as_u16() {
        200 => read(&body, &query.pod_name_key, key, now),
        status @ (401 | 403) => Err(PrometheusError::LogIn(status)),
        status => Err(PrometheusError::Refused(status, error_message(&body))),
    }
}

#[derive(Deserialize)]
struct PrometheusResponse {
    data: Data,
    #[serde(default)]
    warnings: Vec<String>,
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

fn read(body: &[u8], pod: &str, key: Option<&str>, asked: Timestamp) -> Result<Vector, PrometheusError> {
    let answer: PrometheusResponse =
        serde_json::from_slice(body).map_err(|source| PrometheusError::Read(error_message(body), source))?;
    if let Some(warning) = answer.warnings.first() {
        return Err(PrometheusError::Partial(brief(warning)));
    }
    let found = match answer.data {
        Data::Vector(elements) => {
            let elements =
                elements.into_iter().map(|element| element.into_element(pod, key, asked)).collect();
            return Ok(Vector { asked, elements });
        }
        Data::Matrix(_) => "matrix",
        Data::Scalar(_) => "scalar",
        Data::String(_) => "text",
    };
    Err(PrometheusError::NotAVector(found))
}

impl Element {
    fn into_element(mut self, pod: &str, key: Option<&str>, asked: Timestamp) -> VectorElement {
        let (at, value) = match &self.value {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "a cast saturates, and such a time is stale or new"
            )]
            Some((seconds, text)) => {
                (Timestamp::from_unix_millis((seconds * 1000.0) as i64), text.parse().unwrap_or(f64::NAN))
            }
            None => (asked, f64::NAN),
        };
        // `key` and `pod` may name the same label.
        let key = key.and_then(|key| self.metric.get(key).cloned());
        VectorElement { pod: self.metric.remove(pod), key, value, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vector, PrometheusError> {
        read(text.as_bytes(), "pod", Some("code"), Timestamp::from_unix_millis(7000))
    }

    fn category(text: &str) -> &'static str {
        parse(text).unwrap_err().category()
    }

    #[test]
    fn a_vector_is_read_with_all_the_numbers_that_prometheus_can_write() {
        let text = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"pod":"a","code":"200","x":"\u00e9"},"value":[1.5,"0.25"]},
            {"metric":{"pod":"b"},"value":[2,"NaN"]},
            {"metric":{},"value":[2,"-Inf"]},
            {"metric":{"pod":"c"},"value":[2,"+Inf"]},
            {"metric":{"pod":"d"},"histogram":[2,{"count":"3","sum":"4"}]}]},"infos":["fine"]}"#;
        let Vector { elements, .. } = parse(text).unwrap();
        let first = VectorElement {
            pod: Some("a".into()),
            key: Some("200".into()),
            value: 0.25,
            at: Timestamp::from_unix_millis(1500),
        };
        assert_eq!(elements[0], first);
        assert!(elements[1].value.is_nan() && elements[1].key.is_none());
        assert_eq!((elements[2].pod.as_deref(), elements[2].value), (None, f64::NEG_INFINITY));
        assert_eq!(elements[3].value, f64::INFINITY);
        assert!(elements[4].value.is_nan(), "a histogram is no number");
    }

    #[test]
    fn what_is_no_complete_vector_is_refused_with_a_category() {
        let data = |kind: &str, result: &str| {
            format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#)
        };
        assert!(parse(&data("vector", "[]")).unwrap().elements.is_empty());
        assert_eq!(category(&data("matrix", "[]")), "not_a_vector");
        assert_eq!(category(&data("scalar", r#"[1,"1"]"#)), "not_a_vector");
        assert_eq!(category(&data("string", r#"[1,"x"]"#)), "not_a_vector");
        assert_eq!(category(&data("other", "[]")), "format");
        assert_eq!(category("<html>hello</html>"), "format");
        assert_eq!(category("{}"), "format");
        assert_eq!(
            category(r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":[]}]}}"#),
            "format"
        );
        let partial =
            r#"{"status":"success","warnings":["store away"],"data":{"resultType":"vector","result":[]}}"#;
        assert_eq!(category(partial), "partial");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = format!(r#"{{"data":{}"#, "[".repeat(1 << 20));
        assert_eq!(category(&deep), "format");
    }

    #[test]
    fn an_error_shows_the_message_or_the_beginning_of_the_body() {
        assert_eq!(
            error_message(br#"{"status":"error","errorType":"bad_data","error":"no"}"#),
            "bad_data: no"
        );
        assert_eq!(error_message(b"<html>\n\x1b[31m"), "<html>  [31m");
        assert!(error_message(&vec![b'x'; 1 << 20]).len() <= 200);
    }
}
