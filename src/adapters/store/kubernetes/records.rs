//! Records as ConfigMaps: a head with the small ones, chunks with the pods, and parts of a record that is too large for
//! the head. No object exceeds 512 KiB.
//!
//! Every object carries the term of the leader that wrote it last, and every write names the version that it changes. A
//! new leader stamps each object with its term before it leads: from then on the writes of the old one are refused. A
//! pod that has outgrown its chunk moves to a later one; after a crash in between the later copy counts.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use k8s_openapi::{ByteString, api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::names::{self, ORIGINAL_KEY, ObjectRole, TERM};
use crate::{
    adapters::store::{RecordKey, SCHEMA, StoreError},
    decide::key::Key,
};

/// Bytes of a chunk up to which new pods are put into it; the rest is room for pods that grow.
const CHUNK_FILL: usize = 256 << 10;
/// Bytes of a chunk's pods, above which one moves.
const CHUNK_LIMIT: usize = 448 << 10;
/// Bytes of a record that the head may hold.
const INLINE: usize = 96 << 10;
/// Bytes of a large record in one part; base64 makes a third more of it.
const PART: usize = 360 << 10;
/// The member of the head with the list of the other objects.
const LAYOUT: &str = "layout";
/// The member of an object with a part of a large record.
pub(super) const PART_NAME: &str = "part";

/// The objects that a head knows of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    /// The number of chunks.
    pub(super) chunks: usize,
    /// The large records, by name.
    #[serde(default)]
    pub(super) large: BTreeMap<String, LargeRecord>,
}

/// Where a large record is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LargeRecord {
    /// Different at each write.
    pub(super) version: String,
    /// The number of its parts.
    pub(super) parts: usize,
}

/// Where each pod is, and how full the chunks are.
#[derive(Debug, Default)]
pub(super) struct Placement {
    by_key: HashMap<Key, (usize, usize)>,
    fill: Vec<usize>,
}

/// The changes of each chunk: `None` removes a pod.
pub(super) type ChunkChanges = BTreeMap<usize, BTreeMap<Key, Option<Bytes>>>;

impl Placement {
    /// The number of chunks.
    pub(super) fn chunks(&self) -> usize {
        self.fill.len()
    }

    /// Adds chunk after chunk up to this number.
    pub(super) fn grow(&mut self, chunks: usize) {
        self.fill.resize(self.fill.len().max(chunks), 0);
    }

    /// The chunk that has this pod.
    pub(super) fn chunk_of(&self, key: Key) -> Option<usize> {
        self.by_key.get(&key).map(|(chunk, _)| *chunk)
    }

    /// A pod that was read in `chunk`. Returns the chunk of an older copy.
    pub(super) fn found(&mut self, key: Key, chunk: usize, value: &[u8]) -> Option<usize> {
        self.grow(chunk + 1);
        let older = self.by_key.get(&key).map(|(older, _)| *older);
        self.remember(key, chunk, cost(value));
        older
    }

    /// Divides the changes over the chunks: those to be written first, and the removals of what has moved.
    pub(super) fn divide(&mut self, changes: Vec<(Key, Option<Bytes>)>) -> (ChunkChanges, ChunkChanges) {
        let (mut first, mut moved) = (ChunkChanges::new(), ChunkChanges::new());
        for (key, value) in changes {
            let at = self.by_key.get(&key).copied();
            let Some(value) = value else {
                if let Some((chunk, cost)) = at {
                    self.by_key.remove(&key);
                    self.fill[chunk] -= cost;
                    first.entry(chunk).or_default().insert(key, None);
                }
                continue;
            };
            let cost = cost(&value);
            let chunk = match at {
                Some((chunk, old)) if self.fill[chunk] - old + cost <= CHUNK_LIMIT => chunk,
                Some((chunk, _)) => {
                    moved.entry(chunk).or_default().insert(key, None);
                    self.chunk_with_room(chunk + 1, cost)
                }
                None => self.chunk_with_room(0, cost),
            };
            self.remember(key, chunk, cost);
            first.entry(chunk).or_default().insert(key, Some(value));
        }
        (first, moved)
    }

    fn remember(&mut self, key: Key, chunk: usize, cost: usize) {
        if let Some((older, cost)) = self.by_key.insert(key, (chunk, cost)) {
            self.fill[older] -= cost;
        }
        self.fill[chunk] += cost;
    }

    fn chunk_with_room(&mut self, from: usize, cost: usize) -> usize {
        let has_room = |fill: &usize| fill + cost <= CHUNK_FILL || *fill == 0;
        match self.fill.iter().skip(from).position(has_room) {
            Some(at) => from + at,
            None => {
                self.fill.push(0);
                self.fill.len() - 1
            }
        }
    }
}

