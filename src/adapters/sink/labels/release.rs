//! Gives traffic back for good: our labels and annotations come off the pods.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use serde_json::{Value, json};

use super::{AT_ONCE, errors::WriteRefusal, patch, patch::PatchTarget, send_patch};
use crate::{
    adapters::{
        kubernetes::{cluster::Cluster, objects::PodRecord},
        sink::SinkError,
    },
    api::keys,
    decide::fleet::Traffic,
};

/// Takes our marks off these pods of the resource.
///
/// # Errors
/// When the API server did not do it for one of them.
pub async fn take_marks_off(
    client: &Client,
    cluster: &Cluster,
    resource: &str,
    pods: Vec<Arc<PodRecord>>,
) -> Result<(), SinkError> {
    let one = |pod: Arc<PodRecord>| async move {
        let steps = patch::farewell(&PatchTarget { pod: &pod, resource });
        clean(client, cluster, &pod, &steps).await
    };
    stream::iter(pods).map(one).buffer_unordered(AT_ONCE).try_collect().await
}

/// Gives back the traffic of a pod whose resource is not there any more, and takes our marks off.
///
/// # Errors
/// As [`take_marks_off`].
pub async fn free(client: &Client, cluster: &Cluster, pod: &PodRecord) -> Result<(), SinkError> {
    let Some(resource) = pod.labels.get(keys::NAME) else { return Ok(()) };
    let mut steps = patch::farewell(&PatchTarget { pod, resource });
    // `no` without our breakAt is somebody else's.
    if pod.break_at.is_some() && pod.traffic() == Traffic::No {
        let path = "/metadata/labels/kubervisor~1traffic";
        steps.insert(2, json!({"op": "test", "path": path, "value": "no"}));
        steps.push(json!({"op": "add", "path": path, "value": "yes"}));
    }
    clean(client, cluster, pod, &steps).await
}

async fn clean(
    client: &Client,
    cluster: &Cluster,
    pod: &PodRecord,
    steps: &[Value],
) -> Result<(), SinkError> {
    match send_patch(client, pod, steps).await {
        Ok(changed) => cluster.merge_pod(changed),
        Err(WriteRefusal::Gone) => {}
        Err(refusal) => return Err(refusal.into_error("take our marks off a pod")),
    }
    Ok(())
}
