//! Committed values of the followed records: one watch channel per record, fed by the backend.
//!
//! Pods are not followed, because a second copy of 50 000 pods would be the largest part of the process's memory.

use bytes::Bytes;
use tokio::sync::watch;

use super::{RecordKey, layout::SINGLES};

/// The followed records.
pub(super) struct Mirror {
    feeds: [watch::Sender<Option<Bytes>>; SINGLES.len()],
}

impl Mirror {
    pub(super) fn new() -> Self {
        Self { feeds: SINGLES.map(|_| watch::channel(None).0) }
    }

    pub(super) fn follow(&self, record: RecordKey) -> watch::Receiver<Option<Bytes>> {
        self.feed(record).map_or_else(|| watch::channel(None).1, watch::Sender::subscribe)
    }

    /// Publishes a committed value, or one that was read again.
    pub(super) fn set(&self, record: RecordKey, value: Option<Bytes>) {
        let Some(feed) = self.feed(record) else { return };
        feed.send_if_modified(|seen| {
            let changed = *seen != value;
            *seen = value;
            changed
        });
    }

    fn feed(&self, record: RecordKey) -> Option<&watch::Sender<Option<Bytes>>> {
        SINGLES.iter().zip(&self.feeds).find(|(single, _)| **single == record).map(|(_, feed)| feed)
    }
}