/// Bytes of a pod's record in an object, roughly: quotes are escaped.
fn cost(value: &[u8]) -> usize {
    let escaped = value.iter().filter(|byte| matches!(byte, b'"' | b'\\' | b'\n')).count();
    match std::str::from_utf8(value) {
        Ok(_) => value.len() + escaped + 16,
        Err(_) => value.len() * 4 / 3 + 16,
    }
}

/// The key of the head of a prefix.
pub(super) fn head_key(prefix: &str) -> String {
    format!("{prefix}records/head")
}

/// The key of a chunk.
pub(super) fn chunk_key(prefix: &str, chunk: usize) -> String {
    format!("{prefix}records/chunk/{chunk}")
}

/// The key of a part of a large record.
pub(super) fn part_key(prefix: &str, record: &str, version: &str, part: usize) -> String {
    format!("{prefix}records/large/{record}/{version}/{part}")
}

/// The keys of all parts that a head knows of.
pub(super) fn part_keys(prefix: &str, layout: &Layout) -> Vec<String> {
    let parts = layout.large.iter().flat_map(|(name, LargeRecord { version, parts })| {
        (0..*parts).map(move |part| part_key(prefix, name, version, part))
    });
    parts.collect()
}

/// A new object.
pub(super) fn object(prefix: &str, key: &str, role: ObjectRole, term: u64) -> ConfigMap {
    let annotations =
        [(ORIGINAL_KEY, key.to_owned()), (names::SCHEMA, SCHEMA.to_string()), (TERM, term.to_string())];
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::object_name(key)),
            labels: Some(names::labels(prefix, role)),
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

/// A merge patch of version `version` of an object: its term, and values by name; `None` removes one.
pub(super) fn patch<'a>(
    version: &str,
    term: u64,
    values: impl IntoIterator<Item = (String, Option<&'a Bytes>)>,
) -> Value {
    let (mut texts, mut bytes) = (Map::new(), Map::new());
    for (name, value) in values {
        // A value may change from text to bytes and back.
        let text = value.map(|value| std::str::from_utf8(value));
        texts.insert(name.clone(), text.and_then(Result::ok).map_or(Value::Null, Value::from));
        let binary = value.filter(|_| matches!(text, Some(Err(_))));
        bytes.insert(name, binary.map_or(Value::Null, |value| json!(ByteString(value.to_vec()))));
    }
    json!({
        "metadata": {"resourceVersion": version, "annotations": {TERM: term.to_string()}},
        "data": texts,
        "binaryData": bytes,
    })
}

/// The parts of a large record.
pub(super) fn parts(value: &Bytes) -> impl ExactSizeIterator<Item = Bytes> {
    let value = value.clone();
    (0..value.len().div_ceil(PART))
        .map(move |part| value.slice(part * PART..((part + 1) * PART).min(value.len())))
}

/// Whether the head can hold this value.
pub(super) fn fits_head(value: &Bytes) -> bool {
    value.len() <= INLINE
}

/// All values of an object by name.
pub(super) fn values(object: &ConfigMap) -> BTreeMap<String, Bytes> {
    let texts = object.data.iter().flatten().map(|(name, text)| (name.clone(), Bytes::from(text.clone())));
    let bytes = object.binary_data.iter().flatten();
    texts.chain(bytes.map(|(name, value)| (name.clone(), Bytes::from(value.0.clone())))).collect()
}

/// The pods of a chunk.
pub(super) fn pods(chunk: &ConfigMap) -> Result<Vec<(Key, Bytes)>, StoreError> {
    let name = chunk.metadata.name.as_deref().unwrap_or_default();
    let pod = |(key, value): (String, Bytes)| match key.parse() {
        Ok(key) => Ok((key, value)),
        Err(error) => Err(StoreError::Unusable(format!(
            "ConfigMap {name} holds a pod under {key:?}: {error}; remove that member, or name another prefix"
        ))),
    };
    values(chunk).into_iter().map(pod).collect()
}

/// The layout that a head describes.
pub(super) fn layout(head: &ConfigMap) -> Result<Layout, StoreError> {
    let Some(text) = head.data.as_ref().and_then(|data| data.get(LAYOUT)) else {
        return Ok(Layout::default());
    };
    serde_json::from_str(text).map_err(|error| {
        let name = head.metadata.name.as_deref().unwrap_or_default();
        StoreError::Unusable(format!("ConfigMap {name}, member {LAYOUT}: {error}; restore it from a backup"))
    })
}

