//! Follows the selected objects: a list, then a watch from its version, then again from the start after any failure.
//!
//! A watch that shows nothing for long is dead: its connection may be gone without an end, and an API server that was
//! restored from a backup accepts a watch from a version that it has not reached.

use std::time::Duration;

use futures::TryStreamExt;
use kube::api::{WatchEvent, WatchParams};
use tokio::sync::mpsc;

use super::requests::{RequestFailure, Requests, StoredObject};
use crate::{
    adapters::store::{Operation, StoreError},
    clock::backoff,
};

/// Seconds after which the API server ends a watch.
const WATCH_SECONDS: u32 = 290;

/// What is seen of the objects.
pub(super) enum FeedEvent<K> {
    /// All of them.
    Listed(Vec<K>),
    /// What follows is seen.
    Watching,
    /// One was made or changed.
    Changed(K),
    /// One was deleted.
    Deleted(K),
    /// They cannot be seen now.
    Failed(StoreError),
}

/// How long a feed waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct FeedTimes {
    /// A watch that shows nothing for so long is dead; bookmarks break the silence too.
    pub(super) silence: Duration,
    /// Longest pause between two attempts.
    pub(super) pause: Duration,
}

/// Sends what it sees into `events` until nobody receives.
pub(super) async fn follow<K: StoredObject>(
    requests: Requests,
    selector: String,
    times: FeedTimes,
    events: mpsc::UnboundedSender<FeedEvent<K>>,
) {
    let pauses = || backoff(Duration::from_millis(50), times.pause);
    let mut delays = pauses();
    loop {
        match round(&requests, &selector, times.silence, &events).await {
            Ok(()) => delays = pauses(),
            Err(failure) => drop(events.send(FeedEvent::Failed(failure.into()))),
        }
        if events.is_closed() {
            return;
        }
        tokio::time::sleep(delays.next().unwrap_or(times.pause)).await;
    }
}

/// One list and one watch, until its end.
async fn round<K: StoredObject>(
    requests: &Requests,
    selector: &str,
    silence: Duration,
    events: &mpsc::UnboundedSender<FeedEvent<K>>,
) -> Result<(), RequestFailure> {
    let (listed, version) = requests.list::<K>(selector).await?;
    let _ = events.send(FeedEvent::Listed(listed));
    let parameters = WatchParams::default().labels(selector).timeout(WATCH_SECONDS);
    let api = requests.api::<K>();
    let stream = requests.ask::<K, _>("watch", Operation::Follow, api.watch(&parameters, &version)).await?;
    let mut stream = std::pin::pin!(stream);
    let _ = events.send(FeedEvent::Watching);
    loop {
        let Ok(next) = tokio::time::timeout(silence, stream.try_next()).await else { return Ok(()) };
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::{StreamExt, stream};
    use http_body_util::StreamBody;
    use hyper::{Request, Response, body::Frame};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::client::{Body, Client};
    use tokio::time::Instant;
    use tower::BoxError;

    use super::*;
    use crate::adapters::store::StoreMetrics;

    const TIMES: FeedTimes = FeedTimes { silence: Duration::from_secs(150), pause: Duration::from_secs(1) };

    const LIST: &[u8] =
        br#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}"#;

    /// An API server that lists nothing, and whose watches stay open without a word.
    fn silent_api_server() -> Requests {
        let answer = move |request: Request<Body>| async move {
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let body = match is_watch {
                true => StreamBody::new(stream::pending().boxed()),
                false => StreamBody::new(
                    stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(LIST)))]).boxed(),
                ),
            };
            Ok::<_, BoxError>(Response::new(body))
        };
        Requests {
            client: Client::new(tower::service_fn(answer), "default"),
            namespace: "default".to_owned(),
            deadline: Duration::from_secs(5),
            metrics: StoreMetrics::register(&mut prometheus_client::registry::Registry::default()),
        }
    }

    /// The moments of the first lists.
    async fn lists(requests: Requests) -> (Duration, Duration) {
        let (sender, mut events) = mpsc::unbounded_channel();
        let feed = tokio::spawn(follow::<ConfigMap>(requests, String::new(), TIMES, sender));
        let (began, mut seen) = (Instant::now(), Vec::new());
        while seen.len() < 2 {
            match events.recv().await.unwrap() {
                FeedEvent::Listed(_) => seen.push(began.elapsed()),
                FeedEvent::Watching | FeedEvent::Changed(_) => {}
                FeedEvent::Deleted(_) => panic!("nothing was deleted"),
                FeedEvent::Failed(error) => panic!("{error}"),
            }
        }
        feed.abort();
        (seen[0], seen[1])
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_shows_nothing_is_dead_and_the_objects_are_listed_again() {
        let (first, second) = lists(silent_api_server()).await;
        assert!(first < Duration::from_secs(1), "{first:?}");
        assert!(second >= TIMES.silence && second < TIMES.silence + TIMES.pause, "{second:?}");
    }
}
