//! A KubervisorService as stored: [`crate::api`] decodes its spec, and its status holds the ledger.

use std::sync::Arc;

use serde::{Deserialize, de::Error as _};
use serde_json::Value;

use super::{SharedText, meta::Meta};
use crate::decide::time::Timestamp;

/// A KubervisorService.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct ResourceRecord {
    pub(crate) namespace: SharedText,
    pub(crate) name: Arc<str>,
    pub(crate) uid: SharedText,
    pub(crate) version: u64,
    /// `metadata.generation`: rises with every change of the spec.
    pub generation: i64,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// It is being deleted and waits for its finalizers.
    pub deleting: bool,
    /// `metadata.finalizers`.
    pub finalizers: Box<[Box<str>]>,
    /// The whole object without `managedFields`.
    pub object: Arc<Value>,
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
