//! The leader's writes of records: it stamps them at the beginning of its term, and knows the version of each object.
//!
//! Whether a write that failed has happened is unknown: what it may have left is remembered and removed with the next
//! commit, and the head is read again before it is written again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use tokio::sync::Mutex;

use super::{
    names::{self, ObjectRole, object_name},
    reader::{RecordReader, StoredObjects},
    records::{self, ChunkChanges, LargeRecord, Placement},
    requests::{RequestFailure, Requests},
    written::Written,
};
use crate::{
    adapters::store::{Operation, RecordKey, Records, StoreError, Term, layout::Writes},
    decide::key::Key,
};

/// Requests for chunks that run at a time.
const AT_A_TIME: usize = 8;

/// Attempts of a write whose object was changed by somebody who is no leader.
const ATTEMPTS: usize = 3;

/// Writes the records of one prefix.
pub(super) struct RecordWriter {
    reader: RecordReader,
    /// What this leader has read and written; `None` before its first term.
    written: Mutex<Option<Written>>,
}

/// A record that exists once, as the head has it.
enum HeadValue {
    Inline(Option<Bytes>),
    Large(LargeRecord),
}

impl RecordWriter {
    pub(super) fn new(requests: Requests, prefix: String) -> Self {
        Self { reader: RecordReader { requests, prefix }, written: Mutex::new(None) }
    }

    pub(super) fn reader(&self) -> &RecordReader {
        &self.reader
    }

    fn requests(&self) -> &Requests {
        &self.reader.requests
    }

    fn head_key(&self) -> String {
        records::head_key(&self.reader.prefix)
    }

    fn chunk_key(&self, chunk: usize) -> String {
        records::chunk_key(&self.reader.prefix, chunk)
    }

    /// Stamps all objects with `term`, or with a higher one if they have one as high: no older leader writes after this.
    /// Returns the term, and the followed records.
    pub(super) async fn take_over(&self, term: u64) -> Result<(u64, Records), RequestFailure> {
        let stored = self.reader.read().await?;
        let term = term.max(stored.iter().map(records::term).max().unwrap_or(0) + 1);
        let singles = self.reader.singles(&stored)?;
        // First the head: of two leaders that stamp at a time, one fails here.
        let head = self.stamp(term, self.head_key(), ObjectRole::Head, &stored).await?;
        let chunks = (0..stored.layout.chunks)
            .map(|chunk| self.stamp(term, self.chunk_key(chunk), ObjectRole::Chunk, &stored));
        let chunks: Vec<(String, String)> =
            stream::iter(chunks).buffer_unordered(AT_A_TIME).try_collect().await?;
        let mut written = Written {
            term,
            versions: chunks.into_iter().chain([head]).collect(),
            layout: stored.layout.clone(),
            placement: Placement::default(),
            unsure: BTreeMap::new(),
            unused: Vec::new(),
            serial: 0,
        };
        let mut strays = ChunkChanges::new();
        for chunk in 0..stored.layout.chunks {
            written.placement.grow(chunk + 1);
            let found = stored.get(&self.chunk_key(chunk));
            for (pod, value) in found.map(records::pods).transpose()?.unwrap_or_default() {
                if let Some(older) = written.placement.found(pod, chunk, &value) {
                    strays.entry(older).or_default().insert(pod, None);
                }
            }
        }
        self.write_chunks(&mut written, strays).await?;
        self.remove_unknown(&stored).await;
        *self.written.lock().await = Some(written);
        Ok((term, singles))
    }

    /// Writes in the order of [`Writes`]; see `commit` of the trait.
    pub(super) async fn commit(&self, term: Term, writes: Writes) -> Result<(), StoreError> {
        let mut guard = self.written.lock().await;
        let lost = || StoreError::LeadershipLost(term);
        let written = guard.as_mut().filter(|written| written.term == term.0).ok_or_else(lost)?;
        match self.write(written, writes).await {
            Ok(()) => Ok(()),
            Err(RequestFailure::Failed(error)) => Err(error),
            Err(RequestFailure::Conflict) => {
                *guard = None;
                Err(lost())
            }
        }
    }

