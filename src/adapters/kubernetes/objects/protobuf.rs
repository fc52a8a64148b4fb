//! Lists of pods in the API's protobuf: a third of the size of the JSON, and less CPU of the API server.
//!
//! Used for lists of pods only, since a plan waits for one. The tags are those of the API's published `generated.proto`, which
//! never change; other fields are skipped.

use std::{collections::BTreeMap, sync::Arc};

use kube::core::Status;
use prost::Message;

use super::{
    Labels, Page, PodRecord,
    meta::{Annotations, Meta, Reference},
    pod::{PodSpecWire, PodStatusWire, PodWire},
};
use crate::decide::time::Timestamp;

/// The media type.
pub(super) const MEDIA: &str = "application/vnd.kubernetes.protobuf";
/// The first bytes of every message.
const MAGIC: &[u8] = b"k8s\0";

/// Decodes a page of pods.
pub(super) fn pods(body: &[u8]) -> Result<Page<PodRecord>, DecodeError> {
    let list: PodListMessage = open(body)?;
    let meta = list.metadata.ok_or(DecodeError::Missing("metadata"))?;
    let pods = list.items.into_iter().map(|pod| PodWire::try_from(pod).map(PodRecord::from));
    Ok(Page {
        metadata: super::PageMeta {
            resource_version: version(&meta.resource_version)?,
            more: Some(meta.more),
        },
        items: Some(pods.collect::<Result<_, _>>()?),
    })
}

/// Decodes the status of an error response.
pub(super) fn refusal(body: &[u8]) -> Result<Status, DecodeError> {
    let status: StatusMessage = open(body)?;
    Ok(Status::failure(&status.message, &status.reason)
        .with_code(u16::try_from(status.code).unwrap_or_default()))
}

/// Why a message cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    /// Not a message of the API.
    #[error("the response does not begin as the API's protobuf does")]
    Magic,
    /// Truncated or damaged.
    #[error("the response is not protobuf of the API")]
    Decode(#[from] prost::DecodeError),
    /// A required field is absent.
    #[error("the response lacks {0}")]
    Missing(&'static str),
}

fn open<M: Message + Default>(body: &[u8]) -> Result<M, DecodeError> {
    let envelope = Envelope::decode(body.strip_prefix(MAGIC).ok_or(DecodeError::Magic)?)?;
    Ok(M::decode(envelope.raw)?)
}

fn version(text: &str) -> Result<u64, DecodeError> {
    text.parse().map_err(|_| DecodeError::Missing("a resourceVersion that is a number"))
}

#[derive(Message)]
struct Envelope {
    #[prost(bytes = "bytes", tag = "2")]
    raw: bytes::Bytes,
}

#[derive(Message)]
struct StatusMessage {
    #[prost(string, tag = "3")]
    message: String,
    #[prost(string, tag = "4")]
    reason: String,
    #[prost(int32, tag = "6")]
    code: i32,
}

#[derive(Message)]
struct PodListMessage {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ListMeta>,
    #[prost(message, repeated, tag = "2")]
    items: Vec<PodMessage>,
}

#[derive(Message)]
struct ListMeta {
    #[prost(string, tag = "2")]
    resource_version: String,
    #[prost(string, tag = "3")]
    more: String,
}

#[derive(Message)]
struct PodMessage {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "2")]
    spec: Option<PodSpecWire>,
    #[prost(message, optional, tag = "3")]
    status: Option<PodStatusWire>,
}

#[derive(Message)]
struct ObjectMeta {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "5")]
    uid: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(message, optional, tag = "8")]
    created: Option<TimeMessage>,
    #[prost(message, optional, tag = "9")]
    deleted: Option<TimeMessage>,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    annotations: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "13")]
    owners: Vec<Reference>,
}

#[derive(Message)]
struct TimeMessage {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

impl TryFrom<PodMessage> for PodWire {
    type Error = DecodeError;

    fn try_from(pod: PodMessage) -> Result<Self, DecodeError> {
        let metadata = pod.metadata.ok_or(DecodeError::Missing("a pod's metadata"))?;
        Ok(Self { metadata: metadata.try_into()?, spec: pod.spec, status: pod.status })
    }
}

impl TryFrom<ObjectMeta> for Meta {
    type Error = DecodeError;

