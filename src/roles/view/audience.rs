//! Which namespaces the reader of a page may see.

use std::collections::BTreeSet;

/// The reader's rights, for one request.
#[derive(Clone, Debug)]
pub(super) enum Audience {
    /// Whoever reaches the loopback address, or may read the resources of all namespaces.
    Everything,
    /// Those who may `get` the resources of these namespaces.
    Namespaces(BTreeSet<String>),
}

impl Audience {
    pub(super) fn sees(&self, namespace: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Namespaces(namespaces) => namespaces.contains(namespace),
        }
    }

    /// What belongs to no namespace: the ensemble, the members, the process's own alarms.
    pub(super) fn sees_the_process(&self) -> bool {
        matches!(self, Self::Everything)
    }
}
