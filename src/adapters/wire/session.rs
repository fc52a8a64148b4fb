//! One ZeroRPC connection on the server: a state machine that owns next to nothing while it is idle.
//!
//! Bytes are read into a buffer of the worker thread and worked off in place; only what is left of an
//! unfinished message, and answers that the peer has not taken yet, belong to the connection. What one
//! wake-up may do is bounded, so that a peer that floods yields to the others.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Refusal, RefusalKind,
    calls::{CallReply, Caller, Calls},
    connection::{ConnectionEnd, ServerState},
    limits::ByteShare,
    metrics::{Method, Spoken},
    zerorpc::{self, MessageIds, ZeroRpcEvent},
    zmtp::{self, LocalSide, Received},
};

/// Bytes that one read takes at most.
const READ: usize = 64 << 10;

/// Reads in one wake-up.
const READS: usize = 2;

/// What a peer that calls `_zerorpc_ping` gets as our name.
const NAME: &str = "kubervisor";

/// The methods, with what they say about themselves.
const METHODS: [(&str, &[&str], &str); 4] = [
    ("ping", &["raw"], "Takes a keepalive: raw is its JSON."),
    ("invoke", &["raw"], "Runs a command and returns its output: raw is a JSON object with a member cmd."),
    ("kubervisor_challenge", &[], "Returns a challenge for a signed command, as JSON."),
    ("kubervisor_forward", &["raw"], "Takes a keepalive that another master passes on."),
];

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SessionPhase {
    Greeting,
    Ready,
    Open,
}

