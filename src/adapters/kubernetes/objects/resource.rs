//! Our own resource, whole: its spec is read by [`crate::api`], its status is the ledger.

use std::sync::Arc;

use serde::{Deserialize, de::Error as _};
use serde_json::Value;

use super::{SharedText, meta::Meta};
use crate::decide::time::Timestamp;

/// A KubervisorService.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct ResourceRecord {
    /// Where it is.
    pub namespace: SharedText,
    /// Its name there.
    pub name: Arc<str>,
    /// Its identity.
    pub uid: SharedText,
    /// Its resourceVersion.
    pub version: u64,
    /// Rises with every change of its spec.
    pub generation: i64,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// It is to be deleted once its finalizers are gone.
    pub deleting: bool,
    /// What must happen first.
    pub finalizers: Box<[Box<str>]>,
    /// All of it but `managedFields`.
    pub object: Arc<Value>,
}

impl ResourceRecord {
    /// A resource as the answer to a GET or a write has it.
    ///
    /// # Errors
    /// When it is no object of the API.
    pub fn decode(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// As [`ResourceRecord::decode`], of a value.
    ///
    /// # Errors
    /// When it is no object of the API.
    pub fn from_value(object: Value) -> Result<Self, serde_json::Error> {
        Self::try_from(object)
    }
}

impl TryFrom<Value> for ResourceRecord {
    type Error = serde_json::Error;

    fn try_from(mut object: Value) -> Result<Self, serde_json::Error> {
        let metadata = object.get_mut("metadata").ok_or_else(|| Self::Error::missing_field("metadata"))?;
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.remove("managedFields");
        }
        let meta = Meta::deserialize(&*metadata)?;
        Ok(Self {
            namespace: meta.namespace,
            name: meta.name,
            uid: meta.uid,
            version: meta.resource_version,
            generation: meta.generation.unwrap_or(0),
            created: meta.creation_timestamp,
            deleting: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.into_iter().flatten().map(String::into_boxed_str).collect(),
            object: Arc::new(object),
        })
    }
}
