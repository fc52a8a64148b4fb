//! The leader's access to the records: it stamps them at the beginning of its term, and knows the version of each object.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use tokio::sync::Mutex;

use super::{
    leases,
    names::{ObjectRole, object_name, selector},
    records::{self, ChunkChanges, LargeRecord, Layout, Placement},
    requests::{RequestFailure, Requests},
};
use crate::{
    adapters::store::{
        Operation, RecordKey, Records, SCHEMA, StoreError, Term,
        layout::{SINGLES, Writes},
    },
    decide::key::Key,
};

/// Requests for chunks that run at a time.
const AT_A_TIME: usize = 8;

/// Attempts of a write whose object was changed by somebody who is no leader.
const ATTEMPTS: usize = 3;

/// Reads and writes the records of one prefix.
pub(super) struct RecordWriter {
    requests: Requests,
    prefix: String,
    /// What this leader has read and written; `None` before its first term.
    written: Mutex<Option<Written>>,
}

struct Written {
    term: u64,
    /// The version of each object by its key; an absent one is read before it is written.
    versions: BTreeMap<String, String>,
    layout: Layout,
    placement: Placement,
}

/// The values of a record's objects, and the objects themselves.
struct StoredObjects {
    head: Option<ConfigMap>,
    layout: Layout,
    by_key: BTreeMap<String, ConfigMap>,
}

impl RecordWriter {
    pub(super) fn new(requests: Requests, prefix: String) -> Self {
        Self { requests, prefix, written: Mutex::new(None) }
    }

    /// Stamps all objects with `term`, or with a higher one if they have one as high: no older leader writes after this.
    /// Returns the term, and the followed records.
    pub(super) async fn take_over(&self, term: u64) -> Result<(u64, Records), RequestFailure> {
        let stored = self.read().await?;
        let newest = stored.by_key.values().map(records::term).max().unwrap_or(0);
        let term = term.max(newest + 1);
        let mut written = Written {
            term,
            versions: BTreeMap::new(),
            layout: stored.layout.clone(),
            placement: Placement::default(),
        };
        // First the head: of two leaders that stamp at a time, one fails here.
        self.stamp(&mut written, &records::head_key(&self.prefix), ObjectRole::Head, stored.head.as_ref())
            .await?;
        let mut strays = ChunkChanges::new();
        for chunk in 0..stored.layout.chunks {
            let key = records::chunk_key(&self.prefix, chunk);
            let found = stored.by_key.get(&key);
            self.stamp(&mut written, &key, ObjectRole::Chunk, found).await?;
            written.placement.grow(chunk + 1);
            for (pod, value) in found.map(records::pods).transpose()?.unwrap_or_default() {
                if let Some(older) = written.placement.found(pod, chunk, &value) {
                    strays.entry(older).or_default().insert(pod, None);
                }
            }
        }
        self.write_chunks(&mut written, strays).await?;
        self.remove_unknown(&written.layout, stored.by_key.values()).await;
        let singles = self.singles(stored.head.as_ref(), &stored.by_key)?;
        *self.written.lock().await = Some(written);
        Ok((term, singles))
    }

    /// Writes in the order of [`Writes`]; see `commit` of the trait.
    pub(super) async fn commit(&self, term: Term, writes: Writes) -> Result<(), StoreError> {
        let mut guard = self.written.lock().await;
        let lost = || StoreError::LeadershipLost(term);
        let written = guard.as_mut().filter(|written| written.term == term.0).ok_or_else(lost)?;
        let done = self.write(written, writes).await;
        done.map_err(|refusal| match refusal {
            RequestFailure::Conflict => lost(),
            RequestFailure::Failed(error) => error,
        })
    }

    async fn write(&self, written: &mut Written, writes: Writes) -> Result<(), RequestFailure> {
        let (mut pods, mut singles) = (Vec::new(), Vec::new());
        for (record, value) in writes {
            match record {
                RecordKey::Pod(key) => pods.push((key, value)),
                single => singles.push((single, value)),
            }
        }
        let (first, moved) = written.placement.divide(pods);
        let grows = written.placement.chunks() > written.layout.chunks;
        if !first.is_empty() {
            // A pod is never durable before its sequence number, and no chunk before the head knows of it.
            let at = singles.iter().position(|(record, _)| *record == RecordKey::Sequence);
            let sequence = at.map(|at| singles.remove(at));
            written.layout.chunks = written.placement.chunks();
            if grows || sequence.is_some() {
                self.write_head(written, sequence.into_iter().collect()).await?;
            }
            self.write_chunks(written, first).await?;
            self.write_chunks(written, moved).await?;
        }
        if !singles.is_empty() {
            self.write_singles(written, singles).await?;
        }
        Ok(())
    }

