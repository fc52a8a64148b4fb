//! The range of a report in parts, and the answers of each.

use std::{sync::Arc, time::Duration};

use super::{
    history_query::{HistoryError, HistoryFetcher, HistoryQuery},
    time_range::TimeRange,
};
use crate::{
    adapters::prometheus::PrometheusError,
    decide::{replay::answers::RangeAnswer, time::Timestamp},
    exit,
};

/// Steps of the most frequent query in one part.
const PART_STEPS: u32 = 2000;

/// The answers of one part, one for each query; `None`: no usable one.
pub(super) type PartAnswers = Arc<Vec<Option<RangeAnswer>>>;

/// One part of the range with its answers.
pub(super) struct HistoryPart {
    pub(super) range: TimeRange,
    pub(super) answers: PartAnswers,
    /// Why answers are not usable.
    pub(super) notes: Vec<String>,
}

/// The range in parts that hold at least one step of every query.
pub(super) fn parts(range: TimeRange, queries: &[HistoryQuery]) -> Vec<TimeRange> {
    let steps = || queries.iter().map(|query| query.step);
    let shortest = steps().min().unwrap_or(Duration::from_secs(60));
    let longest = steps().max().unwrap_or(Duration::from_secs(60));
    let length = shortest.saturating_mul(PART_STEPS).max(longest).max(Duration::from_secs(1));
    let mut parts = Vec::new();
    let mut from = range.from;
    while from < range.to {
        let to = (from + length).min(range.to);
        parts.push(TimeRange { from, to });
        from = to;
    }
    parts
}

/// Fetches a part of every query. An answer that may be incomplete is none, as in production.
pub(super) async fn fetch_part(
    fetcher: &HistoryFetcher,
    queries: &[HistoryQuery],
    origin: Timestamp,
    range: TimeRange,
) -> Result<HistoryPart, HistoryError> {
    let asked = queries.iter().map(|query| fetcher.fetch(query, origin, range));
    let (mut answers, mut notes) = (Vec::new(), Vec::new());
    for answer in futures::future::join_all(asked).await {
        match answer {
            Ok(answer) => answers.push(Some(answer)),
            Err(error) if matches!(error.source, PrometheusError::Partial(_)) => {
                notes.push(format!(
                    "{} From there to {} no pod has a verdict, as in production.",
                    exit::chain(&error),
                    range.to
                ));
                answers.push(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(HistoryPart { range, answers: Arc::new(answers), notes })
}
