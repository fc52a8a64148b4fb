//! What a watch writes into the cache.

use std::collections::HashSet;

use super::{ClusterCache, Origin, State, Stored, WatchFailure, watcher::WatchTask};

impl ClusterCache {
    /// Stores an object that a watch reported, unless time ran backwards since the watch began.
    pub(super) fn take<R: Stored>(&self, task: &WatchTask, world: u64, record: R) {
        self.update(task, world, |state| state.put(task.kind, record, Origin::Watch));
    }

    /// Removes an object that a watch reported as deleted.
    pub(super) fn gone<R: Stored>(&self, task: &WatchTask, world: u64, record: &R) {
        self.update(task, world, |state| state.delete(task.kind, record, Origin::Watch));
    }

    /// Notes the version that a bookmark reported.
    pub(super) fn stands(&self, task: &WatchTask, world: u64, version: u64) {
        self.update(task, world, |state| state.saw(task.kind, version));
    }

    /// Ends a list: objects that are older than `version` and not in `seen` are removed.
    pub(super) fn listed<R: Stored>(
        &self,
        task: &WatchTask,
        world: u64,
        seen: &HashSet<Box<str>>,
        version: u64,
    ) {
        self.update(task, world, |state| {
            state.keep::<R>(task.kind, task.namespace.as_deref(), seen, version);
            if let Some(feed) = state.feeds.get_mut(task.index) {
                (feed.listed, feed.once_listed, feed.trouble) = (true, true, None);
            }
        });
        self.progress.send_modify(|count| *count += 1);
    }

    /// Notes that a watch was resumed without a gap.
    pub(super) fn in_order(&self, task: &WatchTask, world: u64) {
        self.update(task, world, |state| {
            if let Some(feed) = state.feeds.get_mut(task.index) {
                feed.trouble = None;
            }
        });
        self.progress.send_modify(|count| *count += 1);
    }

    /// Notes a failed watch; `missed`: changes may be missing from the cache until the next list.
    pub(super) fn broken(&self, task: &WatchTask, trouble: WatchFailure, missed: bool) {
        self.write(|state| {
            if let Some(feed) = state.feeds.get_mut(task.index) {
                feed.trouble = Some(trouble);
                feed.listed &= !missed;
            }
        });
        self.progress.send_modify(|count| *count += 1);
    }

    /// Applies `change` unless time ran backwards since the watch began.
    fn update(&self, task: &WatchTask, world: u64, change: impl FnOnce(&mut State)) {
        let now = self.clock.now();
        self.write(|state| {
            if state.rewinds != world {
                return;
            }
            change(state);
            if let Some(feed) = state.feeds.get_mut(task.index) {
                feed.heard = now;
            }
        });
    }
}
