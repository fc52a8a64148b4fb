//! The end of a resource, or of its claim on its pods: once nothing is withheld any more, our marks go off
//! the pods, and then the finalizer off the resource.

use std::time::Duration;

use super::worker::Core;
use crate::{
    adapters::sink::{
        SinkError,
        labels::farewell::{free, set_finalizer},
    },
    decide::time::Timestamp,
    roles::gatekeeper::view::{GatekeeperView, Part},
};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Waits for the resource's end and sees it through; never returns before that.
pub(super) async fn say(core: &Core) {
    let mut postures = core.posture.subscribe();
    loop {
        if postures.wait_for(|posture| posture.leaving).await.is_err() {
            return std::future::pending().await;
        }
        let since = core.deps.process.clock.wall();
        let mut views = core.warden.watch();
        tokio::select! {
            Ok(_) = views.wait_for(|view| nothing_is_held(view, since)) => {}
            _ = postures.wait_for(|posture| !posture.leaving) => continue,
        }
        match clean(core).await {
            Ok(true) => return,
            // It is not deleted, only kept off: until that changes, or until more pods come.
            Ok(false) => {
                let mut changes = core.changes.subscribe();
                changes.borrow_and_update();
                let _changed = changes.changed().await;
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::warn!(service = core.settings.name, "{error:#}; tried again");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A look that was taken after `since` found nothing that is ours to give back; what a person has paused stays.
fn nothing_is_held(view: &GatekeeperView, since: Timestamp) -> bool {
    let released = |ledger: &crate::decide::gate::ledger::Ledger| ledger.entries.values().all(|e| e.human);
    view.part == Part::Leading && view.at >= since && view.ledger.as_ref().is_some_and(released)
}

/// Marks off, and with the last of them the finalizer; `true` when the resource is gone.
async fn clean(core: &Core) -> Result<bool, SinkError> {
    let deps = &core.deps;
    for pod in deps.cluster.pods_named(&core.settings.namespace, &core.settings.name) {
        if !pod.finished() {
            free(&deps.client, &deps.cluster, &pod).await?;
        }
    }
    let Some(resource) = core.resource() else {
        let gone = deps.cluster.resources_are_listed();
        return if gone {
            Ok(true)
        } else {
            Err(SinkError::NotReady { reason: "the resources are not listed" })
        };
    };
    if !resource.deleting {
        return Ok(false);
    }
    set_finalizer(&deps.client, &deps.cluster, &resource, false).await?;
    tracing::info!(service = core.settings.name, namespace = core.settings.namespace, "given back and gone");
    Ok(true)
}
