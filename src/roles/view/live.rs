//! Server-sent events: an open page learns that it is out of date, and fetches itself again.
//!
//! The events carry no data, so that a reader who is slow or gone costs a task and an empty buffer: the newest revision
//! replaces the one that was not sent. Nothing is rendered while nothing changes.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::watcher::{FleetKey, Revisions};

/// Streams at a time; further ones are told to come back.
pub(super) const STREAMS: usize = 256;
/// Least time between two events: each makes the page load again.
const PAUSE: Duration = Duration::from_secs(1);
/// A stream ends after this time and the browser connects anew, so that rights that were taken away end it too.
const LONGEST: Duration = Duration::from_secs(600);
/// A line that keeps proxies from closing a quiet stream, and finds readers that are gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Pages with ages of keepalives are always out of date.
const AGES: Duration = Duration::from_secs(10);

/// What an open page shows.
#[derive(Clone, Debug)]
pub(super) enum Topic {
    /// All resources.
    Overview,
    /// One resource, or one of its pods.
    Fleet(FleetKey),
    /// The ensemble or the members.
    Ages,
}

/// Makes the streams of one view.
#[derive(Clone)]
pub(super) struct LiveStreams {
    free: Arc<Semaphore>,
    stop: CancellationToken,
}

struct LiveStream {
    topic: Topic,
    revisions: watch::Receiver<Revisions>,
    sent: u64,
    end: Instant,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl LiveStreams {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { free: Arc::new(Semaphore::new(STREAMS)), stop }
    }

    /// `None`: as many as there may be are open.
    pub(super) fn open(
        &self,
        topic: Topic,
        revisions: watch::Receiver<Revisions>,
    ) -> Option<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        let mut stream = LiveStream {
            topic,
            revisions,
            sent: 0,
            end: Instant::now() + LONGEST,
            stop: self.stop.clone(),
            _permit: permit,
        };
        stream.sent = stream.revision();
        let events = stream::unfold(stream, |mut stream| async move {
            stream.changed().await?;
            Some((Ok(Event::default().event("changed").data(format!("{:x}", stream.sent))), stream))
        });
        Some(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
    }
}

impl LiveStream {
    fn revision(&mut self) -> u64 {
        let revisions = self.revisions.borrow_and_update();
        match &self.topic {
            Topic::Overview | Topic::Ages => revisions.of(None),
            Topic::Fleet(fleet) => revisions.of(Some(fleet)),
        }
    }

    /// Waits until the page is out of date; `None` at the end of the stream.
    async fn changed(&mut self) -> Option<()> {
        let earliest = Instant::now() + PAUSE;
        loop {
            let ages = matches!(self.topic, Topic::Ages);
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.end) => return None,
                () = tokio::time::sleep(AGES), if ages => {
                    self.sent = self.sent.wrapping_add(1);
                    return Some(());
                }
                changed = self.revisions.changed() => changed.ok()?,
            }
            let revision = self.revision();
            if !ages && revision != self.sent {
                tokio::select! {
                    () = self.stop.cancelled() => return None,
                    () = tokio::time::sleep_until(earliest) => {}
                }
                self.sent = self.revision();
                return Some(());
            }
        }
    }
}
