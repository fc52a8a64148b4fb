//! The calls of one ZeroRPC connection that take a while: their callers hear heartbeats until the answer.
//!
//! A client that hears nothing for about 15 seconds gives its call up, so a heartbeat goes out for
//! every call, first one interval after it began. Whether the client sends any is its own business:
//! some never do, and their work is not cancelled for it.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    limits::ByteShare,
    zerorpc::{self, MessageIds},
    zmtp,
};

/// What a call comes to.
#[derive(Debug)]
pub(super) enum CallReply {
    /// `OK` with None.
    Nothing,
    /// `OK` with a text.
    Text(String),
    /// `ERR`.
    Error {
        /// The error's name.
        name: &'static str,
        /// Its message.
        message: String,
    },
}

/// Whom an answer goes to: the leading frames of the request, and its id as raw msgpack.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) envelope: &'a [u8],
    pub(super) id: &'a [u8],
}

impl Caller<'_> {
    /// Appends an answer.
    pub(super) fn answer(self, reply: &CallReply, out: &mut Vec<u8>, ids: &mut MessageIds) {
        match reply {
            CallReply::Nothing => self.event(out, ids, "OK", zerorpc::write_nil_result),
            CallReply::Text(text) => self.event(out, ids, "OK", |out| zerorpc::write_text_result(out, text)),
            CallReply::Error { name, message } => {
                self.event(out, ids, "ERR", |out| zerorpc::write_error(out, name, message));
            }
        }
    }

    /// Appends an event on the caller's channel.
    pub(super) fn event(
        self,
        out: &mut Vec<u8>,
        ids: &mut MessageIds,
        name: &str,
        args: impl FnOnce(&mut Vec<u8>),
    ) {
        let (id, _) = ids.make();
        zmtp::write_message(out, self.envelope, |out| {
            zerorpc::write_event(out, &id, Some(self.id), name, args);
        });
    }
}

struct Waiting {
    envelope: Box<[u8]>,
    id: Box<[u8]>,
    _held: Option<ByteShare>,
}

impl Waiting {
    fn caller(&self) -> Caller<'_> {
        Caller { envelope: &self.envelope, id: &self.id }
    }
}

/// Bytes of answers that are written before they are sent.
const BATCH: usize = 256 << 10;

/// Calls in flight.
pub(super) struct Calls {
    running: FuturesUnordered<BoxFuture<'static, (u64, CallReply)>>,
    waiting: HashMap<u64, Waiting>,
    beats: VecDeque<(Instant, u64)>,
    timer: Pin<Box<Sleep>>,
    every: Duration,
    number: u64,
}

impl Calls {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            running: FuturesUnordered::new(),
            waiting: HashMap::new(),
            beats: VecDeque::new(),
            timer: Box::pin(sleep_until(Instant::now() + every)),
            every,
            number: 0,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a call; `held` is its share of the memory for commands.
    pub(super) fn add(
        &mut self,
        caller: Caller<'_>,
        held: Option<ByteShare>,
        work: impl Future<Output = CallReply> + Send + 'static,
    ) {
        self.number += 1;
        let number = self.number;
        self.waiting
            .insert(number, Waiting { envelope: caller.envelope.into(), id: caller.id.into(), _held: held });
        self.beats.push_back((Instant::now() + self.every, number));
        self.running.push(Box::pin(async move { (number, work.await) }));
    }

    /// Appends the answers that are there and the heartbeats that are due.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>, ids: &mut MessageIds) {
        while let Poll::Ready(Some((number, reply))) = self.running.poll_next_unpin(cx) {
            if let Some(waiting) = self.waiting.remove(&number) {
                waiting.caller().answer(&reply, out, ids);
            }
            if out.len() >= BATCH {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.beat(cx, out, ids);
    }

    fn beat(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>, ids: &mut MessageIds) {
        while let Some(&(due, number)) = self.beats.front() {
            let Some(waiting) = self.waiting.get(&number) else {
                self.beats.pop_front();
                continue;
            };
            if self.timer.deadline() != due {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            waiting.caller().event(out, ids, "_zpc_hb", zerorpc::write_heartbeat);
            self.beats.pop_front();
            self.beats.push_back((Instant::now() + self.every, number));
        }
    }
}