/// Speaks ZeroRPC on `io` until either end has enough.
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
    let mut watched = false;
    std::future::poll_fn(|cx| {
        // The token is asked once, to be woken by it; after that the flag is: it takes no lock.
        if !watched {
            watched = true;
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
    /// Whole messages are left in `partial` because too many calls are in flight.
    stalled: bool,
    partial: Vec<u8>,
    held: ByteShare,
    out: Vec<u8>,
    sent: usize,
    calls: Option<Box<Calls>>,
    ids: MessageIds,
    last: Instant,
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
            held: shared.hold.open(),
            out,
            sent: 0,
            calls: None,
            ids: MessageIds::new(shared.id_prefix()),
            last: now,
            timer: Box::pin(sleep_until(now + shared.limits.handshake)),
            shared,
        }
    }

    /// Begins to end: nothing more is read, calls in flight are answered.
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
            let worked = if self.stalled { Poll::Ready(self.receive(&[])) } else { self.poll_receive(cx) };
            match worked {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(ended)) => return Poll::Ready(ended),
                Poll::Pending => {
                    self.rest();
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
            self.last = Instant::now();
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// The peer is quiet: gives memory back.
    fn rest(&mut self) {
        if self.out.is_empty() {
            self.out = Vec::new();
        }
        self.partial.shrink_to_fit();
    }

    /// Ends the connection when its time is over, wakes up when that may be.
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
                self.last = now;
            }
            let due = self.last + self.shared.limits.idle;
            if due <= now {
                return Poll::Ready(ConnectionEnd::Idle);
            }
            self.timer.as_mut().reset(due);
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionEnd>> {
        let mut scratch = SCRATCH.take().unwrap_or_else(|| vec![0; READ].into());
        let mut buffer = ReadBuf::new(&mut scratch);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut buffer);
        let arrived = buffer.filled().len();
        let received = read.map(|read| match read {
            Err(error) => Err(ConnectionEnd::Io(error.kind())),
            Ok(()) if arrived == 0 => Err(ConnectionEnd::PeerClosed),
            Ok(()) => {
                self.last = Instant::now();
                self.receive(&scratch[..arrived])
            }
        });
        SCRATCH.set(Some(scratch));
        received
    }

    /// Works off what has arrived, and keeps the rest.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), ConnectionEnd> {
        self.stalled = false;
        if self.partial.is_empty() {
            let used = self.work(bytes)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(bytes);
            let used = self.work(&partial)?;
            partial.drain(..used);
            self.partial = partial;
        }
        if self.held.set(self.partial.len()) { Ok(()) } else { Err(ConnectionEnd::NoMemory) }
    }

    /// Works off the whole messages at the beginning of `bytes`; how many bytes they were.
    fn work(&mut self, bytes: &[u8]) -> Result<usize, ConnectionEnd> {
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
                        self.message(envelope, payload)?;
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

    fn message(&mut self, envelope: &[u8], payload: &[u8]) -> Result<(), ConnectionEnd> {
        let event = ZeroRpcEvent::parse(payload)?;
        if event.response_to.is_some() {
            // A heartbeat of a caller, or something about a call that is over.
            return Ok(());
        }
        let caller = Caller { envelope, id: event.id };
        let count = |method| self.shared.metrics.request(Spoken::zerorpc, method);
        match event.name {
            b"ping" => {
                count(Method::ping);
                self.keepalive(caller, &event, KeepaliveForm::Own);
            }
            b"kubervisor_forward" => {
                count(Method::forward);
                self.keepalive(caller, &event, KeepaliveForm::Forwarded);
            }
            b"invoke" => {
                count(Method::invoke);
                self.invoke(caller, &event);
            }
            b"kubervisor_challenge" => {
                count(Method::challenge);
                let reply = match self.shared.handler.challenge(self.peer) {
                    Ok(text) => CallReply::Text(text),
                    Err(refusal) => error_reply(self.shared.count(refusal)),
                };
                self.answer(caller, &reply);
            }
            b"_zpc_hb" | b"_zpc_more" => {}
            name => self.builtin(caller, name),
        }
        Ok(())
    }

    fn answer(&mut self, caller: Caller<'_>, reply: &CallReply) {
        caller.answer(reply, &mut self.out, &mut self.ids);
    }

    /// Answers once the work is done; until then the caller hears heartbeats.
    fn later(
        &mut self,
        caller: Caller<'_>,
        held: Option<ByteShare>,
        work: impl Future<Output = CallReply> + Send + 'static,
    ) {
        let every = self.shared.limits.heartbeat;
        self.calls.get_or_insert_with(|| Box::new(Calls::new(every))).add(caller, held, work);
    }

    fn keepalive(&mut self, caller: Caller<'_>, event: &ZeroRpcEvent<'_>, kind: KeepaliveForm) {
        let Some(raw) = event.sole_text() else { return self.wrong_arguments(caller, event, kind) };
        let answer = match kind {
            KeepaliveForm::Own => self.shared.handler.ping(self.peer, raw),
            KeepaliveForm::Forwarded => self.shared.handler.forwarded(self.peer, raw),
        };
        match answer {
            Answer::Now(result) => {
                let reply = kind.reply(result, &self.shared);
                self.answer(caller, &reply);
            }
            Answer::Later(work) => {
                let shared = Arc::clone(&self.shared);
                self.later(caller, None, async move { kind.reply(work.await, &shared) });
            }
        }
    }

    /// A keepalive that is no text is as malformed as any other; a call with a wrong count is an error.
    fn wrong_arguments(&mut self, caller: Caller<'_>, event: &ZeroRpcEvent<'_>, kind: KeepaliveForm) {
        let reply = if event.arguments(1).is_some() {
            kind.reply(Err(malformed("the argument must be a string")), &self.shared)
        } else {
            wrong_count(&self.shared)
        };
        self.answer(caller, &reply);
    }

    fn invoke(&mut self, caller: Caller<'_>, event: &ZeroRpcEvent<'_>) {
        let Some(raw) = event.sole_text() else {
            return self.wrong_arguments(caller, event, KeepaliveForm::Own);
        };
        let mut held = self.shared.hold.open();
        if !held.set(raw.len()) {
            let refusal = Refusal {
                kind: RefusalKind::TooMuch,
                message: "too many commands are waiting here; try again later".into(),
            };
            let reply = error_reply(self.shared.count(refusal));
            return self.answer(caller, &reply);
        }
        let work = self.shared.handler.invoke(self.peer, Bytes::copy_from_slice(raw));
        let shared = Arc::clone(&self.shared);
        self.later(caller, Some(held), async move {
            match work.await.map_err(|refusal| shared.count(refusal)) {
                Ok(Some(text)) => CallReply::Text(text),
                Ok(None) => CallReply::Nothing,
                Err(Refusal { kind: RefusalKind::Malformed | RefusalKind::NotServed, .. }) => {
                    CallReply::Nothing
                }
                Err(refusal) => error_reply(refusal),
            }
        });
    }

    fn builtin(&mut self, caller: Caller<'_>, name: &[u8]) {
        let write: fn(&mut Vec<u8>) = match name {
            b"_zerorpc_ping" => |out| {
                out.extend_from_slice(&[0x91, 0x92]);
                zerorpc::write_str(out, "pong");
                zerorpc::write_str(out, NAME);
            },
            b"_zerorpc_name" => |out| zerorpc::write_text_result(out, NAME),
            b"_zerorpc_list" => write_list,
            b"_zerorpc_inspect" => write_inspection,
            _ => {
                self.shared.metrics.request(Spoken::zerorpc, Method::unknown);
                self.shared.metrics.refuse("unknown_method");
                let message = String::from_utf8_lossy(&name[..name.len().min(100)]).into_owned();
                return self.answer(caller, &CallReply::Error { name: "NameError", message });
            }
        };
        self.shared.metrics.request(Spoken::zerorpc, Method::builtin);
        caller.event(&mut self.out, &mut self.ids, "OK", write);
    }
}

