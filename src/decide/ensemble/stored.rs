//! A pod as the store keeps it: what the next leader must know to go on as if nothing had happened.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::decide::{
    canonical::JsonNode,
    keepalive::{Keepalive, KeepaliveError},
};

/// The layout that this version writes, and the newest that it reads.
pub const SCHEMA: u32 = 1;

/// Why a stored pod cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoredPodError {
    /// No record of ours.
    #[error("the stored pod is not readable JSON")]
    ReadJson(#[source] serde_json::Error),
    /// Written by a newer version.
    #[error("the stored pod has schema {found}; this version reads up to {SCHEMA}: run the newer version")]
    UnknownSchema {
        /// Its schema number.
        found: u32,
    },
    /// The pod in it is none.
    #[error("the stored pod is not valid")]
    ReadPod(#[source] KeepaliveError),
}

/// A pod as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPod {
    /// Its sequence number.
    pub seq: u64,
    /// It said `down`.
    pub down: bool,
    /// Nonces that newer ones have replaced, oldest first.
    pub replaced: Vec<String>,
    /// Its canonical JSON, as it stands in `PODS`.
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
    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// See [`StoredPodError`].
    pub fn decode(stored: &[u8]) -> Result<Self, StoredPodError> {
        let Schema { schema } = serde_json::from_slice(stored).map_err(StoredPodError::ReadJson)?;
        if schema > SCHEMA {
            return Err(StoredPodError::UnknownSchema { found: schema });
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

/// The stored form of a pod: JSON with a schema number around its canonical text.
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