    /// Writes parts of large records, then the head, then removes the parts of earlier versions.
    async fn write_singles(
        &self,
        written: &mut Written,
        singles: Vec<(RecordKey, Option<Bytes>)>,
    ) -> Result<(), RequestFailure> {
        let (mut small, mut old) = (Vec::new(), Vec::new());
        for (record, value) in singles {
            let name = records::name(record);
            let large = value.as_ref().filter(|value| !records::fits_head(value)).cloned();
            let new = match &large {
                Some(value) => Some(self.write_parts(written, &name, value).await?),
                None => None,
            };
            let before = match new {
                Some(new) => written.layout.large.insert(name.clone(), new),
                None => written.layout.large.remove(&name),
            };
            old.extend(before.map(|before| (name, before)));
            small.push((record, value.filter(|_| large.is_none())));
        }
        self.write_head(written, small).await?;
        for (name, LargeRecord { version, parts }) in old {
            for part in 0..parts {
                let key = records::part_key(&self.prefix, &name, &version, part);
                if let Ok(Some(object)) = self.requests.get::<ConfigMap>(&object_name(&key)).await {
                    // What stays is removed at the beginning of the next term.
                    let _ = self.requests.delete(&object).await;
                }
            }
        }
        Ok(())
    }

    async fn write_parts(
        &self,
        written: &Written,
        name: &str,
        value: &Bytes,
    ) -> Result<LargeRecord, RequestFailure> {
        let before = written.layout.large.get(name).and_then(|large| large.version.split_once('-'));
        let serial = before.and_then(|(_, serial)| serial.parse::<u64>().ok()).map_or(1, |serial| serial + 1);
        let version = format!("{}-{serial}", written.term);
        let parts = records::parts(value);
        let large = LargeRecord { version: version.clone(), parts: parts.len() };
        for (at, part) in parts.enumerate() {
            let key = records::part_key(&self.prefix, name, &version, at);
            let mut object = records::object(&self.prefix, &key, ObjectRole::Chunk, written.term);
            object.binary_data = Some([("part".to_owned(), k8s_openapi::ByteString(part.to_vec()))].into());
            match self.requests.put(Operation::Commit, &object).await {
                // An earlier attempt, whose answer was lost.
                Ok(_) | Err(RequestFailure::Conflict) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(large)
    }

    async fn write_head(
        &self,
        written: &mut Written,
        singles: Vec<(RecordKey, Option<Bytes>)>,
    ) -> Result<(), RequestFailure> {
        let layout = records::layout_value(&written.layout);
        let values = singles.iter().map(|(record, value)| (records::name(*record), value.as_ref()));
        let values: Vec<_> = values.chain([(layout.0, Some(&layout.1))]).collect();
        let key = records::head_key(&self.prefix);
        let version = written.versions.get(&key).cloned();
        let version = self.patch(written.term, &key, ObjectRole::Head, version, values).await?;
        written.versions.insert(key, version);
        Ok(())
    }

    async fn write_chunks(&self, written: &mut Written, changes: ChunkChanges) -> Result<(), RequestFailure> {
        let writes: Vec<_> = changes
            .into_iter()
            .map(|(chunk, pods)| {
                let key = records::chunk_key(&self.prefix, chunk);
                let version = written.versions.get(&key).cloned();
                self.write_chunk(written.term, key, version, pods)
            })
            .collect();
        let done: Vec<_> = stream::iter(writes).buffer_unordered(AT_A_TIME).collect().await;
        let mut failed = None;
        for one in done {
            match one {
                Ok((key, version)) => drop(written.versions.insert(key, version)),
                Err(refusal) => failed = Some(refusal),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Writes the pods of one chunk; returns its key and its new version.
    async fn write_chunk(
        &self,
        term: u64,
        key: String,
        version: Option<String>,
        pods: BTreeMap<Key, Option<Bytes>>,
    ) -> Result<(String, String), RequestFailure> {
        let values = pods.iter().map(|(pod, value)| (pod.to_string(), value.as_ref())).collect();
        let version = self.patch(term, &key, ObjectRole::Chunk, version, values).await?;
        Ok((key, version))
    }

    /// Writes values of one object and returns its new version. An object that was changed by nobody of a newer term is
    /// read and written again: a person has edited it, or the answer to our own write was lost.
    async fn patch(
        &self,
        term: u64,
        key: &str,
        role: ObjectRole,
        mut version: Option<String>,
        values: Vec<(String, Option<&Bytes>)>,
    ) -> Result<String, RequestFailure> {
        let name = object_name(key);
        for _ in 0..ATTEMPTS {
            let at = match version.take() {
                Some(version) => version,
                None => self.current(term, key, role).await?,
            };
            let patch = records::patch(&at, term, values.iter().map(|(name, value)| (name.clone(), *value)));
            match self.requests.patch::<ConfigMap>(&name, &patch).await {
                Ok(object) => return Ok(object.metadata.resource_version.unwrap_or_default()),
                Err(RequestFailure::Conflict) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Err(RequestFailure::Conflict)
    }

    /// The version of an object that no newer leader has; it is made where it is missing.
    async fn current(&self, term: u64, key: &str, role: ObjectRole) -> Result<String, RequestFailure> {
        let found = match self.requests.get::<ConfigMap>(&object_name(key)).await? {
            Some(found) => found,
            None => {
                let made = records::object(&self.prefix, key, role, term);
                self.requests.put(Operation::Commit, &made).await?
            }
        };
        if records::term(&found) > term {
            return Err(RequestFailure::Conflict);
        }
        Ok(found.metadata.resource_version.unwrap_or_default())
    }

    /// Puts our term on an object exactly as it was read, or makes it.
    async fn stamp(
        &self,
        written: &mut Written,
        key: &str,
        role: ObjectRole,
        found: Option<&ConfigMap>,
    ) -> Result<(), RequestFailure> {
        let stamped = match found {
            None => {
                self.requests
                    .put(Operation::Campaign, &records::object(&self.prefix, key, role, written.term))
                    .await?
            }
            Some(found) => {
                let version = found.metadata.resource_version.as_deref().unwrap_or_default();
                let patch = records::patch(version, written.term, []);
                self.requests.patch::<ConfigMap>(&object_name(key), &patch).await?
            }
        };
        written.versions.insert(key.to_owned(), stamped.metadata.resource_version.unwrap_or_default());
        Ok(())
    }

    /// Removes parts and chunks that no head knows of: what a crash has left.
    async fn remove_unknown(&self, layout: &Layout, objects: impl Iterator<Item = &ConfigMap>) {
        let parts = layout.large.iter().flat_map(|(name, LargeRecord { version, parts })| {
            (0..*parts).map(move |part| records::part_key(&self.prefix, name, version, part))
        });
        let chunks = (0..layout.chunks).map(|chunk| records::chunk_key(&self.prefix, chunk));
        let known: BTreeSet<String> = parts.chain(chunks).chain([records::head_key(&self.prefix)]).collect();
        for object in objects.filter(|object| records::key(object).is_some_and(|key| !known.contains(key))) {
            if let Err(error) = self.requests.delete(object).await {
                tracing::debug!(?error, "an unused object stays until the next term");
            }
        }
    }

    /// All records, as stored at one moment.
    pub(super) async fn load(&self) -> Result<Records, StoreError> {
        let stored = self.read().await?;
        let mut all = self.singles(stored.head.as_ref(), &stored.by_key)?;
        for chunk in 0..stored.layout.chunks {
            let found = stored.by_key.get(&records::chunk_key(&self.prefix, chunk));
            // Of two copies of a pod the one in the later chunk counts.
            let pods = found.map(records::pods).transpose()?.unwrap_or_default();
            all.extend(pods.into_iter().map(|(key, value)| (RecordKey::Pod(key), value)));
        }
        Ok(all)
    }

    /// The records that a head holds, with the parts that it knows of.
    pub(super) async fn followed(&self, head: &ConfigMap) -> Result<Records, StoreError> {
        check_schema(head)?;
        let mut parts = BTreeMap::new();
        for (name, LargeRecord { version, parts: count }) in records::layout(head)?.large {
            for part in 0..count {
                let key = records::part_key(&self.prefix, &name, &version, part);
                let found = self.requests.get::<ConfigMap>(&object_name(&key)).await?;
                parts.extend(found.map(|found| (key, found)));
            }
        }
        self.singles(Some(head), &parts)
    }

    async fn read(&self) -> Result<StoredObjects, StoreError> {
        let (objects, _) = self.requests.list::<ConfigMap>(&selector(&self.prefix, None)).await?;
        let by_key: BTreeMap<String, ConfigMap> = objects
            .into_iter()
            .filter_map(|object| Some((records::key(&object)?.to_owned(), object)))
            .collect();
        let head = by_key.get(&records::head_key(&self.prefix)).cloned();
        by_key.values().try_for_each(check_schema)?;
        let layout = head.as_ref().map(records::layout).transpose()?.unwrap_or_default();
        Ok(StoredObjects { head, layout, by_key })
    }

    fn singles(
        &self,
        head: Option<&ConfigMap>,
        objects: &BTreeMap<String, ConfigMap>,
    ) -> Result<Records, StoreError> {
        let Some(head) = head else { return Ok(Records::new()) };
        let (layout, values) = (records::layout(head)?, records::values(head));
        let mut found = Records::new();
        for record in SINGLES {
            let name = records::name(record);
            let Some(LargeRecord { version, parts }) = layout.large.get(&name) else {
                found.extend(values.get(&name).map(|value| (record, value.clone())));
                continue;
            };
            let mut whole = Vec::new();
            for part in 0..*parts {
                let key = records::part_key(&self.prefix, &name, version, part);
                let value = objects.get(&key).and_then(|object| records::values(object).remove("part"));
                // A follower may read while the next version is written: the next change of the head brings it.
                let value = value.ok_or_else(|| {
                    StoreError::Unavailable(format!(
                        "Kubernetes: part {part} of the record {name} is missing"
                    ))
                })?;
                whole.extend_from_slice(&value);
            }
            found.insert(record, whole.into());
        }
        Ok(found)
    }
}

/// A record of a newer schema is neither read nor written.
fn check_schema(object: &ConfigMap) -> Result<(), StoreError> {
    let schema = leases::schema(&object.metadata);
    if schema <= SCHEMA {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "ConfigMap {} has schema {schema}, and this version knows {SCHEMA}: it is left alone; update this replica",
        leases::name_of(&object.metadata)
    )))
}
