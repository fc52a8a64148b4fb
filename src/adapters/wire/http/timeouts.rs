//! A stream with timeouts for slow requests, idle connections and peers that stop reading.
//!
//! hyper's own timeout for request heads also runs while a kept-alive connection is idle between two
//! keepalives, so it cannot be short. This one starts with a request, and covers its body too.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

const IDLE: u8 = 0;
const RECEIVING: u8 = 1;
const WORKING: u8 = 2;
const ANSWERED: u8 = 3;
const TIMED_OUT_IDLE: u8 = 4;
const TIMED_OUT_SLOW: u8 = 5;

/// The timeout that ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeoutKind {
    /// No byte of a request since the last answer.
    Idle,
    /// A request took too long, or the peer did not read its answer.
    Slow,
}

/// The progress of the current request, shared by the stream and the service.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestProgress(Arc<AtomicU8>);

impl RequestProgress {
    /// The timeout that has ended the stream, if any.
    pub(super) fn timed_out(&self) -> Option<TimeoutKind> {
        match self.get() {
            TIMED_OUT_IDLE => Some(TimeoutKind::Idle),
            TIMED_OUT_SLOW => Some(TimeoutKind::Slow),
            _ => None,
        }
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, state: u8) {
        if self.timed_out().is_none() {
            self.0.store(state, Ordering::Relaxed);
        }
    }

    /// The request has arrived completely.
    pub(super) fn received(&self) {
        self.set(WORKING);
    }

    /// The answer is ready.
    pub(super) fn answered(&self) {
        self.set(ANSWERED);
    }
}

/// A stream that fails with `TimedOut`.
pub(super) struct TimedStream<S> {
    io: S,
    progress: RequestProgress,
    timer: Pin<Box<Sleep>>,
    request: Duration,
    idle: Duration,
    since: Instant,
    stalled_since: Option<Instant>,
}

impl<S> TimedStream<S> {
    /// `request` bounds the time from a request's first to its last byte, `idle` the time without traffic.
    pub(super) fn new(io: S, progress: RequestProgress, request: Duration, idle: Duration) -> Self {
        let now = Instant::now();
        // The first byte has arrived: it selected the dialect.
        progress.set(RECEIVING);
        let timer = Box::pin(sleep_until(now + request));
        Self { io, progress, timer, request, idle, since: now, stalled_since: None }
    }

    fn arrived(&mut self) {
        if matches!(self.progress.get(), IDLE | ANSWERED) {
            self.progress.set(RECEIVING);
            self.since = Instant::now();
        }
    }

    /// The deadline of a read; none while the request is being served.
    fn read_deadline(&mut self) -> Option<Instant> {
        match self.progress.get() {
            RECEIVING => Some(self.since + self.request),
            WORKING => None,
            ANSWERED => {
                self.progress.set(IDLE);
                self.since = Instant::now();
                Some(self.since + self.idle)
            }
            _ => Some(self.since + self.idle),
        }
    }

    /// Fails once `due` has passed, and wakes the task by then.
    fn poll_until<T>(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<io::Result<T>> {
        if self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if due <= Instant::now() {
                let idle = self.progress.get() == IDLE;
                self.progress.set(if idle { TIMED_OUT_IDLE } else { TIMED_OUT_SLOW });
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.timer.as_mut().reset(due);
        }
    }

    /// Adds the timeout of a stalled peer to the result of a write.
    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            let since = *self.stalled_since.get_or_insert_with(Instant::now);
            return self.poll_until(cx, since + self.idle);
        }
        self.stalled_since = None;
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buffer) {
            Poll::Ready(read) => {
                if buffer.filled().len() > before {
                    self.arrived();
                }
                Poll::Ready(read)
            }
            Poll::Pending => match self.read_deadline() {
                Some(due) => self.poll_until(cx, due),
                None => Poll::Pending,
            },
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.poll_written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
        self.poll_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
