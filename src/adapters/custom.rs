//! Queries a user's service for the pods that are out of bounds, as a `v1.PodList`, or for a number of each pod, as
//! `{"pods": [{"name": ..., "value": ..., "bad": ..., "reason": ...}]}`.
//!
//! Only name, namespace and uid of a PodList's items are read: no other part of an untrusted object is passed on.

use serde::Deserialize;

use super::{
    http_client::{HttpAnswer, beginning, brief},
    sources::{SourceClient, SourceError},
};
use crate::decide::detect::{Custom, listed::NamedPod};

/// A failed query.
#[derive(Debug, thiserror::Error)]
pub enum CustomError {
    /// No complete answer.
    #[error(transparent)]
    Ask(#[from] SourceError),
    /// Any status except 200, and the beginning of the body.
    #[error("answered with status {0}: {1}")]
    Refused(u16, String),
    /// The body, which begins so, is no such list (HTML or other JSON).
    #[error("did not answer with a v1.PodList, or with an object of pods, but with {0:?}")]
    Read(String, #[source] serde_json::Error),
    /// A list of this other `kind`.
    #[error("answered with a {0} instead of a v1.PodList")]
    NotAPodList(String),
}

impl CustomError {
    /// The metric's label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Ask(error) => error.category(),
            Self::Refused { .. } => "status",
            Self::Read { .. } | Self::NotAPodList { .. } => "format",
        }
    }
}

/// Sends one query.
///
/// # Errors
/// [`CustomError`] for anything except a complete list.
pub async fn ask(client: &SourceClient, custom: &Custom) -> Result<Vec<NamedPod>, CustomError> {
    let HttpAnswer { status, body, .. } = client.ask(&custom.source, &custom.path, &[]).await?;
    if status.as_u16() == 200 {
        read(&body)
    } else {
        Err(CustomError::Refused(status.as_u16(), beginning(&body)))
    }
}

#[derive(Deserialize)]
struct PodList {
    /// Absent in what Go marshals.
    #[serde(default)]
    kind: String,
    /// `null` is Go's empty list. The member is required: an error object is not an empty list.
    #[serde(deserialize_with = "Option::deserialize")]
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    uid: Option<String>,
}

/// The other form.
#[derive(Deserialize)]
struct PodRows {
    pods: Vec<CustomRow>,
}

#[derive(Deserialize)]
struct CustomRow {
    name: String,
    namespace: Option<String>,
    uid: Option<String>,
    value: Option<f64>,
    #[serde(default)]
    bad: bool,
    reason: Option<String>,
}

fn read(body: &[u8]) -> Result<Vec<NamedPod>, CustomError> {
    if let Ok(PodRows { pods }) = serde_json::from_slice(body) {
        return Ok(pods.into_iter().map(NamedPod::from).collect());
    }
    let list: PodList =
        serde_json::from_slice(body).map_err(|source| CustomError::Read(beginning(body), source))?;
    if !matches!(list.kind.as_str(), "" | "PodList" | "List") {
        return Err(CustomError::NotAPodList(brief(&list.kind)));
    }
    let named = |Item { metadata: Metadata { name, namespace, uid } }| NamedPod {
        namespace: Some(namespace),
        name,
        uid,
        bad: true,
        ..NamedPod::default()
    };
    Ok(list.items.unwrap_or_default().into_iter().map(named).collect())
}

impl From<CustomRow> for NamedPod {
    fn from(row: CustomRow) -> Self {
        let CustomRow { name, namespace, uid, value, bad, reason } = row;
        let reason = reason.map(|reason| brief(&reason)).filter(|reason| !reason.is_empty());
        Self { namespace, name, uid, bad, value, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_pods_has_numbers_and_reasons() {
        let body = br#"{"pods":[{"name":"a","value":7.5,"bad":true,"reason":"disk\nfull"},{"name":"b","namespace":"n"}]}"#;
        let expected = [
            NamedPod {
                name: "a".into(),
                value: Some(7.5),
                bad: true,
                reason: Some("disk full".into()),
                ..NamedPod::default()
            },
            NamedPod { name: "b".into(), namespace: Some("n".into()), ..NamedPod::default() },
        ];
        assert_eq!(read(body).unwrap(), expected);
        assert!(
            matches!(read(br#"{"pods":[{"value":1}]}"#), Err(CustomError::Read(..))),
            "a row without a name"
        );
    }
}
