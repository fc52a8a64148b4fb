//! Writes to the store under the term, retried while the store does not answer.

use std::time::Duration;

use backon::ExponentialBackoff;
use tokio_util::sync::CancellationToken;

use super::context::Shared;
use crate::{
    adapters::store::{Batch, StoreError, Term},
    clock,
    decide::alarm_reason::AlarmReason,
};

/// The first and the longest delay between two attempts; it doubles, with jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A fresh series of delays between attempts at the store; it never ends.
pub(super) fn backoff() -> ExponentialBackoff {
    clock::backoff(BACKOFF.0, BACKOFF.1)
}

/// Sleeps for the next of `delays`; `false` when the term ended first.
pub(super) async fn pause(
    delays: &mut (impl Iterator<Item = Duration> + Send),
    stop: &CancellationToken,
) -> bool {
    let delay = delays.next().unwrap_or(BACKOFF.1);
    stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_some()
}

/// Commits `batch` under `term` until it is written, refused, or the term has ended.
///
/// # Errors
/// [`StoreError`] that a retry cannot cure: leadership lost, batch too large. The end of the term counts as the first.
pub(super) async fn commit(
    shared: &Shared,
    term: Term,
    batch: Batch,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let mut delays = backoff();
    loop {
        match shared.store.commit(term, batch.clone()).await {
            Ok(()) => {
                shared.alarms.clear(AlarmReason::StoreWrite);
                return Ok(());
            }
            Err(error @ (StoreError::LeadershipLost { .. } | StoreError::TooLarge { .. })) => {
                return Err(error);
            }
            Err(error) => {
                shared.alarms.raise(AlarmReason::StoreWrite, format!("changes wait in memory: {error}"))
            }
        }
        if !pause(&mut delays, stop).await {
            return Err(StoreError::LeadershipLost(term));
        }
    }
}
