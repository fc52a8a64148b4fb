//! One watch: lists a kind of objects, follows their changes, and lists again when it must.
//!
//! This is not kube-runtime's watcher, which hides bookmarks. Bookmarks tell a quiet cluster from a dead watch: an API server
//! that was restored from a backup accepts a watch from a version that it has not reached and sends nothing. So before a
//! watch resumes, a LIST of one object must show that the server has reached its version, and a watch that was silent for
//! two minutes lists again.

use std::{collections::HashSet, pin::pin, sync::Arc, time::Duration};

use backon::ExponentialBackoff;
use futures::{Stream, TryStreamExt};
use kube::{
    api::{ListParams, WatchEvent, WatchParams},
    core::{Request, response::Status},
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    super::objects::{Kind, SharedText},
    ClusterCache, ListError, Mark, SILENCE, Stored, WatchFailure,
};
use crate::clock;

/// The annotation of the bookmark that ends the initial list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// Longest pause between two attempts: a fleet below its floor must be seen and restored within 10 s.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// For the head of a response, and between two objects of a list.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// After a 429 without `retryAfterSeconds`.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Seconds after which the API server ends a watch; up to 21 more are added, so that not all end at once.
const WATCH_SECONDS: u32 = 270;

/// What one watch covers.
pub(super) struct WatchTask {
    pub(super) shared: Arc<ClusterCache>,
    pub(super) kind: Kind,
    pub(super) namespace: Option<SharedText>,
    /// The index of its feed.
    pub(super) index: usize,
    pub(super) stop: CancellationToken,
}

/// Why a round ended.
enum WatchEnd {
    /// The API server ended it after its timeout.
    Regular,
    /// The version is no longer kept by the API server (410).
    Expired,
    /// The API server does not support streaming lists.
    NoStreaming,
    /// Versions ran backwards; the caches were dropped.
    Rewound,
    Failed {
        verb: &'static str,
        message: String,
        wait: Option<Duration>,
    },
}

/// The position of a watch.
struct WatchState {
    /// The rewind count that it reads under.
    rewinds: u64,
    /// The version to resume from; `None`: everything is listed.
    version: Option<u64>,
    /// Lists are requested as events.
    streaming: bool,
    backoff: ExponentialBackoff,
}

fn backoff() -> ExponentialBackoff {
    clock::backoff(Duration::from_millis(200), MAX_BACKOFF)
}

