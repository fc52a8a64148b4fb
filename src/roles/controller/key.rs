//! The key of a resource.

use crate::adapters::kubernetes::objects::ResourceRecord;

/// Namespace and name.
pub(super) type ResourceKey = (String, String);

pub(super) fn of(resource: &ResourceRecord) -> ResourceKey {
    (resource.namespace.to_string(), resource.name.to_string())
}
