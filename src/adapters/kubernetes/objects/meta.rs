//! `metadata`, with only our own annotations.

use std::{collections::BTreeMap, sync::Arc};

use prost::Message;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, Unexpected},
};

use super::{Labels, SharedText};
use crate::{api::keys, decide::time::Timestamp};

/// The controlling owner of an object, which replaces it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerRef {
    /// Its group and version, such as `apps/v1`.
    pub api_version: SharedText,
    /// Its kind, such as `ReplicaSet`.
    pub kind: SharedText,
    /// Its name, in the namespace of what it owns.
    pub name: SharedText,
    /// Its UID.
    pub uid: SharedText,
}

impl OwnerRef {
    /// The API group; empty for the core.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Whether it is of this kind of the group `apps`.
    pub fn is_apps(&self, kind: &str) -> bool {
        self.group() == "apps" && &*self.kind == kind
    }
}

/// The kept fields of `metadata`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    #[serde(default)]
    pub(super) namespace: SharedText,
    pub(super) name: Arc<str>,
    pub(super) uid: SharedText,
    #[serde(deserialize_with = "version")]
    pub(super) resource_version: u64,
    pub(super) generation: Option<i64>,
    #[serde(default, deserialize_with = "time")]
    pub(super) creation_timestamp: Option<Timestamp>,
    pub(super) deletion_timestamp: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) labels: Labels,
    #[serde(default)]
    pub(super) annotations: Annotations,
    pub(super) owner_references: Option<Vec<Reference>>,
    pub(super) finalizers: Option<Vec<String>>,
}

impl Meta {
    pub(super) fn controller(&mut self) -> Option<OwnerRef> {
        let owners = self.owner_references.take().unwrap_or_default();
        let owner = owners.into_iter().find(|owner| owner.controller == Some(true))?;
        let [api_version, kind, name, uid] = [owner.api_version, owner.kind, owner.name, owner.uid]
            .map(|text| SharedText::from(text.as_str()));
        Some(OwnerRef { api_version, kind, name, uid })
    }
}

#[derive(Message, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reference {
    #[prost(string, tag = "5")]
    api_version: String,
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    uid: String,
    #[prost(bool, optional, tag = "6")]
    controller: Option<bool>,
}

/// A resourceVersion as a number; of two, the greater is newer.
pub(super) fn version<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = || D::Error::invalid_value(Unexpected::Str(&text), &"a resourceVersion that is a number");
    text.parse().map_err(|_| wrong())
}

/// A malformed time is `None`; it is only used to order pods that are equal otherwise.
fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let parsed = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    Ok(parsed.map(|time| Timestamp::from_unix_millis(time.as_millisecond())))
}

/// Our annotations as stored, and whether the object has any, which a JSON Patch must know.
#[derive(Default)]
pub(super) struct Annotations {
    pub(super) any: bool,
    pub(super) fence: Option<Box<str>>,
    pub(super) break_at: Option<Box<str>>,
    pub(super) retry_count: Option<Box<str>>,
    pub(super) admitted_at: Option<Box<str>>,
    pub(super) deletion_cost: Option<Box<str>>,
}

impl FromIterator<(String, String)> for Annotations {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(all: I) -> Self {
        let mut annotations = Self::default();
        for (key, value) in all {
            annotations.any = true;
            let slot = match key.as_str() {
                keys::FENCE => &mut annotations.fence,
                keys::BREAK_AT => &mut annotations.break_at,
                keys::RETRY_COUNT => &mut annotations.retry_count,
                keys::ADMITTED_AT => &mut annotations.admitted_at,
                keys::DELETION_COST => &mut annotations.deletion_cost,
                _ => continue,
            };
            *slot = Some(value.into());
        }
        annotations
    }
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let all = Option::<BTreeMap<String, String>>::deserialize(from)?;
        Ok(all.unwrap_or_default().into_iter().collect())
    }
}
