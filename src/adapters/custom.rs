//! Queries a user's service for the pods that are out of bounds, as a `v1.PodList`.
//!
//! Only name, namespace and uid of each item are read: no other part of an untrusted object is passed on.

use serde::Deserialize;

use super::http_client::{self, HttpAnswer, HttpClient, HttpClientError, beginning, brief};
use crate::decide::detect::{Custom, listed::NamedPod};

/// A failed query.
#[derive(Debug, thiserror::Error)]
pub enum CustomError {
    /// No complete answer.
    #[error(transparent)]
    Inquire(#[from] HttpClientError),
    /// Any status except 200, and the beginning of the body.
    #[error("answered with status {0}: {1}")]
    Refused(u16, String),
    /// The body, which begins so, is no such list (HTML or other JSON).
    #[error("did not answer with a v1.PodList but with {0:?}")]
    Read(String, #[source] serde_json::Error),
    /// A list of this other `kind`.
    #[error("answered with a {0} instead of a v1.PodList")]
    NotAPodList(String),
}

impl CustomError {
    /// The metric's label.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Inquire(error) => error.category(),
            Self::Refused { .. } => "status",
            Self::Read { .. } | Self::NotAPodList { .. } => "format",
        }
    }
}

/// Sends one query.
///
/// # Errors
/// [`CustomError`] for anything except a complete list.
pub async fn ask(client: &HttpClient, custom: &Custom) -> Result<Vec<NamedPod>, CustomError> {
    let request = client.client().get(format!("http://{}", custom.service));
    let HttpAnswer { status, body } = http_client::send(request).await?;
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

fn read(body: &[u8]) -> Result<Vec<NamedPod>, CustomError> {
    let list: PodList =
        serde_json::from_slice(body).map_err(|source| CustomError::Read(beginning(body), source))?;
    if !matches!(list.kind.as_str(), "" | "PodList" | "List") {
        return Err(CustomError::NotAPodList(brief(&list.kind)));
    }
    let named = |Item { metadata: Metadata { name, namespace, uid } }| NamedPod { namespace, name, uid };
    Ok(list.items.unwrap_or_default().into_iter().map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_identity_of_an_item_is_read() {
        let text = r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[
            {"metadata":{"name":"a","namespace":"shop","uid":"u","labels":{"kubervisor/traffic":"no"}},
             "spec":{"containers":[]},"status":{"phase":"Running"}},
            {"metadata":{"name":"b"}}, {}]}"#;
        let named = |name: &str, namespace: &str, uid: Option<&str>| NamedPod {
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.map(str::to_owned),
        };
        let expected = [named("a", "shop", Some("u")), named("b", "", None), named("", "", None)];
        assert_eq!(read(text.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn a_list_as_go_writes_it_is_one_and_an_error_object_is_none() {
        assert!(read(br#"{"metadata":{},"items":null}"#).unwrap().is_empty());
        assert!(read(br#"{"items":[]}"#).unwrap().is_empty());
        for wrong in ["{}", r#"{"error":"away"}"#, "[]", "<html>", "", r#"{"kind":"NodeList","items":[]}"#] {
            assert_eq!(read(wrong.as_bytes()).unwrap_err().category(), "format", "{wrong}");
        }
    }
}