/// Keeps the cache of one kind up to date until `task.stop`.
pub(super) async fn keep<R: Stored>(task: WatchTask) {
    let mut rewound = task.shared.rewinds();
    let mut state = WatchState { rewinds: 0, version: None, streaming: true, backoff: backoff() };
    loop {
        let now = *rewound.borrow_and_update();
        if now != state.rewinds {
            (state.rewinds, state.version) = (now, None);
        }
        let end = tokio::select! {
            () = task.stop.cancelled() => return,
            _ = rewound.changed() => WatchEnd::Rewound,
            end = round::<R>(&task, &mut state) => end,
        };
        let pause = task.after(end, &mut state);
        tokio::select! {
            () = task.stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Lists or resumes, then follows until the watch ends.
async fn round<R: Stored>(task: &WatchTask, state: &mut WatchState) -> WatchEnd {
    let result = match state.version {
        Some(version) => resume::<R>(task, state, version).await,
        None if state.streaming => stream_list::<R>(task, state).await,
        None => page_list::<R>(task, state).await,
    };
    result.err().unwrap_or(WatchEnd::Regular)
}

/// Lists as events and follows the changes, in one response.
async fn stream_list<R: Stored>(task: &WatchTask, state: &mut WatchState) -> Result<(), WatchEnd> {
    let mark = task.shared.mark(task.kind);
    let parameters = WatchParams::streaming_lists().timeout(task.watch_seconds());
    let mut events = pin!(task.events::<R>(parameters, "").await?);
    let mut seen = HashSet::new();
    loop {
        // An API server without streaming lists sends objects, but not the bookmark that ends the list.
        let event = timeout(REQUEST_TIMEOUT, events.try_next()).await.map_err(|_| WatchEnd::NoStreaming)?;
        match event.map_err(|error| failed("watch", &error))? {
            Some(WatchEvent::Added(record) | WatchEvent::Modified(record)) => {
                seen.insert(record.uid().into());
                task.shared.applied(task, state.rewinds, record);
            }
            Some(WatchEvent::Deleted(record)) => {
                seen.remove(record.uid());
                task.shared.deleted(task, state.rewinds, &record);
            }
            Some(WatchEvent::Bookmark(at)) if at.metadata.annotations.contains_key(INITIAL_EVENTS_END) => {
                let version = parse(&at.metadata.resource_version)?;
                task.check_version(version, mark)?;
                task.shared.listed::<R>(task, state.rewinds, &seen, version);
                (state.version, state.backoff) = (Some(version), backoff());
                return follow(task, state, events, version).await;
            }
            Some(WatchEvent::Bookmark(_)) => {}
            Some(WatchEvent::Error(status)) => return Err(rejected("watch", &status)),
            None => return Err(WatchEnd::failed("watch", "the list ended early")),
        }
    }
}

/// Lists page by page; the next round follows the changes.
async fn page_list<R: Stored>(task: &WatchTask, state: &mut WatchState) -> Result<(), WatchEnd> {
    let mut seen = HashSet::new();
    let listed = task.shared.list::<R>(task.kind, task.namespace.as_deref(), ListParams::default()).await;
    let (records, version) = listed.map_err(list_failed)?;
    for record in records {
        seen.insert(record.uid().into());
        task.shared.applied(task, state.rewinds, record);
    }
    task.shared.listed::<R>(task, state.rewinds, &seen, version);
    (state.version, state.backoff) = (Some(version), backoff());
    Ok(())
}

/// Follows the changes since `version`.
async fn resume<R: Stored>(task: &WatchTask, state: &mut WatchState, version: u64) -> Result<(), WatchEnd> {
    // Fails if the API server has not reached `version`, which a watch would not show.
    let one = ListParams::default().limit(1);
    task.shared.page::<R>(task.kind, task.namespace.as_deref(), &one).await.map_err(list_failed)?;
    let events =
        task.events::<R>(WatchParams::default().timeout(task.watch_seconds()), &version.to_string()).await?;
    task.shared.resumed(task, state.rewinds);
    follow(task, state, events, version).await
}

/// Applies the events of a watch, which began at version `from`, until it ends.
async fn follow<R: Stored>(
    task: &WatchTask,
    state: &mut WatchState,
    events: impl Stream<Item = Result<WatchEvent<R>, kube::Error>>,
    from: u64,
) -> Result<(), WatchEnd> {
    let mut events = pin!(events);
    let (mut any_event, mark) = (false, Mark { rewinds: state.rewinds, highest: from });
    loop {
        let Ok(event) = timeout(SILENCE, events.try_next()).await else {
            state.version = None;
            return Err(WatchEnd::failed("watch", "neither an event nor a bookmark for two minutes"));
        };
        let version = match event.map_err(|error| failed("watch", &error))? {
            Some(WatchEvent::Added(record) | WatchEvent::Modified(record)) => {
                let version = record.version();
                task.check_version(version, mark)?;
                task.shared.applied(task, state.rewinds, record);
                version
            }
            Some(WatchEvent::Deleted(record)) => {
                task.shared.deleted(task, state.rewinds, &record);
                record.version()
            }
            Some(WatchEvent::Bookmark(at)) => {
                let version = parse(&at.metadata.resource_version)?;
                task.check_version(version, mark)?;
                task.shared.bookmarked(task, state.rewinds, version);
                version
            }
            Some(WatchEvent::Error(status)) => return Err(rejected("watch", &status)),
            None if any_event => return Ok(()),
            None => return Err(WatchEnd::failed("watch", "it ended before its first event")),
        };
        if !any_event {
            (any_event, state.backoff) = (true, backoff());
        }
        state.version = state.version.max(Some(version));
    }
}

impl WatchTask {
    fn watch_seconds(&self) -> u32 {
        WATCH_SECONDS + u32::try_from(self.index).unwrap_or(0) % 8 * 3
    }

    async fn events<R: Stored>(
        &self,
        parameters: WatchParams,
        version: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<R>, kube::Error>> + use<R>, WatchEnd> {
        let path = self.kind.path(self.namespace.as_deref());
        let request = Request::new(path).watch(&parameters, version);
        let request = request.map_err(|error| WatchEnd::failed("watch", &error.to_string()))?;
        match timeout(REQUEST_TIMEOUT, self.shared.client.request_events::<R>(request)).await {
            Ok(Ok(events)) => Ok(events),
            Ok(Err(kube::Error::Api(status)))
                if parameters.send_initial_events && rejects_parameters(&status) =>
            {
                Err(WatchEnd::NoStreaming)
            }
            Ok(Err(error)) => Err(failed("watch", &error)),
            Err(_) => Err(WatchEnd::failed("watch", "no answer")),
        }
    }

    /// Fails if `version` is below `mark`.
    fn check_version(&self, version: u64, mark: Mark) -> Result<(), WatchEnd> {
        let same =
            self.shared.check_version(&format!("the watch of {}", self.kind.resource()), version, mark);
        if same { Ok(()) } else { Err(WatchEnd::Rewound) }
    }

    /// Prepares the next round; returns the pause before it.
    fn after(&self, end: WatchEnd, state: &mut WatchState) -> Duration {
        let resource = self.kind.resource();
        let (verb, message, wait) = match end {
            WatchEnd::Regular => return state.pause(None),
            WatchEnd::Expired => {
                state.version = None;
                ("watch", "fell behind: everything is listed again".to_owned(), None)
            }
            WatchEnd::NoStreaming => {
                tracing::info!(resource, "the API server does not stream lists: listing in pages");
                state.streaming = false;
                return Duration::ZERO;
            }
            WatchEnd::Rewound => {
                (state.version, state.backoff) = (None, backoff());
                return Duration::ZERO;
            }
            WatchEnd::Failed { verb, message, wait } => (verb, message, wait),
        };
        let failure = WatchFailure { resource, verb, message };
        tracing::warn!(namespace = self.namespace.as_deref(), "{failure}");
        self.shared.failed(self, failure, state.version.is_none());
        state.pause(wait)
    }
}

impl WatchState {
    /// The next backoff, or `retry_after` if that is longer.
    fn pause(&mut self, retry_after: Option<Duration>) -> Duration {
        let next = self.backoff.next().unwrap_or(MAX_BACKOFF);
        next.max(retry_after.unwrap_or_default())
    }
}

impl WatchEnd {
    fn failed(verb: &'static str, message: &str) -> Self {
        Self::Failed { verb, message: message.to_owned(), wait: None }
    }
}

fn parse(version: &str) -> Result<u64, WatchEnd> {
    version.parse().map_err(|_| WatchEnd::failed("watch", &format!("{version:?} is no resourceVersion")))
}

/// Whether the API server refused the parameters of a streaming list.
fn rejects_parameters(status: &Status) -> bool {
    matches!(status.code, 400 | 422)
}

fn list_failed(error: ListError) -> WatchEnd {
    match error {
        ListError::Ask { verb, source, .. } => failed(verb, &source),
        ListError::Rewound { .. } => WatchEnd::Rewound,
        ListError::TimedOut { verb, .. } => WatchEnd::failed(verb, "no answer"),
    }
}

fn failed(verb: &'static str, error: &kube::Error) -> WatchEnd {
    match error {
        kube::Error::Api(status) => rejected(verb, status),
        error => WatchEnd::failed(verb, &error.to_string()),
    }
}

fn rejected(verb: &'static str, status: &Status) -> WatchEnd {
    if status.code == 410 {
        return WatchEnd::Expired;
    }
    let retry_after = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    let wait = match retry_after {
        0 if status.code == 429 => Some(DEFAULT_RETRY_AFTER),
        0 => None,
        seconds => Some(Duration::from_secs(u64::from(seconds).min(60))),
    };
    WatchEnd::Failed { verb, message: status.message.clone(), wait }
}
