//! What comes before the first claim and after the last: the finalizer, and our marks off the pods.

use std::sync::Arc;

use axum::http::{Request, header::CONTENT_TYPE};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use serde_json::{Value, json};

use super::{AT_ONCE, ask, errors::Refusal, patch, patch::Target, send_patch};
use crate::{
    adapters::{
        kubernetes::{
            cluster::Cluster,
            objects::{PodRecord, ResourceRecord},
        },
        sink::SinkError,
    },
    api::{API_VERSION, keys},
    decide::fleet::Traffic,
};

/// Puts our finalizer on the resource, or takes it off; nothing is written when it is so already.
///
/// # Errors
/// When the API server did not do it; somebody else's write meanwhile is one, too: look again.
pub async fn set_finalizer(
    client: &Client,
    cluster: &Cluster,
    resource: &ResourceRecord,
    wanted: bool,
) -> Result<(), SinkError> {
    if resource.finalizers.iter().any(|name| **name == *keys::FINALIZER) == wanted {
        return Ok(());
    }
    let others = resource.finalizers.iter().map(|name| &**name).filter(|name| *name != keys::FINALIZER);
    let finalizers: Vec<&str> = others.chain(wanted.then_some(keys::FINALIZER)).collect();
    let body = json!({"metadata": {
        "uid": &*resource.uid, "resourceVersion": resource.version.to_string(), "finalizers": finalizers,
    }});
    let path =
        format!("/apis/{API_VERSION}/namespaces/{}/kubervisorservices/{}", resource.namespace, resource.name);
    let what = "write the resource's finalizer";
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| SinkError::Ask { what, source };
    let request = Request::patch(path)
        .header(CONTENT_TYPE, "application/merge-patch+json")
        .body(serde_json::to_vec(&body).map_err(|source| failed(source.into()))?)
        .map_err(|source| failed(source.into()))?;
    match ask::<ResourceRecord>(client, request).await {
        Ok(stored) => {
            cluster.merge_resource(stored);
            Ok(())
        }
        // It went with its last finalizer.
        Err(Refusal::Gone) if !wanted => Ok(()),
        Err(refusal) => Err(refusal.into_error(what)),
    }
}

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
        let steps = patch::farewell(&Target { pod: &pod, resource });
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
    let mut steps = patch::farewell(&Target { pod, resource });
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
        Err(Refusal::Gone) => {}
        Err(refusal) => return Err(refusal.into_error("take our marks off a pod")),
    }
    Ok(())
}
