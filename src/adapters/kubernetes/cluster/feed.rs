//! The health of each watch: in sync or not, its last failure, and when it last received anything.

use std::time::Duration;

use super::super::{
    objects::{Kind, SharedText},
    rights,
};
use crate::decide::time::Moment;

/// Longest time without an event or bookmark: bookmarks arrive every minute, except on a watch from a version that the API
/// server, restored from a backup, has not reached.
pub(in super::super) const SILENCE: Duration = Duration::from_secs(120);

/// Why a watch is not in sync.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {verb} {resource}: {message}")]
pub struct WatchFailure {
    /// The plural resource name, as in RBAC.
    pub resource: &'static str,
    /// The verb, as in RBAC.
    pub verb: &'static str,
    /// The cause.
    pub message: String,
}

/// The health of one watch.
pub(in super::super) struct Feed {
    pub(super) kind: Kind,
    /// The namespace that it covers; `None`: all.
    pub(super) namespace: Option<SharedText>,
    /// The cache is complete: all was listed, and no change was missed since.
    pub(super) listed: bool,
    /// The cache was complete once since the start.
    pub(super) ever_listed: bool,
    pub(super) failure: Option<WatchFailure>,
    pub(super) last_event: Moment,
}

impl Feed {
    pub(super) fn new(kind: Kind, namespace: Option<SharedText>, now: Moment) -> Self {
        Self { kind, namespace, listed: false, ever_listed: false, failure: None, last_event: now }
    }

    /// Whether it covers this namespace.
    pub(super) fn covers(&self, namespace: &str) -> bool {
        self.namespace.as_ref().is_none_or(|own| **own == *namespace)
    }

    /// Why it is not in sync.
    pub(super) fn problem(&self) -> Option<WatchFailure> {
        let waiting = || WatchFailure {
            resource: self.kind.resource(),
            verb: "watch",
            message: "the first list is not complete yet".to_owned(),
        };
        self.failure.clone().or_else(|| (!self.listed).then(waiting))
    }

    /// The verb and resource that are forbidden, if that is its failure.
    pub(super) fn missing_right(&self) -> Option<String> {
        rights::missing(&self.failure.as_ref()?.message)
    }

    /// Why its cache cannot be trusted.
    pub(super) fn suspicion(&self, now: Moment) -> Option<String> {
        let silent = now.since(self.last_event);
        match self.problem() {
            Some(problem) => Some(problem.to_string()),
            None if silent > SILENCE => Some(format!(
                "the watch of {} was silent for {} s, without even a bookmark",
                self.kind.resource(),
                silent.as_secs()
            )),
            None => None,
        }
    }
}
