//! The end of a pod's life: through the eviction API, so that its PodDisruptionBudget has a word.
//!
//! The pod is looked at first. An eviction whose precondition fails uses up the budget's allowance all the
//! same, for up to two minutes; the preconditions are the last guard, not the check.

use axum::http::{Request, header::CONTENT_TYPE};
use kube::Client;
use serde_json::{Value, json};

use super::{ask, errors::WriteRefusal};
use crate::{
    adapters::kubernetes::objects::PodRecord,
    decide::{fleet::Traffic, gate::action::Action},
};

pub(super) async fn evict(client: &Client, pod: &PodRecord, action: &Action) -> Result<(), WriteRefusal> {
    let other = |source: axum::http::Error| WriteRefusal::Other(source.into());
    let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name);
    let get = Request::get(&path).body(Vec::new()).map_err(other)?;
    let now = ask::<PodRecord>(client, get).await?;
    let fence = action.guard.fence.map(|fence| fence.to_string());
    let same = now.uid == action.uid
        && now.traffic() == Traffic::No
        && now.fence_text.as_deref() == fence.as_deref()
        && now.controller.is_some()
        && !now.terminating;
    if !same {
        return Err(WriteRefusal::Conflict);
    }
    let body = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"namespace": &*pod.namespace, "name": &*pod.name},
        "deleteOptions": {
            "preconditions": {"uid": now.uid, "resourceVersion": now.version.to_string()},
        },
    });
    let body = serde_json::to_vec(&body).map_err(|source| WriteRefusal::Other(source.into()))?;
    let post = Request::post(format!("{path}/eviction")).header(CONTENT_TYPE, "application/json");
    ask::<Value>(client, post.body(body).map_err(other)?).await.map(|_| ())
}
