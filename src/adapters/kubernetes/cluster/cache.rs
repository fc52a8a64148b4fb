//! The shared caches, as the watches write them.
//!
//! Every write names the rewind count that its data was read under, so that nothing read before a rewind is
//! stored after it.

use std::collections::HashSet;

use kube::Client;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::{broadcast, watch};

use super::{
    super::objects::Kind,
    feed::WatchFailure,
    state::{ClusterChange, Mark, Origin, State, Stored},
    watcher::WatchTask,
};
use crate::clock::Clock;

/// Changes that are buffered for a slow receiver; one that falls further behind gets `Lagged`.
const BACKLOG: usize = 4096;

/// The caches, and what else all handles and watches share.
pub(in super::super) struct ClusterCache {
    pub(in super::super) client: Client,
    pub(super) clock: Clock,
    state: RwLock<State>,
    pub(super) changes: broadcast::Sender<ClusterChange>,
    /// Rises when a watch gets into sync or fails.
    pub(super) progress: watch::Sender<u64>,
    /// The rewind count: each watch starts anew when it rises.
    rewinds: watch::Sender<u64>,
}

impl ClusterCache {
    pub(super) fn new(client: Client, clock: Clock) -> Self {
        Self {
            client,
            clock,
            state: RwLock::default(),
            changes: broadcast::Sender::new(BACKLOG),
            progress: watch::Sender::new(0),
            rewinds: watch::Sender::new(0),
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// Changes the state and publishes what has changed.
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.write();
        let result = change(&mut state);
        // Under the lock, so that changes are published in the order in which they happened.
        for change in state.pending_changes.drain(..) {
            let _no_receiver = self.changes.send(change);
        }
        result
    }

    pub(in super::super) fn rewinds(&self) -> watch::Receiver<u64> {
        self.rewinds.subscribe()
    }

    pub(in super::super) fn mark(&self, kind: Kind) -> Mark {
        self.read().mark(kind)
    }

    /// Whether no rewind happened since `mark`; a `version` below it is one.
    pub(in super::super) fn check_version(&self, what: &str, version: u64, mark: Mark) -> bool {
        if version < mark.highest {
            let why = format!("{what} is at version {version}, and {} was seen before", mark.highest);
            self.rewind(&why, mark.rewinds);
        }
        self.is_current(mark)
    }

    /// Whether no rewind happened since `mark`.
    pub(super) fn is_current(&self, mark: Mark) -> bool {
        self.read().rewinds == mark.rewinds
    }

    /// Drops all caches and restarts all watches, unless that was done since `rewinds`.
    fn rewind(&self, why: &str, rewinds: u64) {
        let now = self.clock.now();
        let rewound = self.write(|state| {
            (state.rewinds == rewinds).then(|| {
                state.rewind(now);
                state.rewinds
            })
        });
        let Some(rewinds) = rewound else { return };
        tracing::warn!(why, "time ran backwards in the cluster: all caches are dropped and read anew");
        self.rewinds.send_replace(rewinds);
        self.progressed();
    }

    /// The watch has sent this object.
    pub(super) fn applied<R: Stored>(&self, task: &WatchTask, rewinds: u64, record: R) {
        self.update(task, rewinds, |state| state.put(task.kind, record, Origin::Watch));
    }

    /// The watch has sent the deletion of this object.
    pub(super) fn deleted<R: Stored>(&self, task: &WatchTask, rewinds: u64, record: &R) {
        self.update(task, rewinds, |state| state.delete(task.kind, record, Origin::Watch));
    }

    /// The watch has sent a bookmark.
    pub(super) fn bookmarked(&self, task: &WatchTask, rewinds: u64, version: u64) {
        self.update(task, rewinds, |state| state.saw(task.kind, version));
    }

    /// The list is complete: older objects whose UID is not in `seen` were deleted.
    pub(super) fn listed<R: Stored>(
        &self,
        task: &WatchTask,
        rewinds: u64,
        seen: &HashSet<Box<str>>,
        version: u64,
    ) {
        self.update(task, rewinds, |state| {
            state.keep::<R>(task.kind, task.namespace.as_deref(), seen, version);
            state.feed(task.index, |feed| (feed.listed, feed.ever_listed, feed.failure) = (true, true, None));
        });
        self.progressed();
    }

    /// The watch goes on from its last version.
    pub(super) fn resumed(&self, task: &WatchTask, rewinds: u64) {
        self.update(task, rewinds, |state| state.feed(task.index, |feed| feed.failure = None));
        self.progressed();
    }

    /// The watch failed; if it `missed` changes, the cache is incomplete until the next list.
    pub(super) fn failed(&self, task: &WatchTask, failure: WatchFailure, missed: bool) {
        self.write(|state| {
            state.feed(task.index, |feed| {
                feed.failure = Some(failure);
                feed.listed &= !missed;
            });
        });
        self.progressed();
    }

    /// Applies `change` unless a rewind happened since the data was read.
    fn update(&self, task: &WatchTask, rewinds: u64, change: impl FnOnce(&mut State)) {
        let now = self.clock.now();
        self.write(|state| {
            if state.rewinds == rewinds {
                change(state);
                state.feed(task.index, |feed| feed.last_event = now);
            }
        });
    }

    fn progressed(&self) {
        self.progress.send_modify(|count| *count += 1);
    }
}
