//! Kills a pod through the eviction API, which honours its PodDisruptionBudget.
//!
//! The pod is read first: an eviction whose precondition fails uses up the budget's allowance all the same, for up to
//! two minutes. The preconditions only guard against a change after that read.

use axum::http::Method;
use kube::Client;
use serde_json::{Value, json};

use super::{errors::WriteRefusal, request};
use crate::{
    adapters::kubernetes::objects::{Kind, PodRecord},
    decide::{fleet::Traffic, gate::action::Action},
};

pub(super) async fn evict(client: &Client, pod: &PodRecord, action: &Action) -> Result<(), WriteRefusal> {
    let path = Kind::Pods.object_path(&pod.namespace, &pod.name);
    let now: PodRecord = request::get(client, &path).await?;
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
    let path = format!("{path}/eviction");
    let answer = request::send::<Value>(client, Method::POST, &path, "application/json", &body).await;
    answer.map(drop).map_err(|refusal| match refusal {
        // There is no test in it that could fail.
        WriteRefusal::Invalid(sentence) => WriteRefusal::Denied(sentence),
        // The eviction API answers 500 when a pod has more than one budget.
        WriteRefusal::Other(source) => match source.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => WriteRefusal::Denied(status.message.clone()),
            _ => WriteRefusal::Other(source),
        },
        other => other,
    })
}
