//! Follows the selected objects: a list, then a watch from its version, then again from the start after any failure.
//!
//! A watch of Leases that shows nothing for a whole lease, not even our own renewals, is dead: the API server may have
//! been restored from a backup, and accepts a watch from a version that it has not reached.

use std::time::Duration;

use futures::TryStreamExt;
use kube::api::{WatchEvent, WatchParams};
use tokio::sync::mpsc;

use super::requests::{RequestFailure, Requests, StoredObject};
use crate::{
    adapters::store::{Operation, StoreError},
    clock::backoff,
};

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Seconds after which the API server ends a watch.
const WATCH_SECONDS: u32 = 290;

/// What is seen of the objects.
pub(super) enum FeedEvent<K> {
    /// All of them.
    Listed(Vec<K>),
    /// One was made or changed.
    Changed(K),
    /// One was deleted.
    Deleted(K),
    /// They cannot be seen now.
    Failed(StoreError),
}

/// Sends what it sees into `events` until nobody receives. A watch may be silent for `silence`; `None`: for ever.
pub(super) async fn follow<K: StoredObject>(
    requests: Requests,
    selector: String,
    silence: Option<Duration>,
    events: mpsc::UnboundedSender<FeedEvent<K>>,
) {
    let pauses = || backoff(Duration::from_millis(50), LONGEST_PAUSE);
    let mut delays = pauses();
    loop {
        match round(&requests, &selector, silence, &events).await {
            Ok(()) => delays = pauses(),
            Err(refusal) => {
                if events.send(FeedEvent::Failed(refusal.into())).is_err() {
                    return;
                }
                tokio::time::sleep(delays.next().unwrap_or(LONGEST_PAUSE)).await;
            }
        }
        if events.is_closed() {
            return;
        }
    }
}

/// One list and one watch, until its end.
async fn round<K: StoredObject>(
    requests: &Requests,
    selector: &str,
    silence: Option<Duration>,
    events: &mpsc::UnboundedSender<FeedEvent<K>>,
) -> Result<(), RequestFailure> {
    let (listed, version) = requests.list::<K>(selector).await?;
    let _ = events.send(FeedEvent::Listed(listed));
    let parameters = WatchParams::default().labels(selector).timeout(WATCH_SECONDS).disable_bookmarks();
    let api = requests.api::<K>();
    let stream = requests.ask::<K, _>("watch", Operation::Follow, api.watch(&parameters, &version)).await?;
    let mut stream = std::pin::pin!(stream);
    loop {
        let next = match silence {
            Some(silence) => match tokio::time::timeout(silence, stream.try_next()).await {
                Ok(next) => next,
                Err(_) => return Ok(()),
            },
            None => stream.try_next().await,
        };
        let event = match next.map_err(|error| requests.explain("watch", K::PLURAL, error))? {
            Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => FeedEvent::Changed(object),
            Some(WatchEvent::Deleted(object)) => FeedEvent::Deleted(object),
            Some(WatchEvent::Bookmark(_)) => continue,
            // The version is no longer kept, or the server ended the watch: list again.
            Some(WatchEvent::Error(_)) | None => return Ok(()),
        };
        if events.send(event).is_err() {
            return Ok(());
        }
    }
}
