//! The calls in flight of one ZeroRPC connection, with heartbeats for each until its answer.
//!
//! Clients give up a call after about 15 s without a heartbeat, so each call gets one per interval, the first
//! one interval after its start. A client's own heartbeats are not required: some never send any.

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

/// The result of a call.
#[derive(Debug)]
pub(super) enum CallReply {
    /// `OK` with None.
    Nothing,
    /// `OK` with a text.
    Text(String),
    /// `ERR`.
    Error { name: &'static str, message: String },
}

/// The addressee of an answer: the request's leading frames, and its id as raw msgpack.
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

struct CallInFlight {
    envelope: Box<[u8]>,
    id: Box<[u8]>,
    _share: Option<ByteShare>,
}

impl CallInFlight {
    fn caller(&self) -> Caller<'_> {
        Caller { envelope: &self.envelope, id: &self.id }
    }
}

/// Bytes of answers that are buffered before a send.
const BATCH: usize = 256 << 10;

/// Calls in flight.
pub(super) struct Calls {
    running: FuturesUnordered<BoxFuture<'static, (u64, CallReply)>>,
    in_flight: HashMap<u64, CallInFlight>,
    heartbeats: VecDeque<(Instant, u64)>,
    timer: Pin<Box<Sleep>>,
    interval: Duration,
    number: u64,
}

impl Calls {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            running: FuturesUnordered::new(),
            in_flight: HashMap::new(),
            heartbeats: VecDeque::new(),
            timer: Box::pin(sleep_until(Instant::now() + interval)),
            interval,
            number: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Adds a call; `share` is the memory that its command holds.
    pub(super) fn add(
        &mut self,
        caller: Caller<'_>,
        share: Option<ByteShare>,
        work: impl Future<Output = CallReply> + Send + 'static,
    ) {
        self.number += 1;
        let number = self.number;
        let (envelope, id) = (caller.envelope.into(), caller.id.into());
        self.in_flight.insert(number, CallInFlight { envelope, id, _share: share });
        self.heartbeats.push_back((Instant::now() + self.interval, number));
        self.running.push(Box::pin(async move { (number, work.await) }));
    }

    /// Appends the answers that are ready and the heartbeats that are due.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>, ids: &mut MessageIds) {
        while let Poll::Ready(Some((number, reply))) = self.running.poll_next_unpin(cx) {
            if let Some(call) = self.in_flight.remove(&number) {
                call.caller().answer(&reply, out, ids);
            }
            if out.len() >= BATCH {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.send_heartbeats(cx, out, ids);
    }

    fn send_heartbeats(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>, ids: &mut MessageIds) {
        while let Some(&(due, number)) = self.heartbeats.front() {
            let Some(call) = self.in_flight.get(&number) else {
                self.heartbeats.pop_front();
                continue;
            };
            if self.timer.deadline() != due {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            call.caller().event(out, ids, "_zpc_hb", zerorpc::write_heartbeat);
            self.heartbeats.pop_front();
            self.heartbeats.push_back((Instant::now() + self.interval, number));
        }
    }
}