#[derive(Clone, Copy)]
enum KeepaliveForm {
    Own,
    Forwarded,
}

impl KeepaliveForm {
    /// The original's clients get None whatever happens; a master that forwards wants to know.
    fn reply(self, result: Result<(), Refusal>, shared: &ServerState) -> CallReply {
        match (result, self) {
            (Ok(()), _) => CallReply::Nothing,
            (Err(refusal), Self::Own) => {
                shared.count(refusal);
                CallReply::Nothing
            }
            (Err(refusal), Self::Forwarded) => error_reply(shared.count(refusal)),
        }
    }
}

fn malformed(message: &str) -> Refusal {
    Refusal { kind: RefusalKind::Malformed, message: message.into() }
}

fn error_reply(refusal: Refusal) -> CallReply {
    CallReply::Error { name: refusal.kind.label(), message: refusal.message }
}

fn wrong_count(shared: &ServerState) -> CallReply {
    shared.metrics.refuse(RefusalKind::Malformed.label());
    CallReply::Error { name: "TypeError", message: "takes exactly one argument: a string with JSON".into() }
}

/// `[[name, ...]]`
fn write_list(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x91, 0x90 | METHODS.len() as u8]);
    for (name, _, _) in METHODS {
        zerorpc::write_str(out, name);
    }
}

/// `[{"name": ..., "methods": {name: {"args": [{"name": ...}], "doc": ...}}}]`
fn write_inspection(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x91, 0x82]);
    zerorpc::write_str(out, "name");
    zerorpc::write_str(out, NAME);
    zerorpc::write_str(out, "methods");
    out.push(0x80 | METHODS.len() as u8);
    for (name, args, doc) in METHODS {
        zerorpc::write_str(out, name);
        out.push(0x82);
        zerorpc::write_str(out, "args");
        out.push(0x90 | args.len() as u8);
        for arg in args {
            out.push(0x81);
            zerorpc::write_str(out, "name");
            zerorpc::write_str(out, arg);
        }
        zerorpc::write_str(out, "doc");
        zerorpc::write_str(out, doc);
    }
}

#[cfg(test)]
mod tests;
