//! The stored form of a pod: all that the next leader needs to continue with it.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::decide::{
    canonical::JsonNode,
    keepalive::{Keepalive, KeepaliveError},
};

/// The schema number that this version writes, and the highest that it reads.
pub const SCHEMA: u32 = 1;

/// Why a stored pod cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoredPodError {
    /// Not JSON, or not a record of this program.
    #[error("the stored pod is not readable JSON")]
    ReadJson(#[source] serde_json::Error),
    /// Written by a newer version.
    #[error("the stored pod has schema {0}; this version reads up to {SCHEMA}: run the newer version")]
    UnknownSchema(u32),
    /// The record's pod is not a valid keepalive.
    #[error("the stored pod is not valid")]
    ReadPod(#[source] KeepaliveError),
}

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPod {
    /// Assigned at the pod's first keepalive.
    pub seq: u64,
    /// Whether its last keepalive had `down: true`.
    pub down: bool,
    /// Nonces that newer ones have replaced, oldest first.
    pub replaced: Vec<String>,
    /// Its canonical JSON, as in `PODS`.
    pub text: Vec<u8>,
}

#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

#[derive(Deserialize)]
struct StoredRecord<'a> {
    seq: u64,
    #[serde(default)]
    down: bool,
    #[serde(default)]
    replaced: Vec<String>,
    #[serde(borrow)]
    pod: &'a RawValue,
}

impl StoredPod {
    /// Decodes a record.
    ///
    /// # Errors
    /// See [`StoredPodError`].
    pub fn decode(stored: &[u8]) -> Result<Self, StoredPodError> {
        let Schema { schema } = serde_json::from_slice(stored).map_err(StoredPodError::ReadJson)?;
        if schema > SCHEMA {
            return Err(StoredPodError::UnknownSchema(schema));
        }
        let record: StoredRecord<'_> = serde_json::from_slice(stored).map_err(StoredPodError::ReadJson)?;
        let pod = Keepalive::parse(record.pod.get().as_bytes()).map_err(StoredPodError::ReadPod)?;
        Ok(Self {
            seq: record.seq,
            down: record.down,
            text: pod.canonical(record.seq),
            replaced: record.replaced,
        })
    }
}

/// Encodes a record: JSON with a schema number around the pod's canonical text.
pub(super) fn encode(seq: u64, down: bool, replaced: &[String], text: &[u8]) -> Vec<u8> {
    let mut stored = format!("{{\"schema\":{SCHEMA},\"seq\":{seq},").into_bytes();
    if down {
        stored.extend_from_slice(b"\"down\":true,");
    }
    if !replaced.is_empty() {
        let nonces = replaced.iter().map(|nonce| JsonNode::Text(nonce.into())).collect();
        stored.extend_from_slice(b"\"replaced\":");
        JsonNode::List(nonces).write(&mut stored);
        stored.push(b',');
    }
    stored.extend_from_slice(b"\"pod\":");
    stored.extend_from_slice(text);
    stored.push(b'}');
    stored
}
