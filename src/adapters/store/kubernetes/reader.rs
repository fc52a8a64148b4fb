//! Reads the records, as a leader at the beginning of its term and as a follower.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::{
    leases::{check_schema, name_of},
    names::{object_name, selector},
    records::{self, LargeRecord, Layout},
    requests::Requests,
};
use crate::adapters::store::{RecordKey, Records, StoreError, layout::SINGLES};

/// Reads the records of one prefix.
#[derive(Clone)]
pub(super) struct RecordReader {
    pub(super) requests: Requests,
    pub(super) prefix: String,
}

/// All objects of the prefix at one revision.
pub(super) struct StoredObjects {
    pub(super) layout: Layout,
    by_name: BTreeMap<String, ConfigMap>,
}

impl StoredObjects {
    /// The object with this key.
    pub(super) fn get(&self, key: &str) -> Option<&ConfigMap> {
        self.by_name.get(&object_name(key))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ConfigMap> {
        self.by_name.values()
    }
}

impl RecordReader {
    /// Reads all objects, at one revision.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if one has a newer schema.
    pub(super) async fn read(&self) -> Result<StoredObjects, StoreError> {
        let (objects, _) = self.requests.list::<ConfigMap>(&selector(&self.prefix, None)).await?;
        // A copy under another name, such as a person's backup, is none of them.
        let named_by_key = |object: &ConfigMap| {
            records::key(object).is_none_or(|key| object_name(key) == name_of(&object.metadata))
        };
        let ours = objects.into_iter().filter(named_by_key);
        let by_name: BTreeMap<String, ConfigMap> =
            ours.map(|object| (name_of(&object.metadata).to_owned(), object)).collect();
        by_name.values().try_for_each(|map| check_schema("ConfigMap", &map.metadata))?;
        let head = by_name.get(&object_name(&records::head_key(&self.prefix)));
        let layout = head.map(records::layout).transpose()?.unwrap_or_default();
        Ok(StoredObjects { layout, by_name })
    }

    /// All records, as stored at one moment.
    pub(super) async fn load(&self) -> Result<Records, StoreError> {
        let stored = self.read().await?;
        let mut all = self.singles(&stored)?;
        for chunk in 0..stored.layout.chunks {
            let found = stored.get(&records::chunk_key(&self.prefix, chunk));
            // Of two copies of a pod the one in the later chunk counts.
            let pods = found.map(records::pods).transpose()?.unwrap_or_default();
            all.extend(pods.into_iter().map(|(key, value)| (RecordKey::Pod(key), value)));
        }
        Ok(all)
    }

    /// The records that exist once.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if a part of one is missing: all objects are of one revision.
    pub(super) fn singles(&self, stored: &StoredObjects) -> Result<Records, StoreError> {
        let Some(head) = stored.get(&records::head_key(&self.prefix)) else { return Ok(Records::new()) };
        self.join(head, |key| stored.get(key)).map_err(|missing| {
            StoreError::Unusable(format!(
                "{missing}; put it back from a backup, or delete all ConfigMaps with the labels {} to begin with nothing",
                selector(&self.prefix, None)
            ))
        })
    }

    /// The records that a head holds, with the parts that it knows of.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if a part is missing while the next version is written: its head comes next.
    pub(super) async fn followed(&self, head: &ConfigMap) -> Result<Records, StoreError> {
        check_schema("ConfigMap", &head.metadata)?;
        let mut parts = BTreeMap::new();
        for key in records::part_keys(&self.prefix, &records::layout(head)?) {
            let found = self.requests.get::<ConfigMap>(&object_name(&key)).await?;
            parts.extend(found.map(|found| (key, found)));
        }
        self.join(head, |key| parts.get(key)).map_err(StoreError::Unavailable)
    }

    /// The records of a head; an error names a missing part.
    fn join<'a>(
        &self,
        head: &ConfigMap,
        part_of: impl Fn(&str) -> Option<&'a ConfigMap>,
    ) -> Result<Records, String> {
        let layout = records::layout(head).map_err(|error| error.to_string())?;
        let values = records::values(head);
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
                let value =
                    part_of(&key).and_then(|object| records::values(object).remove(records::PART_NAME));
                let missing = || {
                    format!(
                        "Kubernetes: ConfigMap {}, part {part} of the record {name}, is missing",
                        object_name(&key)
                    )
                };
                whole.extend_from_slice(&value.ok_or_else(missing)?);
            }
            found.insert(record, whole.into());
        }
        Ok(found)
    }
}
