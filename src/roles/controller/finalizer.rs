//! The finalizer is on the resource before anything is withheld: it keeps a deleted resource until its pods are released.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::sleep;

use super::{deps::Deps, worker_state::WorkerState};
use crate::adapters::sink::{SinkError, labels::finalizer};

/// Longest backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Puts the finalizer on, with retries. Returns `false` when the right to it is missing, unless `retry_forbidden`.
pub(super) async fn ensure(state: &WorkerState, retry_forbidden: bool) -> bool {
    let mut waits = ExponentialBuilder::new().with_jitter().without_max_times().build();
    while let Some(resource) = state.resource() {
        if resource.deleting {
            return true;
        }
        let Deps { client, cluster, .. } = &*state.deps;
        match finalizer::ensure(client, cluster, &resource).await {
            Ok(()) => return true,
            Err(SinkError::Forbidden { why, .. }) if !retry_forbidden => {
                tracing::warn!(
                    service = state.settings.name,
                    "may not {why}: nothing is withheld without the finalizer"
                );
                state.mode.send_modify(|mode| mode.unsecured = Some(why));
                return false;
            }
            Err(error) => tracing::warn!(service = state.settings.name, "{error}; tried again"),
        }
        sleep(waits.next().unwrap_or_default().min(MAX_BACKOFF)).await;
    }
    true
}

/// Retries a forbidden finalizer beside the worker's other tasks; never returns.
pub(super) async fn ensure_later(state: &WorkerState, ensured: bool) {
    if !ensured && Box::pin(ensure(state, true)).await {
        state.mode.send_modify(|mode| mode.unsecured = None);
        state.wake();
    }
    std::future::pending().await
}