    fn try_from(meta: ObjectMeta) -> Result<Self, DecodeError> {
        if meta.name.is_empty() || meta.uid.is_empty() {
            return Err(DecodeError::Missing("an object's name or uid"));
        }
        let labels = meta.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Ok(Self {
            namespace: meta.namespace.as_str().into(),
            name: Arc::from(meta.name),
            uid: meta.uid.as_str().into(),
            resource_version: version(&meta.resource_version)?,
            generation: None,
            // An absent time is encoded as the Unix epoch.
            creation_timestamp: meta
                .created
                .filter(|at| at.seconds > 0)
                .map(|at| Timestamp::from_unix_millis(at.seconds.saturating_mul(1000))),
            deletion_timestamp: meta.deleted.map(|_| serde::de::IgnoredAny),
            labels: labels.collect::<Labels>(),
            annotations: meta.annotations.into_iter().collect::<Annotations>(),
            owner_references: Some(meta.owners),
            finalizers: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(message: &impl Message) -> Vec<u8> {
        let envelope = Envelope { raw: message.encode_to_vec().into() };
        [MAGIC, &envelope.encode_to_vec()].concat()
    }

    fn page() -> PodListMessage {
        let meta = |version: &str| ListMeta { resource_version: version.to_owned(), more: "next".to_owned() };
        let metadata = ObjectMeta {
            name: "web-1".to_owned(),
            uid: "u-1".to_owned(),
            resource_version: "71".to_owned(),
            ..ObjectMeta::default()
        };
        PodListMessage {
            metadata: Some(meta("72")),
            items: vec![PodMessage { metadata: Some(metadata), ..PodMessage::default() }],
        }
    }

    #[test]
    fn a_page_is_decoded_with_its_pods_and_its_next_page() {
        let read = pods(&sealed(&page())).unwrap();
        assert_eq!((read.metadata.resource_version, read.metadata.more.as_deref()), (72, Some("next")));
        let pod = read.items.unwrap().remove(0);
        assert_eq!((&*pod.name, pod.uid.as_str(), pod.version), ("web-1", "u-1", 71));
        assert!(!pod.has_annotations && !pod.terminating && pod.created.is_none() && pod.ip.is_none());
    }

    #[test]
    fn a_truncated_or_incomplete_page_is_an_error_and_not_a_page_with_fewer_pods() {
        let whole = sealed(&page());
        for length in 0..whole.len() {
            assert!(pods(whole.get(..length).unwrap()).is_err(), "cut at {length} of {}", whole.len());
        }
        assert!(matches!(pods(br#"{"kind": "PodListMessage"}"#), Err(DecodeError::Magic)));
        let without = |change: fn(&mut PodListMessage)| {
            let mut page = page();
            change(&mut page);
            pods(&sealed(&page)).err().unwrap().to_string()
        };
        assert_eq!(without(|page| page.metadata = None), "the response lacks metadata");
        assert_eq!(without(|page| page.items[0].metadata = None), "the response lacks a pod's metadata");
        let number = "the response lacks a resourceVersion that is a number";
        assert_eq!(without(|page| page.metadata.as_mut().unwrap().resource_version.clear()), number);
    }

    #[test]
    fn a_refusal_keeps_the_api_servers_message() {
        let said = StatusMessage { message: "no".to_owned(), reason: "Forbidden".to_owned(), code: 403 };
        let read = super::super::refusal(MEDIA, 500, &sealed(&said));
        assert_eq!((read.message.as_str(), read.reason.as_str(), read.code), ("no", "Forbidden", 403));
        let torn = super::super::refusal(MEDIA, 503, b"k8s");
        assert_eq!((torn.message.as_str(), torn.code), ("k8s", 503));
        let proxy = super::super::refusal("text/html", 502, b"<h1>bad gateway</h1>");
        assert_eq!((proxy.message.as_str(), proxy.code), ("<h1>bad gateway</h1>", 502));
    }
}
