//! How each watch is doing: in sync or not, broken or not, and when it was last heard.

use std::time::Duration;

use super::super::{objects::Kind, rights};
use crate::decide::time::Moment;

/// A watch that says nothing for this long, not even where it stands, may be watching a future that never
/// comes: bookmarks arrive every minute.
pub(in super::super) const SILENCE: Duration = Duration::from_secs(120);

/// What is wrong with a watch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {verb} {resource}: {message}")]
pub struct WatchFailure {
    /// What is watched, as RBAC calls it.
    pub resource: &'static str,
    /// What was asked for, as RBAC calls it.
    pub verb: &'static str,
    /// What came of it.
    pub message: String,
}

/// One watch.
pub(in super::super) struct Feed {
    pub(super) kind: Kind,
    /// The cache held all of it once, and nothing was lost since.
    pub(super) listed: bool,
    /// The cache held all of it once.
    pub(super) once_listed: bool,
    pub(super) trouble: Option<WatchFailure>,
    pub(super) heard: Moment,
}

impl Feed {
    pub(super) fn new(kind: Kind, now: Moment) -> Self {
        Self { kind, listed: false, once_listed: false, trouble: None, heard: now }
    }

    /// Why it is not in order.
    pub(super) fn problem(&self) -> Option<WatchFailure> {
        let waiting = || WatchFailure {
            resource: self.kind.resource(),
            verb: "watch",
            message: "the first list is not complete yet".to_owned(),
        };
        self.trouble.clone().or_else(|| (!self.listed).then(waiting))
    }

    /// The verb and resource that the role lacks, if that is its trouble.
    pub(super) fn missing_right(&self) -> Option<String> {
        rights::missing(&self.trouble.as_ref()?.message)
    }

    /// Why nothing may rest on it now.
    pub(super) fn suspicion(&self, now: Moment) -> Option<String> {
        let silent = now.since(self.heard);
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