    async fn write(&self, written: &mut Written, writes: Writes) -> Result<(), RequestFailure> {
        let (mut pods, mut singles) = (Vec::new(), Vec::new());
        for (record, value) in writes {
            match record {
                RecordKey::Pod(key) => pods.push((key, value)),
                single => singles.push((single, value)),
            }
        }
        let (first, mut moved) = written.placement.divide(pods);
        let orphans = written.leftovers(&mut moved);
        if !first.is_empty() {
            // A pod is never durable before its sequence number, and no chunk before the head knows of it.
            let at = singles.iter().position(|(record, _)| *record == RecordKey::Sequence);
            let sequence = at.map(|at| singles.remove(at));
            if written.placement.chunks() > written.layout.chunks || sequence.is_some() {
                let sequence = sequence.map(|(record, value)| (record, HeadValue::Inline(value)));
                self.write_head(written, sequence.into_iter().collect()).await?;
            }
        }
        for changes in [orphans, first, moved] {
            self.write_chunks(written, changes).await?;
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
        let mut values = Vec::new();
        for (record, value) in singles {
            let value = match value {
                Some(value) if !records::fits_head(&value) => {
                    HeadValue::Large(self.write_parts(written, &records::name(record), &value).await?)
                }
                value => HeadValue::Inline(value),
            };
            values.push((record, value));
        }
        self.write_head(written, values).await?;
        let layout = &written.layout;
        let unused = std::mem::take(&mut written.unused).into_iter();
        for (name, LargeRecord { version, parts }) in
            unused.filter(|(name, large)| layout.large.get(name) != Some(large))
        {
            for part in 0..parts {
                let key = records::part_key(&self.reader.prefix, &name, &version, part);
                if let Ok(Some(object)) = self.requests().get::<ConfigMap>(&object_name(&key)).await {
                    // What stays is removed at the beginning of the next term.
                    let _ = self.requests().delete(&object).await;
                }
            }
        }
        Ok(())
    }

    async fn write_parts(
        &self,
        written: &mut Written,
        name: &str,
        value: &Bytes,
    ) -> Result<LargeRecord, RequestFailure> {
        // No two attempts share their parts' names: after a failure some parts may be there.
        written.serial += 1;
        let version = format!("{}-{}", written.term, written.serial);
        let parts = records::parts(value);
        let large = LargeRecord { version: version.clone(), parts: parts.len() };
        written.unused.push((name.to_owned(), large.clone()));
        for (at, part) in parts.enumerate() {
            let key = records::part_key(&self.reader.prefix, name, &version, at);
            let mut object = records::object(&self.reader.prefix, &key, ObjectRole::Chunk, written.term);
            object.binary_data = Some([(records::PART_NAME.to_owned(), ByteString(part.to_vec()))].into());
            self.requests().put(Operation::Commit, &object).await?;
        }
        Ok(large)
    }

    /// Writes values of the head, with the layout that they make.
    async fn write_head(
        &self,
        written: &mut Written,
        singles: Vec<(RecordKey, HeadValue)>,
    ) -> Result<(), RequestFailure> {
        let (key, term) = (self.head_key(), written.term);
        for _ in 0..ATTEMPTS {
            let version = match written.versions.remove(&key) {
                Some(version) => version,
                None => {
                    let head = self.current(term, &key, ObjectRole::Head, true).await?;
                    written.layout = records::layout(&head)?;
                    head.metadata.resource_version.unwrap_or_default()
                }
            };
            let mut layout = written.layout.clone();
            layout.chunks = layout.chunks.max(written.placement.chunks());
            let mut values = Vec::new();
            for (record, value) in &singles {
                let name = records::name(*record);
                let (inline, before) = match value {
                    HeadValue::Inline(value) => (value.as_ref(), layout.large.remove(&name)),
                    HeadValue::Large(large) => (None, layout.large.insert(name.clone(), large.clone())),
                };
                written.unused.extend(before.map(|before| (name.clone(), before)));
                values.push((name, inline));
            }
            let (name, text) = records::layout_value(&layout);
            values.push((name, Some(&text)));
            let patch = records::patch(&version, term, values);
            match self.requests().patch::<ConfigMap>(&object_name(&key), &patch).await {
                Ok(head) => {
                    written.versions.insert(key, head.metadata.resource_version.unwrap_or_default());
                    written.layout = layout;
                    return Ok(());
                }
                Err(RequestFailure::Conflict) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(RequestFailure::Conflict)
    }

    async fn write_chunks(&self, written: &mut Written, changes: ChunkChanges) -> Result<(), RequestFailure> {
        let term = written.term;
        let writes: Vec<_> = changes
            .iter()
            .map(|(chunk, pods)| {
                let key = self.chunk_key(*chunk);
                let version = written.versions.get(&key).cloned();
                async move { (*chunk, self.write_chunk(term, &key, version, pods).await, key) }
            })
            .collect();
        let done: Vec<_> = stream::iter(writes).buffer_unordered(AT_A_TIME).collect().await;
        let mut failed = None;
        for (chunk, one, key) in done {
            let unsure = written.unsure.entry(chunk).or_default();
            match one {
                Ok(version) => {
                    unsure.retain(|pod| !changes[&chunk].contains_key(pod));
                    written.versions.insert(key, version);
                }
                Err(failure) => {
                    unsure.extend(changes[&chunk].keys().copied());
                    failed = Some(failure);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Writes the pods of one chunk; returns its new version. A chunk that was changed by nobody of another term is read
    /// and written again: a person has edited it, or the answer to our own write was lost.
    async fn write_chunk(
        &self,
        term: u64,
        key: &str,
        mut version: Option<String>,
        pods: &BTreeMap<Key, Option<Bytes>>,
    ) -> Result<String, RequestFailure> {
        let exists = version.is_some();
        for _ in 0..ATTEMPTS {
            let at = match version.take() {
                Some(version) => version,
                None => {
                    let chunk = self.current(term, key, ObjectRole::Chunk, exists).await?;
                    chunk.metadata.resource_version.unwrap_or_default()
                }
            };
            let values = pods.iter().map(|(pod, value)| (pod.to_string(), value.as_ref()));
            let patch = records::patch(&at, term, values);
            match self.requests().patch::<ConfigMap>(&object_name(key), &patch).await {
                Ok(chunk) => return Ok(chunk.metadata.resource_version.unwrap_or_default()),
                Err(RequestFailure::Conflict) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(RequestFailure::Conflict)
    }

    /// The object as it is now; it is made where it is missing, unless it `exists`.
    ///
    /// # Errors
    /// [`RequestFailure::Conflict`] if it is not as this term has left it: another leader has written it, a person has
    /// removed it, or the API server was put back to a backup.
    async fn current(
        &self,
        term: u64,
        key: &str,
        role: ObjectRole,
        exists: bool,
    ) -> Result<ConfigMap, RequestFailure> {
        let found = match self.requests().get::<ConfigMap>(&object_name(key)).await? {
            Some(found) => found,
            None if exists => return Err(RequestFailure::Conflict),
            None => {
                let made = records::object(&self.reader.prefix, key, role, term);
                self.requests().put(Operation::Commit, &made).await?
            }
        };
        if records::term(&found) == term { Ok(found) } else { Err(RequestFailure::Conflict) }
    }

    /// Puts the term on an object exactly as it was read, or makes it. Returns its key and its version.
    async fn stamp(
        &self,
        term: u64,
        key: String,
        role: ObjectRole,
        stored: &StoredObjects,
    ) -> Result<(String, String), RequestFailure> {
        let (prefix, name) = (&self.reader.prefix, object_name(&key));
        let stamped = match stored.get(&key) {
            Some(found) => {
                let version = found.metadata.resource_version.as_deref().unwrap_or_default();
                self.requests().patch::<ConfigMap>(&name, &records::patch(version, term, [])).await?
            }
            None => {
                let made = records::object(prefix, &key, role, term);
                match self.requests().put(Operation::Campaign, &made).await {
                    Err(RequestFailure::Conflict) => return Err(self.taken(&name, role).await?),
                    made => made?,
                }
            }
        };
        Ok((key, stamped.metadata.resource_version.unwrap_or_default()))
    }

    /// Why an object cannot be made although none with our labels has its name.
    async fn taken(&self, name: &str, role: ObjectRole) -> Result<RequestFailure, RequestFailure> {
        let prefix = &self.reader.prefix;
        let found = self.requests().get::<ConfigMap>(name).await?;
        let labels = found.and_then(|found| found.metadata.labels).unwrap_or_default();
        if names::labels(prefix, role).iter().all(|(label, value)| labels.get(label) == Some(value)) {
            return Ok(RequestFailure::Conflict);
        }
        let selector = names::selector(prefix, Some(role));
        Ok(StoreError::Unusable(format!(
            "ConfigMap {name} lacks the labels {selector}: put them back, or remove it if it is another program's"
        ))
        .into())
    }

    /// Removes parts and chunks that no head knows of: what a crash has left.
    async fn remove_unknown(&self, stored: &StoredObjects) {
        let chunks = (0..stored.layout.chunks).map(|chunk| self.chunk_key(chunk));
        let parts = records::part_keys(&self.reader.prefix, &stored.layout);
        let known: BTreeSet<String> = chunks.chain(parts).chain([self.head_key()]).collect();
        for object in
            stored.iter().filter(|object| records::key(object).is_some_and(|key| !known.contains(key)))
        {
            if let Err(error) = self.requests().delete(object).await {
                tracing::debug!(?error, "an unused object stays until the next term");
            }
        }
    }
}
