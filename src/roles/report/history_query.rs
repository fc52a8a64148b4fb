//! Which queries a report sends, each once for all policies, and their answers part by part.

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::time_range::TimeRange;
use crate::{
    adapters::{
        prometheus::{
            PrometheusError,
            range::{self, MAX_STEPS, RangeRequest},
        },
        sources::SourceClient,
    },
    decide::{
        detect::Query,
        replay::answers::RangeAnswer,
        time::{Timestamp, millis},
    },
    exit,
    roles::output,
};

/// Requests at the same time.
const AT_ONCE: usize = 3;
/// A server that cannot answer so few steps at once is not asked for fewer.
const FEW_STEPS: usize = 50;

/// One query over the range of a report.
#[derive(Clone, Debug)]
pub(super) struct HistoryQuery {
    /// Server and labels.
    pub(super) query: Query,
    /// The expression, without variables.
    pub(super) promql: String,
    /// The label that the detector counts by, if any.
    pub(super) key: Option<String>,
    /// Between two evaluations.
    pub(super) step: Duration,
}

/// A part of a history that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("Prometheus at {server}, asked for {promql:?} from {from}")]
pub(super) struct HistoryError {
    server: String,
    promql: String,
    from: Timestamp,
    #[source]
    pub(super) source: PrometheusError,
}

impl HistoryQuery {
    /// Whether both have the same answers.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let (a, b) = (&self.query, &other.query);
        (&self.promql, &self.key, self.step) == (&other.promql, &other.key, other.step)
            && (&a.source, &a.pod_name_key, &a.namespace_key, a.max_sample_age)
                == (&b.source, &b.pod_name_key, &b.namespace_key, b.max_sample_age)
    }

    fn step_millis(&self) -> i64 {
        millis(self.step).max(1)
    }
}

/// Sends the queries, a few at a time.
pub(super) struct HistoryFetcher {
    client: SourceClient,
    slots: Semaphore,
    limit: Mutex<StepLimit>,
    /// The queries that were written to stderr; `None`: none is.
    shown: Option<Mutex<HashSet<String>>>,
}

/// How many steps the server answers at once.
struct StepLimit {
    steps: usize,
    /// What it said when it could not answer more.
    reached: Option<String>,
}

impl HistoryFetcher {
    /// With `show`, each query is written to stderr before it is first sent.
    pub(super) fn new(client: SourceClient, show: bool) -> Arc<Self> {
        let limit = StepLimit { steps: MAX_STEPS, reached: None };
        Arc::new(Self {
            client,
            slots: Semaphore::new(AT_ONCE),
            limit: Mutex::new(limit),
            shown: show.then(Mutex::default),
        })
    }

    /// The steps of the query within `part`; its steps begin at `origin`.
    ///
    /// # Errors
    /// [`HistoryError`], after retries.
    pub(super) async fn fetch(
        &self,
        query: &HistoryQuery,
        origin: Timestamp,
        part: TimeRange,
    ) -> Result<RangeAnswer, HistoryError> {
        if self.shown.as_ref().is_some_and(|shown| shown.lock().insert(query.promql.clone())) {
            output::notice(&format!("query: {}\n", query.promql));
        }
        let step = query.step_millis();
        let index =
            |at: Timestamp| (at.unix_millis() - origin.unix_millis() + step - 1).div_euclid(step).max(0);
        let (first, end) = (index(part.from), index(part.to));
        let mut start = Timestamp::from_unix_millis(origin.unix_millis().saturating_add(first * step));
        let mut left = usize::try_from(end - first).unwrap_or(0);
        let mut all = RangeAnswer { start, step, steps: 0, series: Vec::new() };
        while left > 0 {
            let steps = left.min(self.limit.lock().steps);
            let request = RangeRequest {
                query: &query.query,
                promql: &query.promql,
                key: query.key.as_deref(),
                start,
                step: query.step,
                steps,
            };
            let slot = self.slots.acquire().await;
            let answer = range::fetch(&self.client, request).await;
            drop(slot);
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) if error.is_too_much() && steps > FEW_STEPS => {
                    self.lower_limit(&query.query.source.url, steps, &error);
                    continue;
                }
                Err(source) => {
                    let promql = query.promql.chars().take(200).collect();
                    let server = query.query.source.url.clone();
                    return Err(HistoryError { server, promql, from: start, source });
                }
            };
            all = if all.steps == 0 { answer } else { all.followed_by(answer) };
            start = start + query.step.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
            left -= steps;
        }
        Ok(all)
    }

    /// Requests after this one ask for half of its steps at most.
    fn lower_limit(&self, server: &str, steps: usize, error: &PrometheusError) {
        let mut limit = self.limit.lock();
        limit.steps = limit.steps.min(steps / 2);
        limit.reached.get_or_insert_with(|| format!("{server} {}", exit::chain(error)));
    }

    /// What is to be said about the server's limit, if it was reached.
    pub(super) fn note(&self) -> Option<String> {
        let limit = self.limit.lock();
        let reached = limit.reached.as_ref()?;
        Some(format!(
            "The server's limit was reached ({reached}), so it was asked for at most {} steps at once.",
            limit.steps
        ))
    }
}
