//! Who else sets the traffic label of pods in a fight: the field manager in `metadata.managedFields`.
//!
//! The cached pods have no managed fields, which are larger than all the rest of them. So a pod is read once for each time
//! that it was set back, while it is at `yes`: a withdrawal takes the label over from the other manager.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry};
use kube::Client;

use super::request;
use crate::{
    adapters::kubernetes::{cluster::Cluster, objects::Kind},
    api::keys,
    decide::{
        fleet::{Traffic, Uid},
        gate::{
            ledger::{Ledger, one_line},
            set_back::FIGHT,
        },
    },
};

/// The manager of the controller's own writes: what its User-Agent begins with.
const OURS: &str = "kubervisor";
/// Pods that are read for one plan at most; the alarm names no more.
const MAX_READS: usize = 5;

/// The other managers, each with the number of set-backs after which its pod was read.
#[derive(Default)]
pub(super) struct SwitchManagers(BTreeMap<Uid, (u8, Option<String>)>);

impl SwitchManagers {
    /// Reads the pods that were set back since the last time. One that cannot be read is tried again with the next plan.
    pub(super) async fn learn(&mut self, client: &Client, cluster: &Cluster, ledger: &Ledger) {
        let entries = ledger.entries.iter().map(|(uid, entry)| (uid, entry.set_backs));
        let returned = ledger.returned.iter().map(|(uid, returned)| (uid, returned.set_backs));
        let fights: BTreeMap<&Uid, u8> =
            entries.chain(returned).filter(|(_, count)| *count >= FIGHT).collect();
        self.0.retain(|uid, _| fights.contains_key(uid));
        let new =
            fights.into_iter().filter(|(uid, count)| self.0.get(*uid).is_none_or(|(known, _)| known < count));
        let new: Vec<_> = new.filter_map(|(uid, count)| Some((cluster.pod(uid)?, count))).collect();
        for (pod, count) in new.into_iter().filter(|(pod, _)| pod.traffic() == Traffic::Yes).take(MAX_READS) {
            let path = Kind::Pods.object_path(&pod.namespace, &pod.name);
            match request::get::<Pod>(client, &path).await {
                Ok(stored) => {
                    let manager = other_manager(stored.metadata.managed_fields.unwrap_or_default());
                    self.0.insert(pod.uid.clone(), (count, manager));
                }
                Err(refusal) => {
                    tracing::debug!(pod = %pod.name, ?refusal, "its managed fields were not read")
                }
            }
        }
    }

    /// The manager that set the pod's label last.
    pub(super) fn of(&self, uid: &Uid) -> Option<String> {
        self.0.get(uid)?.1.clone()
    }
}

/// The newest other manager of the traffic label.
fn other_manager(fields: Vec<ManagedFieldsEntry>) -> Option<String> {
    let has_label = |entry: &ManagedFieldsEntry| {
        let labels = entry.fields_v1.as_ref().and_then(|fields| fields.0.get("f:metadata")?.get("f:labels"));
        labels.is_some_and(|labels| labels.get(format!("f:{}", keys::TRAFFIC)).is_some())
    };
    let others =
        fields.into_iter().filter(|entry| entry.manager.as_deref() != Some(OURS) && has_label(entry));
    others.max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?.manager.map(|name| one_line(&name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manager(entries: serde_json::Value) -> Option<String> {
        other_manager(serde_json::from_value(entries).unwrap())
    }

    #[test]
    fn the_newest_other_manager_of_the_label_is_named() {
        let label = json!({"f:metadata": {"f:labels": {"f:kubervisor/traffic": {}}}});
        let other = json!({"f:metadata": {"f:labels": {"f:app": {}}}});
        let entry = |name: &str, fields: &serde_json::Value, minute: u8| {
            let time = format!("2026-01-01T00:{minute:02}:00Z");
            json!({"manager": name, "operation": "Apply", "fieldsV1": fields, "time": time})
        };
        let all = [
            entry("kubectl-create", &label, 1),
            entry("argocd-controller", &label, 2),
            entry("kubervisor", &label, 3),
            entry("kubelet", &other, 4),
        ];
        assert_eq!(manager(json!(all)).as_deref(), Some("argocd-controller"));
        assert_eq!(manager(json!(all[2..])), None, "our own writes and other fields");
        assert_eq!(manager(json!([])), None, "an API server that keeps none");
        let bare = json!([{"manager": "tool\u{1b}[31m", "fieldsV1": label}]);
        assert_eq!(manager(bare).as_deref(), Some("tool [31m"), "no time, no control characters");
    }
}
