//! The history of a query: `query_range`, with steps below the server's limit of points.
//!
//! What may pass is tried again: no connection, half an answer, 429 and 5xx, after `Retry-After` where the server says so.
//! What cannot (a mistake in the query, a login page) ends at once with the server's own words.

use std::{
    io::{self, BufReader, Read},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

use super::{
    INFO, PrometheusError, error_message, labelled, lookback,
    matrix::{self, Grid, Matrix},
};
use crate::{
    adapters::{
        http_client::{HttpClientError, OpenAnswer, brief},
        sources::{SourceClient, SourceError},
    },
    clock,
    decide::{
        detect::Query,
        replay::answers::{RangeAnswer, RangeSeries},
        time::{Timestamp, millis},
    },
};

/// Steps of one request, at most. Prometheus itself refuses more than 11 000.
pub const MAX_STEPS: usize = 10_000;

/// For one request, from the connection to the last byte.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Requests for the same part, if each fails for a reason that may pass.
const ATTEMPTS: usize = 6;
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Bytes of one answer, at most.
const MAX_BODY: usize = 1 << 30;
/// Parts of a body between the connection and the decoder.
const PARTS: usize = 16;

/// One part of a query's history.
#[derive(Clone, Copy, Debug)]
pub struct RangeRequest<'a> {
    /// Server and labels.
    pub query: &'a Query,
    /// The expression, without variables.
    pub promql: &'a str,
    /// The label that the detector counts by, if any.
    pub key: Option<&'a str>,
    /// The first step.
    pub start: Timestamp,
    /// Between two steps, at least 1 ms.
    pub step: Duration,
    /// The number of steps.
    pub steps: usize,
}

/// Fetches the part. What may pass is tried again.
///
/// # Errors
/// [`PrometheusError`] when there is no complete answer in the end; after [`PrometheusError::is_too_much`] fewer steps may
/// have one.
pub async fn fetch(client: &SourceClient, request: RangeRequest<'_>) -> Result<RangeAnswer, PrometheusError> {
    let mut delays = clock::backoff(BACKOFF.0, BACKOFF.1).take(ATTEMPTS - 1);
    loop {
        let answer = tokio::time::timeout(TIMEOUT, ask(client, request)).await;
        let error = match answer.unwrap_or(Err(PrometheusError::TimedOut(TIMEOUT))) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if error.is_too_much() {
            return Err(error);
        }
        let Some(wait) = delays.next().and_then(|backoff| wait(&error, backoff)) else { return Err(error) };
        tracing::debug!(%error, ?wait, "a range is asked for again");
        tokio::time::sleep(wait).await;
    }
}

impl PrometheusError {
    /// The server cannot answer as much at once.
    pub fn is_too_much(&self) -> bool {
        match self {
            Self::Refused(413 | 422, _) | Self::TooLarge(_) | Self::TimedOut(_) => true,
            // Prometheus says 503 when its own time limit is reached.
            Self::Refused(503 | 504, message) => message.contains("time"),
            _ => false,
        }
    }
}

/// The time until the next try; `None` when it would fail the same way.
fn wait(error: &PrometheusError, backoff: Duration) -> Option<Duration> {
    match error {
        PrometheusError::Ask(SourceError::Resting(left)) => Some(*left),
        PrometheusError::Ask(SourceError::Inquire(
            HttpClientError::Connect(_) | HttpClientError::Exchange(_),
        ))
        | PrometheusError::Refused(429 | 500 | 502 | 503 | 504, _) => Some(backoff),
        // Half a body that was complete for HTTP.
        PrometheusError::Read(_, cause) if cause.is_eof() => Some(backoff),
        _ => None,
    }
}

