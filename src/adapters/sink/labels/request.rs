//! Requests of the sink to the API server: one attempt each, given up after [`REQUEST_TIMEOUT`].

use std::time::Duration;

use axum::http::{Method, Request, header::CONTENT_TYPE};
use kube::Client;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::timeout;

use super::errors::WriteRefusal;
use crate::adapters::{
    kubernetes::{
        cluster::ListError,
        objects::{Kind, PodRecord},
    },
    sink::SinkError,
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the object at `path`.
pub(super) async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, WriteRefusal> {
    ask(client, Request::get(path).body(Vec::new())).await
}

/// Sends `body` in the media type `content_type` and reads the response.
pub(super) async fn send<T: DeserializeOwned>(
    client: &Client,
    method: Method,
    path: &str,
    content_type: &'static str,
    body: &(impl Serialize + Sync + ?Sized),
) -> Result<T, WriteRefusal> {
    let body = serde_json::to_vec(body).map_err(|source| WriteRefusal::Other(source.into()))?;
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, content_type);
    ask(client, request.body(body)).await
}

/// Sends a JSON Patch and returns the pod after it.
pub(super) async fn send_patch(
    client: &Client,
    pod: &PodRecord,
    steps: &[Value],
) -> Result<PodRecord, WriteRefusal> {
    let path = Kind::Pods.object_path(&pod.namespace, &pod.name);
    send(client, Method::PATCH, &path, "application/json-patch+json", steps).await
}

async fn ask<T: DeserializeOwned>(
    client: &Client,
    request: Result<Request<Vec<u8>>, axum::http::Error>,
) -> Result<T, WriteRefusal> {
    let request = request.map_err(|source| WriteRefusal::Other(source.into()))?;
    match timeout(REQUEST_TIMEOUT, client.request::<T>(request)).await {
        Ok(answer) => answer.map_err(WriteRefusal::from),
        Err(_) => Err(WriteRefusal::Silence),
    }
}

/// A read of the cache's, given up after [`REQUEST_TIMEOUT`].
pub(super) async fn in_time<T>(
    what: &'static str,
    read: impl Future<Output = Result<T, ListError>>,
) -> Result<T, SinkError> {
    match timeout(REQUEST_TIMEOUT, read).await {
        Ok(answer) => answer.map_err(|error| match error.missing_right() {
            Some(why) => SinkError::Forbidden { what, why },
            None => SinkError::Ask { what, source: error.into() },
        }),
        Err(_) => Err(SinkError::Ask { what, source: "no answer in time".into() }),
    }
}
