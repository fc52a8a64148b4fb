//! One ZeroRPC connection on the server, as a state machine without heap buffers while it is idle.
//!
//! Reads go into a buffer of the worker thread and are parsed in place. The connection owns only the bytes of
//! an unfinished message and of unsent answers. One wake-up reads at most `READS * READ_SIZE` bytes, so that a
//! flooding peer does not starve the others.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    calls::Calls,
    connection::{ConnectionEnd, ServerState},
    limits::ByteShare,
    zerorpc::MessageIds,
    zmtp::{self, LocalSide, Received},
};

/// Bytes per read, at most.
const READ_SIZE: usize = 64 << 10;

/// Reads per wake-up, at most.
const READS: usize = 2;

mod methods;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SessionPhase {
    Greeting,
    Ready,
    Open,
}

/// Serves ZeroRPC on `io` until one end closes, a limit is reached or `stop` fires.
pub(super) async fn serve<S>(
    io: S,
    peer: SocketAddr,
    shared: Arc<ServerState>,
    stop: CancellationToken,
) -> ConnectionEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut session = Session::new(io, peer, shared);
    let mut stopped = std::pin::pin!(stop.cancelled_owned());
    let mut registered = false;
    std::future::poll_fn(|cx| {
        // Polled once, to register the waker; afterwards the atomic flag is read, which takes no lock.
        if !registered {
            registered = true;
            let _ = stopped.as_mut().poll(cx);
        }
        if session.shared.is_draining() {
            session.drain();
        }
        session.poll(cx)
    })
    .await
}

struct Session<S> {
    io: S,
    peer: SocketAddr,
    shared: Arc<ServerState>,
    phase: SessionPhase,
    draining: bool,
    /// `partial` holds whole messages: the limit of calls in flight was reached.
    stalled: bool,
    partial: Vec<u8>,
    partial_share: ByteShare,
    out: Vec<u8>,
    sent: usize,
    calls: Option<Box<Calls>>,
    ids: MessageIds,
    last_traffic: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn new(io: S, peer: SocketAddr, shared: Arc<ServerState>) -> Self {
        let now = Instant::now();
        let mut out = zmtp::greeting().to_vec();
        out.extend(zmtp::ready(LocalSide::Server));
        Self {
            io,
            peer,
            phase: SessionPhase::Greeting,
            draining: false,
            stalled: false,
            partial: Vec::new(),
            partial_share: shared.held_bytes.open(),
            out,
            sent: 0,
            calls: None,
            ids: MessageIds::new(shared.id_prefix()),
            last_traffic: now,
            timer: Box::pin(sleep_until(now + shared.limits.handshake)),
            shared,
        }
    }

    /// Stops reading; calls in flight are answered within `Limits::drain`.
    fn drain(&mut self) {
        if !self.draining {
            self.draining = true;
            self.timer.as_mut().reset(Instant::now() + self.shared.limits.drain);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        for _ in 0..READS {
            self.poll_calls(cx);
            match self.poll_send(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(ConnectionEnd::Io(error.kind())),
                Poll::Pending => return self.poll_timeout(cx),
            }
            if self.draining && self.calls.is_none() {
                return Poll::Ready(ConnectionEnd::Shutdown);
            }
            if self.draining || self.is_full() {
                return self.poll_timeout(cx);
            }
            let received = if self.stalled { Poll::Ready(self.receive(&[])) } else { self.poll_receive(cx) };
            match received {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Pending => {
                    self.release_buffers();
                    return self.poll_timeout(cx);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_full(&self) -> bool {
        self.calls.as_ref().is_some_and(|calls| calls.len() >= self.shared.limits.calls)
    }

    fn poll_calls(&mut self, cx: &mut Context<'_>) {
        let Some(calls) = &mut self.calls else { return };
        calls.poll(cx, &mut self.out, &mut self.ids);
        if calls.len() == 0 {
            self.calls = None;
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.out[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
            self.last_traffic = Instant::now();
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Frees what the buffers do not need while the peer is quiet.
    fn release_buffers(&mut self) {
        if self.out.is_empty() {
            self.out = Vec::new();
        }
        self.partial.shrink_to_fit();
    }

    /// Ends the connection at its deadline (handshake, idle or drain), and wakes up for it.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.draining {
                return Poll::Ready(ConnectionEnd::Shutdown);
            }
            if self.phase != SessionPhase::Open {
                return Poll::Ready(ConnectionEnd::Slow);
            }
            let now = Instant::now();
            if self.calls.is_some() && self.out.is_empty() {
                self.last_traffic = now;
            }
            let due = self.last_traffic + self.shared.limits.idle;
            if due <= now {
                return Poll::Ready(ConnectionEnd::Idle);
            }
            self.timer.as_mut().reset(due);
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionEnd>> {
        let mut scratch = SCRATCH.take().unwrap_or_else(|| vec![0; READ_SIZE].into());
        let mut buffer = ReadBuf::new(&mut scratch);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut buffer);
        let arrived = buffer.filled().len();
        let received = read.map(|read| match read {
            Err(error) => Err(ConnectionEnd::Io(error.kind())),
            Ok(()) if arrived == 0 => Err(ConnectionEnd::PeerClosed),
            Ok(()) => {
                self.last_traffic = Instant::now();
                self.receive(&scratch[..arrived])
            }
        });
        SCRATCH.set(Some(scratch));
        received
    }

    /// Processes the whole messages that have arrived and keeps the remainder.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), ConnectionEnd> {
        self.stalled = false;
        if self.partial.is_empty() {
            let used = self.process(bytes)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            let used = self.process(&partial)?;
            partial.drain(..used);
            self.partial = partial;
        }
        if self.partial_share.set(self.partial.len()) { Ok(()) } else { Err(ConnectionEnd::NoMemory) }
    }

    /// Processes the whole messages at the beginning of `bytes`; returns their length in bytes.
    fn process(&mut self, bytes: &[u8]) -> Result<usize, ConnectionEnd> {
        let mut at = 0;
        while !self.is_full() {
            let rest = &bytes[at..];
            let used = match self.phase {
                SessionPhase::Greeting => self.greet(rest)?,
                SessionPhase::Ready => self.shake_hands(rest)?,
                SessionPhase::Open => match zmtp::next(rest, self.shared.limits.message)? {
                    None => 0,
                    Some((Received::Command(body), used)) => {
                        zmtp::answer_command(body, &mut self.out);
                        used
                    }
                    Some((Received::Message { envelope, payload }, used)) => {
                        self.handle(envelope, payload)?;
                        used
                    }
                },
            };
            if used == 0 {
                return Ok(at);
            }
            at += used;
        }
        self.stalled = true;
        Ok(at)
    }

    fn greet(&mut self, bytes: &[u8]) -> Result<usize, ConnectionEnd> {
        if !zmtp::check_greeting(&bytes[..bytes.len().min(zmtp::GREETING_LEN)])? {
            return Ok(0);
        }
        self.phase = SessionPhase::Ready;
        Ok(zmtp::GREETING_LEN)
    }

    fn shake_hands(&mut self, bytes: &[u8]) -> Result<usize, ConnectionEnd> {
        let Some((body, used)) = zmtp::next_handshake_command(bytes)? else { return Ok(0) };
        zmtp::check_ready(body, LocalSide::Server)?;
        self.phase = SessionPhase::Open;
        self.timer.as_mut().reset(Instant::now() + self.shared.limits.idle);
        Ok(used)
    }
}

#[cfg(test)]
mod tests;
