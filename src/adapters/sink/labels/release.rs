//! Releases pods for good: removes our labels and annotations.

use kube::Client;
use serde_json::{Value, json};

use super::{errors::WriteRefusal, patch, patch::PatchTarget, request::send_patch};
use crate::{
    adapters::{
        kubernetes::{cluster::Cluster, objects::PodRecord},
        sink::SinkError,
    },
    api::keys,
    decide::fleet::Traffic,
};

/// Gives a pod whose resource no longer exists its traffic back, and removes our marks.
///
/// # Errors
/// When the API server refuses the change, or does not answer.
pub async fn free(client: &Client, cluster: &Cluster, pod: &PodRecord) -> Result<(), SinkError> {
    let Some(resource) = pod.labels.get(keys::NAME) else { return Ok(()) };
    let mut steps = patch::release(&PatchTarget { pod, resource });
    // A `no` without our breakAt annotation was set by another client.
    if pod.break_at.is_some() && pod.traffic() == Traffic::No {
        let path = "/metadata/labels/kubervisor~1traffic";
        steps.insert(2, json!({"op": "test", "path": path, "value": "no"}));
        steps.push(json!({"op": "add", "path": path, "value": "yes"}));
    }
    send(client, cluster, pod, &steps).await
}

async fn send(client: &Client, cluster: &Cluster, pod: &PodRecord, steps: &[Value]) -> Result<(), SinkError> {
    match send_patch(client, pod, steps).await {
        Ok(changed) => cluster.merge_pod(changed),
        Err(WriteRefusal::Gone) => {}
        Err(refusal) => return Err(refusal.into_error("take our marks off a pod")),
    }
    Ok(())
}
