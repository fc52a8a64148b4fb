//! The key of a resource.

use crate::adapters::kubernetes::objects::ResourceRecord;

/// Namespace and name.
pub(super) type Key = (String, String);

pub(super) fn of(resource: &ResourceRecord) -> Key {
    (resource.namespace.to_string(), resource.name.to_string())
}
