//! Which queries a report sends, each once for all policies, and their answers part by part.

use std::{sync::Arc, time::Duration};

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
    decide::{detect::Query, replay::answers::RangeAnswer, time::Timestamp},
};

/// Requests at the same time.
const AT_ONCE: usize = 3;

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
        i64::try_from(self.step.as_millis()).unwrap_or(i64::MAX).max(1)
    }
}

/// Sends the queries, a few at a time.
pub(super) struct HistoryFetcher {
    client: SourceClient,
    slots: Semaphore,
}

impl HistoryFetcher {
    pub(super) fn new(client: SourceClient) -> Arc<Self> {
        Arc::new(Self { client, slots: Semaphore::new(AT_ONCE) })
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
        let step = query.step_millis();
        let index =
            |at: Timestamp| (at.unix_millis() - origin.unix_millis() + step - 1).div_euclid(step).max(0);
        let (first, end) = (index(part.from), index(part.to));
        let mut start = Timestamp::from_unix_millis(origin.unix_millis().saturating_add(first * step));
        let mut left = usize::try_from(end - first).unwrap_or(0);
        let mut all = RangeAnswer { start, step, steps: 0, series: Vec::new() };
        while left > 0 {
            let steps = left.min(MAX_STEPS);
            let request = RangeRequest {
                query: &query.query,
                promql: &query.promql,
                key: query.key.as_deref(),
                start,
                step: query.step,
                steps,
            };
            let _slot = self.slots.acquire().await;
            let answer = range::fetch(&self.client, request).await.map_err(|source| HistoryError {
                server: query.query.source.url.clone(),
                promql: query.promql.chars().take(200).collect(),
                from: start,
                source,
            })?;
            all = if all.steps == 0 { answer } else { all.followed_by(answer) };
            start = start + query.step.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
            left -= steps;
        }
        Ok(all)
    }
}
