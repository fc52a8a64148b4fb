//! Marks that nobody stands behind any more: a person gave the pod its traffic back, or a withdrawal was cancelled after
//! it had landed. Left on a pod that serves they would have it adopted as ours at the next `no` of a person.
//!
//! Only pods that say `yes` and have no entry in the ledger. A withdrawal that lands meanwhile changes the switch, and
//! the patch comes to nothing.

use super::{
    LabelSink,
    patch::{self, PatchTarget},
    send_patch,
};
use crate::{adapters::kubernetes::objects::PodRecord, api::keys, decide::fleet::Traffic};

impl LabelSink {
    /// Takes such marks off; what is refused is tried again at the next look.
    pub(super) async fn tidy(&self) {
        let Some(ledger) = self.ledger_store.current() else { return };
        for pod in self.cluster.pods_named(&self.settings.namespace, &self.settings.name) {
            if ledger.entries.contains_key(&pod.uid) || !has_marks_and_serves(&pod) {
                continue;
            }
            let target = PatchTarget { pod: &pod, resource: &self.settings.name };
            let Some(steps) = patch::tidy(&target) else { continue };
            match send_patch(&self.client, &pod, &steps).await {
                Ok(changed) => self.cluster.merge_pod(changed),
                Err(refusal) => tracing::debug!(pod = %pod.name, ?refusal, "marks not taken off"),
            }
        }
    }
}

fn has_marks_and_serves(pod: &PodRecord) -> bool {
    pod.traffic() == Traffic::Yes
        && (pod.labels.get(keys::STRATEGY).is_some()
            || pod.break_at.is_some()
            || pod.deletion_cost.as_deref() == Some(keys::OUR_DELETION_COST))
}