/// The layout as a value of the head.
pub(super) fn layout_value(layout: &Layout) -> (String, Bytes) {
    (LAYOUT.to_owned(), serde_json::to_string(layout).unwrap_or_default().into())
}

/// The term of an object's last writer.
pub(super) fn term(object: &ConfigMap) -> u64 {
    let term = object.metadata.annotations.as_ref().and_then(|all| all.get(TERM));
    term.and_then(|term| term.parse().ok()).unwrap_or(0)
}

/// The key that names an object.
pub(super) fn key(object: &ConfigMap) -> Option<&str> {
    object.metadata.annotations.as_ref()?.get(ORIGINAL_KEY).map(String::as_str)
}

/// A record's name in the head.
pub(super) fn name(record: RecordKey) -> String {
    record.to_string()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn pod(n: u32) -> Key {
        Key::of(Ipv4Addr::from_bits(0x0a00_0000 + n))
    }

    /// What the chunks hold after these changes.
    fn apply(stored: &mut BTreeMap<usize, BTreeMap<Key, Bytes>>, changes: ChunkChanges) {
        for (chunk, pods) in changes {
            for (key, value) in pods {
                match value {
                    Some(value) => stored.entry(chunk).or_default().insert(key, value),
                    None => stored.entry(chunk).or_default().remove(&key),
                };
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_each_pod_is_in_one_chunk_and_no_chunk_is_too_large(
            steps in prop::collection::vec((0_u32..40, prop::option::of(0_usize..200_000)), 1..120),
            crash in 0_usize..120,
        ) {
            let (mut placement, mut stored) = (Placement::default(), BTreeMap::new());
            let mut wanted = BTreeMap::new();
            for (step, (n, size)) in steps.into_iter().enumerate() {
                let value = size.map(|size| Bytes::from(vec![b'x'; size]));
                let (first, moved) = placement.divide(vec![(pod(n), value.clone())]);
                apply(&mut stored, first);
                match value {
                    Some(value) => wanted.insert(pod(n), value),
                    None => wanted.remove(&pod(n)),
                };
                if step == crash {
                    // The removals are lost; the next leader reads the chunks.
                    placement = Placement::default();
                    let mut strays = ChunkChanges::new();
                    for (chunk, pods) in &stored {
                        for (key, value) in pods {
                            if let Some(older) = placement.found(*key, *chunk, value) {
                                strays.entry(older).or_default().insert(*key, None);
                            }
                        }
                    }
                    apply(&mut stored, strays);
                } else {
                    apply(&mut stored, moved);
                }
            }
            let all: Vec<(Key, Bytes)> = stored.values().flatten().map(|(key, value)| (*key, value.clone())).collect();
            prop_assert_eq!(all.len(), wanted.len());
            prop_assert_eq!(all.into_iter().collect::<BTreeMap<_, _>>(), wanted);
            for pods in stored.values() {
                let bytes: usize = pods.values().map(|value| cost(value)).sum();
                prop_assert!(bytes <= CHUNK_LIMIT.max(200_016), "{bytes}");
            }
        }
    }

    #[test]
    fn fifty_thousand_pods_fit_into_chunks_below_half_a_mebibyte() {
        let value = Bytes::from(format!(r#"{{"payload":"{}"}}"#, "x".repeat(280)));
        let mut placement = Placement::default();
        let (first, moved) = placement.divide((0..50_000).map(|n| (pod(n), Some(value.clone()))).collect());
        assert!(moved.is_empty());
        let largest = first.values().map(|pods| {
            let values = pods.iter().map(|(key, value)| (key.to_string(), value.as_ref()));
            patch("1", 1, values).to_string().len()
        });
        let (largest, chunks) = (largest.max().unwrap(), first.len());
        println!("{chunks} chunks, the largest {largest} bytes");
        assert!(largest < 512 << 10 && chunks < 100);
    }

    #[test]
    fn a_value_that_is_no_text_comes_back_and_may_become_text() {
        let (binary, text) = (Bytes::from_static(b"\xff\x00"), Bytes::from_static(b"plain"));
        let mut stored = json!(object("/x/", "/x/records/head", ObjectRole::Head, 1));
        for value in [binary, text] {
            let patch = patch("1", 2, [("state".to_owned(), Some(&value))]);
            json_patch::merge(&mut stored, &patch);
            let object: ConfigMap = serde_json::from_value(stored.clone()).unwrap();
            assert_eq!(values(&object), [("state".to_owned(), value)].into());
            assert_eq!((term(&object), key(&object)), (2, Some("/x/records/head")));
        }
    }
}
