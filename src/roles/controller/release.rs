//! The end of a resource, or of its claim on its pods: when nothing is withheld any more, the marks come off the pods, then
//! the finalizer off the resource.

use std::time::Duration;

use super::worker_state::WorkerState;
use crate::{
    adapters::sink::{
        SinkError,
        labels::{finalizer, release::free},
    },
    decide::{gate::ledger::Ledger, time::Timestamp},
    roles::gate::snapshot::{GateMode, GateSnapshot},
};

/// Interval between tries.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Waits until the resource ends, releases its pods, and returns when it is gone.
pub(super) async fn run(state: &WorkerState) {
    let mut postures = state.mode.subscribe();
    loop {
        if postures.wait_for(|mode| mode.leaving).await.is_err() {
            return std::future::pending().await;
        }
        let since = state.deps.process.clock.wall();
        let mut snapshots = state.reconciler.subscribe();
        // The reconcile that a change had caused may have begun before `since`.
        state.wake();
        tokio::select! {
            Ok(_) = snapshots.wait_for(|snapshot| all_released(snapshot, since)) => {}
            _ = postures.wait_for(|mode| !mode.leaving) => continue,
        }
        match Box::pin(clean(state)).await {
            Ok(true) => return,
            // It only lost its pods to another resource: wait for a change, such as new pods.
            Ok(false) => {
                let mut changes = state.changes.subscribe();
                changes.borrow_and_update();
                let _changed = changes.changed().await;
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::warn!(service = state.settings.name, "{error:#}; tried again");
            }
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// A reconcile after `since` found no ledger entry but those of pods that a person paused.
fn all_released(snapshot: &GateSnapshot, since: Timestamp) -> bool {
    let released = |ledger: &Ledger| ledger.entries.values().all(|e| e.human);
    snapshot.part == GateMode::Leading
        && snapshot.at >= since
        && snapshot.ledger.as_ref().is_some_and(released)
}

/// Takes off the marks, then the finalizer; `true` when the resource is gone, or all are released.
async fn clean(state: &WorkerState) -> Result<bool, SinkError> {
    let deps = &state.deps;
    let mut refused = None;
    for pod in deps.cluster.pods_named(&state.settings.namespace, &state.settings.name) {
        if !pod.finished() {
            // A pod whose write is refused keeps no other one from its traffic.
            refused = free(&deps.client, &deps.cluster, &pod).await.err().or(refused);
        }
    }
    if let Some(error) = refused {
        return Err(error);
    }
    let Some(resource) = state.resource() else {
        let listed = deps.cluster.resources_are_listed(&state.settings.namespace);
        return listed.then_some(true).ok_or(SinkError::NotReady("the resources are not listed"));
    };
    if !resource.deleting && !deps.releasing {
        return Ok(false);
    }
    finalizer::remove(&deps.client, &deps.cluster, &resource).await?;
    tracing::info!(service = state.settings.name, namespace = state.settings.namespace, "given back");
    Ok(true)
}
