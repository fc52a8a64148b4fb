//! The finalizer of a KubervisorService: on before the first claim, off after the last release.

use axum::http::Method;
use kube::Client;
use serde_json::json;

use super::{errors::WriteRefusal, request};
use crate::{
    adapters::{
        kubernetes::{
            cluster::Cluster,
            objects::{Kind, ResourceRecord},
        },
        sink::SinkError,
    },
    api::keys,
};

/// Puts the finalizer on the resource; nothing is written when it is there.
///
/// # Errors
/// The API server refused the write or did not answer; a conflicting write counts as refused, to be tried again.
pub async fn ensure(client: &Client, cluster: &Cluster, resource: &ResourceRecord) -> Result<(), SinkError> {
    set(client, cluster, resource, true).await
}

/// Takes the finalizer off the resource; nothing is written when it is not there.
///
/// # Errors
/// As [`ensure`].
pub async fn remove(client: &Client, cluster: &Cluster, resource: &ResourceRecord) -> Result<(), SinkError> {
    set(client, cluster, resource, false).await
}

async fn set(
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
    let path = Kind::KubervisorServices.object_path(&resource.namespace, &resource.name);
    let media = "application/merge-patch+json";
    match request::send::<ResourceRecord>(client, Method::PATCH, &path, media, &body).await {
        Ok(stored) => {
            cluster.merge_resource(stored);
            Ok(())
        }
        // A resource that is being deleted ceases to exist with its last finalizer.
        Err(WriteRefusal::Gone) if !wanted => Ok(()),
        Err(refusal) => Err(refusal.into_error("write the resource's finalizer")),
    }
}
