//! Snapshots: the visible pods as the exact bytes of `PODS`, immutable and shared.
//!
//! A snapshot is the concatenation of the pods' canonical texts. The ensemble's pods then refer to spans of the newest
//! snapshot, so that each text is in memory once.

use std::{
    borrow::Cow,
    net::Ipv4Addr,
    ops::Range,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::decide::{
    digest::{Digest, HashStates},
    key::Key,
};

/// The exact bytes of `PODS`; clones share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pods(Arc<Vec<u8>>);

impl AsRef<[u8]> for Pods {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::Deref for Pods {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// The visible pods at one revision, ordered by seq.
#[derive(Debug)]
pub struct Snapshot {
    revision: u64,
    pods: Pods,
    spans: Vec<(u32, u32)>,
    /// States of the hash of its beginning, where it equals that of the snapshot before.
    beginning: HashStates,
    digest: OnceLock<(Digest, HashStates)>,
}

impl Snapshot {
    /// The ensemble's revision at the time of the snapshot.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The exact bytes of `PODS`: a canonical JSON array.
    pub fn pods(&self) -> &Pods {
        &self.pods
    }

    /// MD5 of these bytes; computed at the first call (O(bytes) from the first one that differs from the snapshot
    /// before), so call it outside locks.
    pub fn digest(&self) -> Digest {
        self.digest.get_or_init(|| Digest::resume(&self.pods, &self.beginning)).0
    }

    /// The states of the hash of its beginning, as far as they are known.
    fn states(&self) -> &HashStates {
        self.digest.get().map_or(&self.beginning, |(_, states)| states)
    }

    /// The number of pods.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are no pods.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The pods in order of seq, each parsed when the iterator reaches it.
    pub fn members(&self) -> impl Iterator<Item = CanonicalPod<'_>> {
        self.spans.iter().filter_map(|span| CanonicalPod::read(&self.pods[range(*span)]))
    }
}

/// One pod, parsed from its canonical JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CanonicalPod<'a> {
    /// Its address in base 62.
    pub key: Key,
    /// By default the pod's name.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
    /// The label `app`.
    #[serde(borrow)]
    pub app: Cow<'a, str>,
    /// The label `role`.
    #[serde(borrow)]
    pub role: Cow<'a, str>,
    /// Identifies its process; clients of the original may send none.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Cow<'a, str>>,
    /// Its sequence number.
    pub seq: u64,
    /// Canonical JSON text.
    #[serde(borrow)]
    pub payload: &'a RawValue,
}

impl<'a> CanonicalPod<'a> {
    /// Parses one element of `PODS`.
    pub fn read(text: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

/// The canonical bytes of one pod: owned, or a span of the newest snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PodText {
    Own(Box<[u8]>),
    Shared(u32, u32),
}

impl PodText {
    pub(super) fn bytes<'a>(&'a self, pods: &'a Pods) -> &'a [u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(start, end) => &pods[range((*start, *end))],
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Shared(start, end) => (end - start) as usize,
        }
    }
}

fn range((start, end): (u32, u32)) -> Range<usize> {
    start as usize..end as usize
}

/// Concatenates texts in the order given and returns the span of each.
pub(super) struct SnapshotBuilder {
    pods: Vec<u8>,
    spans: Vec<(u32, u32)>,
    /// So many bytes equal those of the snapshot before: up to the end of the last text that was at the same place there.
    unchanged: u32,
}

impl SnapshotBuilder {
    /// Capacity for `count` texts with a sum of `bytes`, which the caller keeps below 4 GiB.
    pub(super) fn with_room_for(count: usize, bytes: usize) -> Self {
        let mut pods = Vec::with_capacity(bytes + count.max(1) + 1);
        pods.push(b'[');
        Self { pods, spans: Vec::with_capacity(count), unchanged: 0 }
    }

    /// `text` may be a span of the snapshot `before`.
    pub(super) fn push(&mut self, text: &PodText, before: &Snapshot) -> PodText {
        let all_unchanged = self.unchanged == self.spans.last().map_or(0, |(_, end)| *end);
        if !self.spans.is_empty() {
            self.pods.push(b',');
        }
        let offset = |pods: &Vec<u8>| u32::try_from(pods.len()).unwrap_or(u32::MAX);
        let start = offset(&self.pods);
        self.pods.extend_from_slice(text.bytes(&before.pods));
        let end = offset(&self.pods);
        self.spans.push((start, end));
        let copy = PodText::Shared(start, end);
        if all_unchanged && *text == copy {
            self.unchanged = end;
        }
        copy
    }

    /// The snapshot that comes after `before`.
    pub(super) fn finish(mut self, revision: u64, before: Option<&Snapshot>) -> Snapshot {
        self.pods.push(b']');
        Snapshot {
            revision,
            beginning: before
                .map(|before| before.states().within(self.unchanged as usize))
                .unwrap_or_default(),
            pods: Pods(Arc::new(self.pods)),
            spans: self.spans,
            digest: OnceLock::new(),
        }
    }
}
