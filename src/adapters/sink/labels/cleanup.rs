//! Removes the marks of withdrawals that are over: a person gave the pod its traffic back, or the withdrawal was cancelled
//! after it had landed. With the marks left on it, a person's next `no` would be taken for a withdrawal of the gate. A serving
//! pod that the Service selects no more loses all marks.
//!
//! Only pods at `yes` without an entry in the ledger are patched. A withdrawal that lands meanwhile changes the label,
//! and the patch's test fails.

use super::{
    LabelSink,
    errors::WriteRefusal,
    patch::{self, PatchTarget},
    request::send_patch,
};
use crate::{
    adapters::kubernetes::objects::PodRecord,
    api::keys,
    decide::{fleet::Traffic, gate::action::Verb},
};

impl LabelSink {
    /// Removes such marks; a refused patch is repeated after the next plan.
    pub(super) async fn clean_up(&mut self) {
        let Some(ledger) = self.ledger_store.current().cloned() else { return };
        for pod in self.cluster.pods_named(&self.settings.namespace, &self.settings.name) {
            let barred = self.refusals.of(&pod.uid).is_some_and(|refusal| !refusal.due);
            if barred || ledger.entries.contains_key(&pod.uid) || pod.traffic() != Traffic::Yes {
                continue;
            }
            let target = PatchTarget { pod: &pod, resource: &self.settings.name };
            let steps = if self.has_left(&pod) {
                patch::leave(&target)
            } else {
                patch::clean_up(&target).filter(|_| has_marks(&pod))
            };
            let Some(steps) = steps else { continue };
            match send_patch(&self.client, &pod, &steps).await {
                Ok(changed) => self.cluster.merge_pod(changed),
                Err(WriteRefusal::Denied(sentence)) => {
                    self.refusals.refused(&pod.uid, &pod.name, Verb::Release, &sentence)
                }
                Err(refusal) => tracing::debug!(pod = %pod.name, ?refusal, "marks were not removed"),
            }
        }
    }

    /// The Service is there, and selects the pod no more. While the resource ends, its pods are released elsewhere.
    fn has_left(&self, pod: &PodRecord) -> bool {
        let selects = self.fleet_selector.as_ref().map(|selector| selector.matches(pod));
        selects == Some(false) && !pod.terminating && !self.mode.borrow().leaving
    }
}

fn has_marks(pod: &PodRecord) -> bool {
    pod.labels.get(keys::STRATEGY).is_some()
        || pod.break_at.is_some()
        || pod.deletion_cost.as_deref() == Some(keys::OUR_DELETION_COST)
}
