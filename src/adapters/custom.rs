//! Asks a service of the user's which pods are out of bounds.
//!
//! It answers with a `v1.PodList`. Of each item only who it is gets read: objects of a stranger's making
//! never go on to anywhere else.

use serde::Deserialize;

use super::http_client::{self, HttpAnswer, HttpClient, HttpClientError, brief};
use crate::decide::detect::{Custom, listed::NamedPod};

/// No list.
#[derive(Debug, thiserror::Error)]
pub enum CustomError {
    /// No complete answer.
    #[error(transparent)]
    Inquire(#[from] HttpClientError),
    /// Any status but 200.
    #[error("answered with status {status}: {said}")]
    Refused {
        /// The status.
        status: u16,
        /// How it begins.
        said: String,
    },
    /// HTML, or any other JSON.
    #[error("did not answer with a v1.PodList but with {said:?}")]
    Read {
        /// How it begins.
        said: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A list of something else.
    #[error("answered with a {found} instead of a v1.PodList")]
    NotAPodList {
        /// What it says it is.
        found: String,
    },
}

impl CustomError {
    /// A word for metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Inquire(error) => error.category(),
            Self::Refused { .. } => "status",
            Self::Read { .. } | Self::NotAPodList { .. } => "format",
        }
    }
}

/// Asks once.
///
/// # Errors
/// [`CustomError`] for anything but a complete list.
pub async fn ask(client: &HttpClient, custom: &Custom) -> Result<Vec<NamedPod>, CustomError> {
    let request = client.client().get(format!("http://{}", custom.service));
    let HttpAnswer { status, body } = http_client::send(request).await?;
    if status.as_u16() == 200 {
        read(&body)
    } else {
        Err(CustomError::Refused { status: status.as_u16(), said: beginning(&body) })
    }
}

#[derive(Deserialize)]
struct PodList {
    /// Go's own marshalling leaves it out.
    #[serde(default)]
    kind: String,
    /// `null` is Go's empty list. But it must be there: an error object is no list of nobody.
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
        serde_json::from_slice(body).map_err(|source| CustomError::Read { said: beginning(body), source })?;
    if !matches!(list.kind.as_str(), "" | "PodList" | "List") {
        return Err(CustomError::NotAPodList { found: brief(&list.kind) });
    }
    let named = |Item { metadata: Metadata { name, namespace, uid } }| NamedPod { namespace, name, uid };
    Ok(list.items.unwrap_or_default().into_iter().map(named).collect())
}

fn beginning(body: &[u8]) -> String {
    brief(&String::from_utf8_lossy(body.get(..800).unwrap_or(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_an_item_is_gets_read() {
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
