//! One watch: it lists a kind of objects, follows their changes, and starts again where it must.
//!
//! A loop of our own over `Client::request_events`, since the client library's watcher keeps bookmarks to
//! itself, and they are what tells a quiet cluster from a watch that will never say anything again: after a
//! restore from a backup, an API server that is asked for a version of the future answers 200 and is
//! silent. So before a watch goes on where it was, a LIST of one object must show that the server has been
//! there, and a watch that has said nothing for two minutes starts anew.

use std::{collections::HashSet, pin::pin, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
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

/// Says that what was there at the start is complete.
const LISTED: &str = "k8s.io/initial-events-end";
/// Between two tries: what is below its floor is to be seen, and restored, within ten seconds.
const LONGEST: Duration = Duration::from_secs(2);
/// For the head of an answer, and between two objects of a list.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is told to wait without being told how long.
const BUSY: Duration = Duration::from_secs(1);
/// The API server ends a watch after this many seconds; a few more for each, so that not all end at once.
const LIFE: u32 = 270;

/// What one watch is there for.
pub(super) struct WatchTask {
    pub(super) shared: Arc<ClusterCache>,
    pub(super) kind: Kind,
    pub(super) namespace: Option<SharedText>,
    /// Of its feed.
    pub(super) index: usize,
    pub(super) stop: CancellationToken,
}

/// Why a round is over.
enum WatchEnd {
    /// The API server ended it, as it does every few minutes.
    Regular,
    /// The changes since our version are not kept any more.
    Expired,
    /// The API server cannot send what is there as events.
    NoStreaming,
    /// Time ran backwards.
    Rewound,
    Failed {
        verb: &'static str,
        message: String,
        wait: Option<Duration>,
    },
}

/// Where a watch stands.
struct WatchState {
    /// The version to go on from; without one, everything is listed.
    version: Option<u64>,
    /// Lists come as events.
    streaming: bool,
    backoff: ExponentialBackoff,
}

fn backoff() -> ExponentialBackoff {
    let builder = ExponentialBuilder::default().with_min_delay(Duration::from_millis(200));
    builder.with_max_delay(LONGEST).with_jitter().without_max_times().build()
}

/// Keeps the cache of one kind up to date until it is stopped.
pub(super) async fn keep<R: Stored>(task: WatchTask) {
    let mut rewound = task.shared.rewound();
    let mut state = WatchState { version: None, streaming: true, backoff: backoff() };
    let mut world = 0;
    loop {
        let now = *rewound.borrow_and_update();
        if now != world {
            (world, state.version) = (now, None);
        }
        let end = tokio::select! {
            () = task.stop.cancelled() => return,
            _ = rewound.changed() => WatchEnd::Rewound,
            end = round::<R>(&task, &mut state, world) => end,
        };
        let pause = task.after(end, &mut state);
        tokio::select! {
            () = task.stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Lists or goes on, and follows until the watch ends.
async fn round<R: Stored>(task: &WatchTask, state: &mut WatchState, world: u64) -> WatchEnd {
    let result = match state.version {
        Some(version) => resume::<R>(task, state, world, version).await,
        None if state.streaming => stream_list::<R>(task, state, world).await,
        None => page_list::<R>(task, state, world).await,
    };
    result.err().unwrap_or(WatchEnd::Regular)
}

/// Everything as events, and then its changes, in one answer.
async fn stream_list<R: Stored>(
    task: &WatchTask,
    state: &mut WatchState,
    world: u64,
) -> Result<(), WatchEnd> {
    let mark = task.shared.mark(task.kind);
    let asked = WatchParams::streaming_lists().timeout(task.life());
    let mut events = pin!(task.events::<R>(asked, "").await?);
    let mut seen = HashSet::new();
    loop {
        // An API server that does not know how sends objects and never says that they are all.
        let event = timeout(PATIENCE, events.try_next()).await.map_err(|_| WatchEnd::NoStreaming)?;
        match event.map_err(|error| failed("watch", &error))? {
            Some(WatchEvent::Added(record) | WatchEvent::Modified(record)) => {
                seen.insert(record.uid().into());
                task.shared.take(task, world, record);
            }
            Some(WatchEvent::Deleted(record)) => {
                seen.remove(record.uid());
                task.shared.gone(task, world, &record);
            }
            Some(WatchEvent::Bookmark(at)) if at.metadata.annotations.contains_key(LISTED) => {
                let version = parse(&at.metadata.resource_version)?;
                task.not_before(version, mark)?;
                task.shared.listed::<R>(task, world, &seen, version);
                (state.version, state.backoff) = (Some(version), backoff());
                return follow(task, state, world, events, version).await;
            }
            Some(WatchEvent::Bookmark(_)) => {}
            Some(WatchEvent::Error(status)) => return Err(refused("watch", &status)),
            None => return Err(WatchEnd::failed("watch", "the list broke off")),
        }
    }
}

/// Everything page by page; its changes come with the next round.
async fn page_list<R: Stored>(task: &WatchTask, state: &mut WatchState, world: u64) -> Result<(), WatchEnd> {
    let mut seen = HashSet::new();
    let listed = task.shared.list::<R>(task.kind, task.namespace.as_deref(), ListParams::default()).await;
    let (records, version) = listed.map_err(unlisted)?;
    for record in records {
        seen.insert(record.uid().into());
        task.shared.take(task, world, record);
    }
    task.shared.listed::<R>(task, world, &seen, version);
    (state.version, state.backoff) = (Some(version), backoff());
    Ok(())
}

/// The changes since `version`.
async fn resume<R: Stored>(
    task: &WatchTask,
    state: &mut WatchState,
    world: u64,
    version: u64,
) -> Result<(), WatchEnd> {
    // An API server that was restored from a backup says nothing about a version of its future.
    let one = ListParams::default().limit(1);
    task.shared.page::<R>(task.kind, task.namespace.as_deref(), &one).await.map_err(unlisted)?;
    let events = task.events::<R>(WatchParams::default().timeout(task.life()), &version.to_string()).await?;
    task.shared.in_order(task, world);
    follow(task, state, world, events, version).await
}

/// Takes in what a watch says until it ends; `from` is where it began.
async fn follow<R: Stored>(
    task: &WatchTask,
    state: &mut WatchState,
    world: u64,
    events: impl Stream<Item = Result<WatchEvent<R>, kube::Error>>,
    from: u64,
) -> Result<(), WatchEnd> {
    let mut events = pin!(events);
    let (mut heard, mark) = (false, Mark { world, highest: from });
    loop {
        let Ok(event) = timeout(SILENCE, events.try_next()).await else {
            state.version = None;
            return Err(WatchEnd::failed("watch", "neither an event nor a bookmark for two minutes"));
        };
        let version = match event.map_err(|error| failed("watch", &error))? {
            Some(WatchEvent::Added(record) | WatchEvent::Modified(record)) => {
                let version = record.version();
                task.not_before(version, mark)?;
                task.shared.take(task, world, record);
                version
            }
            Some(WatchEvent::Deleted(record)) => {
                task.shared.gone(task, world, &record);
                record.version()
            }
            Some(WatchEvent::Bookmark(at)) => {
                let version = parse(&at.metadata.resource_version)?;
                task.not_before(version, mark)?;
                task.shared.stands(task, world, version);
                version
            }
            Some(WatchEvent::Error(status)) => return Err(refused("watch", &status)),
            None if heard => return Ok(()),
            None => return Err(WatchEnd::failed("watch", "it ended without a word")),
        };
        if !heard {
            (heard, state.backoff) = (true, backoff());
        }
        state.version = state.version.max(Some(version));
    }
}

impl WatchTask {
    fn life(&self) -> u32 {
        LIFE + u32::try_from(self.index).unwrap_or(0) % 8 * 3
    }

    async fn events<R: Stored>(
        &self,
        asked: WatchParams,
        version: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<R>, kube::Error>> + use<R>, WatchEnd> {
        let path = self.kind.path(self.namespace.as_deref());
        let request = Request::new(path).watch(&asked, version);
        let request = request.map_err(|error| WatchEnd::failed("watch", &error.to_string()))?;
        match timeout(PATIENCE, self.shared.client.request_events::<R>(request)).await {
            Ok(Ok(events)) => Ok(events),
            Ok(Err(kube::Error::Api(status))) if asked.send_initial_events && is_ignorant(&status) => {
                Err(WatchEnd::NoStreaming)
            }
            Ok(Err(error)) => Err(failed("watch", &error)),
            Err(_) => Err(WatchEnd::failed("watch", "no answer")),
        }
    }

    /// Time must not run backwards.
    fn not_before(&self, version: u64, mark: Mark) -> Result<(), WatchEnd> {
        let same = self.shared.witness(&format!("the watch of {}", self.kind.resource()), version, mark);
        if same { Ok(()) } else { Err(WatchEnd::Rewound) }
    }

    /// What follows from the end of a round; how long to wait before the next.
    fn after(&self, end: WatchEnd, state: &mut WatchState) -> Duration {
        let resource = self.kind.resource();
        let (verb, message, wait) = match end {
            WatchEnd::Regular => return state.pause(None),
            WatchEnd::Expired => {
                state.version = None;
                ("watch", "fell behind: everything is listed anew".to_owned(), None)
            }
            WatchEnd::NoStreaming => {
                tracing::info!(resource, "the API server does not stream lists: asking for pages");
                state.streaming = false;
                return Duration::ZERO;
            }
            WatchEnd::Rewound => {
                (state.version, state.backoff) = (None, backoff());
                return Duration::ZERO;
            }
            WatchEnd::Failed { verb, message, wait } => (verb, message, wait),
        };
        let trouble = WatchFailure { resource, verb, message };
        tracing::warn!(namespace = self.namespace.as_deref(), "{trouble}");
        self.shared.broken(self, trouble, state.version.is_none());
        state.pause(wait)
    }
}

impl WatchState {
    /// The next pause, at least as long as we were told.
    fn pause(&mut self, told: Option<Duration>) -> Duration {
        let next = self.backoff.next().unwrap_or(LONGEST);
        next.max(told.unwrap_or_default())
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

/// Refuses the parameters, not the request.
fn is_ignorant(status: &Status) -> bool {
    matches!(status.code, 400 | 422)
}

fn unlisted(error: ListError) -> WatchEnd {
    match error {
        ListError::Ask { verb, source, .. } => failed(verb, &source),
        ListError::Rewound { .. } => WatchEnd::Rewound,
        ListError::TimedOut { verb, .. } => WatchEnd::failed(verb, "no answer"),
    }
}

fn failed(verb: &'static str, error: &kube::Error) -> WatchEnd {
    match error {
        kube::Error::Api(status) => refused(verb, status),
        error => WatchEnd::failed(verb, &error.to_string()),
    }
}

fn refused(verb: &'static str, status: &Status) -> WatchEnd {
    if status.code == 410 {
        return WatchEnd::Expired;
    }
    let told = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    let wait = match told {
        0 if status.code == 429 => Some(BUSY),
        0 => None,
        seconds => Some(Duration::from_secs(u64::from(seconds).min(60))),
    };
    WatchEnd::Failed { verb, message: status.message.clone(), wait }
}
