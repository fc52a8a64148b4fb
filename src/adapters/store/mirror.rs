//! Committed values of the followed records: one watch channel per record, fed by the backend.
//!
//! A pod's record is kept only while it is followed, because a second copy of 50 000 pods would be the largest
//! part of the process's memory.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{RecordKey, layout::SINGLES};

type RecordFeed = watch::Sender<Option<Bytes>>;

/// The followed records.
pub(super) struct Mirror {
    feeds: Mutex<HashMap<RecordKey, RecordFeed>>,
}

impl Mirror {
    pub(super) fn new() -> Self {
        let feeds = SINGLES.into_iter().map(|record| (record, watch::channel(None).0)).collect();
        Self { feeds: Mutex::new(feeds) }
    }

    /// A receiver, and whether the record is newly followed, so that its value must be fetched.
    pub(super) fn follow(&self, record: RecordKey) -> (watch::Receiver<Option<Bytes>>, bool) {
        let mut feeds = self.feeds.lock();
        let fresh = !feeds.contains_key(&record);
        let feed = feeds.entry(record).or_insert_with(|| watch::channel(None).0);
        (feed.subscribe(), fresh)
    }

    /// Publishes a committed value, or one that was read again.
    pub(super) fn set(&self, record: RecordKey, value: Option<Bytes>) {
        if let Some(feed) = self.feeds.lock().get(&record) {
            feed.send_if_modified(|seen| {
                let changed = *seen != value;
                *seen = value;
                changed
            });
        }
    }

    /// The followed records; drops pods without a receiver.
    pub(super) fn followed(&self) -> Vec<RecordKey> {
        let mut feeds = self.feeds.lock();
        feeds.retain(|record, feed| !matches!(record, RecordKey::Pod(_)) || feed.receiver_count() > 0);
        feeds.keys().copied().collect()
    }
}
