//! The policy's own breakers, in process: each looks at its own pace, and what it says goes to the gate.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{Shared, gate, reign};
use crate::{
    adapters::store::{Batch, RecordKey, Term},
    roles::breaker::InProcessBreakers,
};

/// Evaluates until `stop`, or until it is deposed.
pub(crate) async fn run_breakers(
    shared: Arc<Shared>,
    term: Term,
    windows: Option<Bytes>,
    stop: CancellationToken,
) {
    let Some(gatekeeper) = shared.gatekeeping.gatekeeper().cloned() else { return stop.cancelled().await };
    let mut manifests = shared.gatekeeping.manifest();
    let Some(manifest) = manifests.borrow_and_update().clone() else { return stop.cancelled().await };
    let mut breakers = InProcessBreakers::new(manifest);
    if let Some(Err(error)) = windows.as_ref().map(|windows| breakers.restore(windows)) {
        tracing::warn!("{error}");
    }
    let mut stored = windows.unwrap_or_default();
    loop {
        let evaluation = breakers.evaluate(shared.clock.wall(), &gate::observations(&shared));
        for source in evaluation.sources {
            gatekeeper.breaker_said(source);
        }
        let dump = breakers.dump();
        if dump != stored {
            let batch = Batch { put: vec![(RecordKey::Windows, dump.clone())], delete: Vec::new() };
            if reign::commit(&shared, term, batch, &stop).await.is_err() {
                return;
            }
            stored = dump;
        }
        let wait = evaluation.next_wakeup.map(|next| shared.clock.now() + next.since(shared.clock.wall()));
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.clock.sleep_until(wait) => {}
            changed = manifests.changed() => {
                if changed.is_err() { return stop.cancelled().await }
                let Some(fresh) = manifests.borrow_and_update().clone() else { continue };
                gatekeeper.forget_breakers(|name| fresh.policy.breaker(name).is_some());
                breakers.replace(fresh);
            }
        }
    }
}