async fn ask(client: &SourceClient, request: RangeRequest<'_>) -> Result<RangeAnswer, PrometheusError> {
    let RangeRequest { query, promql, key, start, step, steps } = request;
    let step = millis(step).max(1);
    let grid = Grid { start, step, steps };
    let last = i64::try_from(steps.saturating_sub(1)).unwrap_or(i64::MAX).saturating_mul(step);
    let (from, to) = (seconds(start.unix_millis()), seconds(start.unix_millis().saturating_add(last)));
    let (step_text, lookback) = (seconds(step), lookback(query));
    let parameters = [
        ("query", promql),
        ("start", &from),
        ("end", &to),
        ("step", &step_text),
        ("lookback_delta", &lookback),
        // VictoriaMetrics would move the steps.
        ("nocache", "1"),
    ];
    let answer = client.open(&query.source, "api/v1/query_range", &parameters).await?;
    let status = answer.status.as_u16();
    if status != 200 {
        let body = answer.whole().await.map_err(SourceError::from)?.body;
        return Err(PrometheusError::Refused(status, error_message(&body)));
    }
    let matrix = checked(decode(answer, grid).await?)?;
    let series = matrix
        .series
        .into_iter()
        .map(|series| RangeSeries { element: labelled(series.labels, query, key), values: series.values });
    Ok(RangeAnswer { start, step, steps, series: series.collect() })
}

/// Seconds with milliseconds.
fn seconds(millis: i64) -> String {
    format!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000))
}

/// Decodes the body on a thread of its own while it arrives.
async fn decode(mut answer: OpenAnswer, grid: Grid) -> Result<Matrix, PrometheusError> {
    let (parts, received) = mpsc::channel(PARTS);
    let body = BufReader::new(Body { received, part: Bytes::new(), beginning: Vec::new() });
    let decoding = tokio::task::spawn_blocking(move || {
        let mut body = body;
        matrix::read(&mut body, grid).map_err(|error| (error, body.into_inner().beginning))
    });
    let mut size = 0;
    let sent: Result<(), PrometheusError> = loop {
        match answer.chunk().await {
            Err(error) => break Err(SourceError::from(error).into()),
            Ok(None) => break Ok(()),
            Ok(Some(part)) => {
                size += part.len();
                if size > MAX_BODY {
                    break Err(PrometheusError::TooLarge("1 GiB"));
                }
                // A decoder that has ended has found what is wrong.
                if parts.send(part).await.is_err() {
                    break Ok(());
                }
            }
        }
    };
    drop(parts);
    let decoded = decoding.await;
    sent?;
    match decoded {
        Ok(Ok(matrix)) => Ok(matrix),
        Ok(Err((error, beginning))) => Err(PrometheusError::Read(error_message(&beginning), error)),
        Err(stopped) => Err(PrometheusError::Failed(brief(&stopped.to_string()))),
    }
}

/// The parts of a body as a reader; keeps its beginning for a message.
struct Body {
    received: mpsc::Receiver<Bytes>,
    part: Bytes,
    beginning: Vec<u8>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            let Some(part) = self.received.blocking_recv() else { return Ok(0) };
            let room = 800_usize.saturating_sub(self.beginning.len());
            self.beginning.extend(part.iter().take(room));
            self.part = part;
        }
        let size = self.part.len().min(buffer.len());
        self.part.split_to(size).copy_to_slice(buffer.get_mut(..size).unwrap_or_default());
        Ok(size)
    }
}

/// Only a complete matrix is accepted.
fn checked(matrix: Matrix) -> Result<Matrix, PrometheusError> {
    if matrix.too_large {
        return Err(PrometheusError::TooLarge("16 million values"));
    }
    if matrix.status != "success" {
        return Err(PrometheusError::Failed(brief(&matrix.error)));
    }
    if let Some(warning) = matrix.warnings.iter().find(|warning| !warning.starts_with(INFO)) {
        return Err(PrometheusError::Partial(brief(warning)));
    }
    if matrix.is_partial {
        return Err(PrometheusError::Partial("isPartial".to_owned()));
    }
    match matrix.result_type.as_deref() {
        Some("matrix") => Ok(matrix),
        Some("vector") => Err(PrometheusError::NotAVector("vector where a matrix was asked for")),
        Some("scalar") => Err(PrometheusError::NotAVector("scalar")),
        Some(_) => Err(PrometheusError::NotAVector("text")),
        None => Err(PrometheusError::NotAVector("answer without data")),
    }
}
