//! A socket that does not wait for ever: slow requests, idle connections and readers that stall end it.
//!
//! hyper's own time-out for heads also runs while a kept-alive connection is idle between two
//! keepalives, so it cannot be short. This one knows the difference, and it covers the body too.

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
const GAVE_UP_IDLE: u8 = 4;
const GAVE_UP_SLOW: u8 = 5;

/// Over what a socket's patience ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeoutKind {
    /// Nothing of a request has come since the last answer.
    Idle,
    /// A request, or the reading of its answer, took too long.
    Slow,
}

/// Where a connection is in its current request; shared by the socket and the service.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestProgress(Arc<AtomicU8>);

impl RequestProgress {
    /// Whether, and over what, the socket's patience has ended.
    pub(super) fn timed_out(&self) -> Option<TimeoutKind> {
        match self.get() {
            GAVE_UP_IDLE => Some(TimeoutKind::Idle),
            GAVE_UP_SLOW => Some(TimeoutKind::Slow),
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

    /// The whole request is here.
    pub(super) fn received(&self) {
        self.set(WORKING);
    }

    /// Its answer is ready.
    pub(super) fn answered(&self) {
        self.set(ANSWERED);
    }
}

/// The socket.
pub(super) struct TimedStream<S> {
    io: S,
    progress: RequestProgress,
    timer: Pin<Box<Sleep>>,
    request: Duration,
    idle: Duration,
    since: Instant,
    stalled: Option<Instant>,
}

impl<S> TimedStream<S> {
    /// Gives a request `request` from its first to its last byte, and silence `idle`.
    pub(super) fn new(io: S, progress: RequestProgress, request: Duration, idle: Duration) -> Self {
        let now = Instant::now();
        // The first byte is there already: it told the dialect.
        progress.set(RECEIVING);
        let timer = Box::pin(sleep_until(now + request));
        Self { io, progress, timer, request, idle, since: now, stalled: None }
    }

    fn arrived(&mut self) {
        if matches!(self.progress.get(), IDLE | ANSWERED) {
            self.progress.set(RECEIVING);
            self.since = Instant::now();
        }
    }

    /// When waiting for the peer's bytes has to end.
    fn read_until(&mut self) -> Option<Instant> {
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

    /// Fails once `due` has passed; is woken no later than then.
    fn poll_until<T>(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<io::Result<T>> {
        if self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if due <= Instant::now() {
                let idle = self.progress.get() == IDLE;
                self.progress.set(if idle { GAVE_UP_IDLE } else { GAVE_UP_SLOW });
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.timer.as_mut().reset(due);
        }
    }

    fn poll_stall<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let since = *self.stalled.get_or_insert_with(Instant::now);
        self.poll_until(cx, since + self.idle)
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
            Poll::Pending => match self.read_until() {
                Some(due) => self.poll_until(cx, due),
                None => Poll::Pending,
            },
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write(cx, bytes) {
            Poll::Pending => self.poll_stall(cx),
            ready => {
                self.stalled = None;
                ready
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write_vectored(cx, bytes) {
            Poll::Pending => self.poll_stall(cx),
            ready => {
                self.stalled = None;
                ready
            }
        }
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
