//! The ZeroRPC client: one task owns the socket and multiplexes the calls.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, interval_at},
};

use super::{
    super::{
        msgpack::Cursor,
        zerorpc::{self, MessageIds, ZeroRpcEvent},
        zmtp::{self, LocalSide, Received},
    },
    CallOutcome, ClientCall, ClientError, MAX_ANSWER, reported,
};

/// Calls in flight per connection; more wait for a permit.
const IN_FLIGHT: usize = 1024;

/// Bytes of requests that are buffered before a send.
const BATCH: usize = 64 << 10;

/// Default interval of heartbeats, ours and the peer's.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Rpc {
    requests: mpsc::Sender<Outgoing>,
    permits: Semaphore,
}

#[derive(Debug)]
struct Outgoing {
    method: &'static str,
    raw: Option<Box<str>>,
    answer: oneshot::Sender<Result<CallOutcome, ClientError>>,
}

impl Rpc {
    /// Does the handshake and starts the task that owns the socket until this is dropped.
    pub(super) async fn start(mut stream: TcpStream, heartbeat: Duration) -> Result<Self, ClientError> {
        let arrived = shake_hands(&mut stream).await?;
        let (requests, outgoing) = mpsc::channel(IN_FLIGHT);
        tokio::spawn(Driver::new(stream, arrived, outgoing, heartbeat).run());
        Ok(Self { requests, permits: Semaphore::new(IN_FLIGHT) })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    pub(super) async fn call(&self, call: ClientCall, raw: &str) -> Result<CallOutcome, ClientError> {
        let ClientCall(method, has_argument, ..) = call;
        let _permit = self.permits.acquire().await.map_err(|_| ClientError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let outgoing = Outgoing { method, raw: has_argument.then(|| raw.into()), answer };
        self.requests.send(outgoing).await.map_err(|_| ClientError::Closed)?;
        answered.await.unwrap_or(Err(ClientError::Closed))
    }
}

/// Sends our greeting and READY, reads the peer's, and returns the bytes that follow them.
async fn shake_hands(stream: &mut TcpStream) -> Result<BytesMut, ClientError> {
    let mut hello = zmtp::greeting().to_vec();
    hello.extend(zmtp::ready(LocalSide::Client));
    stream.write_all(&hello).await.map_err(|_| ClientError::Closed)?;
    let mut arrived = BytesMut::with_capacity(512);
    while !zmtp::check_greeting(&arrived[..arrived.len().min(zmtp::GREETING_LEN)])? {
        fill(stream, &mut arrived).await?;
    }
    arrived.advance(zmtp::GREETING_LEN);
    loop {
        if let Some((body, used)) = zmtp::next_handshake_command(&arrived)? {
            zmtp::check_ready(body, LocalSide::Client)?;
            arrived.advance(used);
            return Ok(arrived);
        }
        fill(stream, &mut arrived).await?;
    }
}

async fn fill<S: AsyncRead + Unpin>(stream: &mut S, arrived: &mut BytesMut) -> Result<(), ClientError> {
    match stream.read_buf(arrived).await {
        Ok(count) if count > 0 => Ok(()),
        Ok(_) | Err(_) => Err(ClientError::Closed),
    }
}

struct OpenCall {
    answer: oneshot::Sender<Result<CallOutcome, ClientError>>,
    since: Instant,
    /// The peer's last heartbeat for this call, if it sends any.
    last_heartbeat: Option<Instant>,
}

struct Driver {
    stream: TcpStream,
    arrived: BytesMut,
    outgoing: mpsc::Receiver<Outgoing>,
    open: HashMap<u64, OpenCall>,
    ids: MessageIds,
    out: BytesMut,
    heartbeat: Duration,
}

impl Driver {
    fn new(
        stream: TcpStream,
        arrived: BytesMut,
        outgoing: mpsc::Receiver<Outgoing>,
        heartbeat: Duration,
    ) -> Self {
        // Message ids only have to differ between connections, as the hasher's seed does.
        let ids = MessageIds::new(RandomState::new().hash_one(std::process::id()));
        Self { stream, arrived, outgoing, open: HashMap::new(), ids, out: BytesMut::new(), heartbeat }
    }

    /// Runs until the handle is dropped or the connection ends; then open calls fail with `Closed`.
    async fn run(mut self) {
        let check = self.heartbeat / 5;
        let mut ticks = interval_at(Instant::now() + check, check);
        let mut sent = HashMap::new();
        while self.receive().is_ok() {
            let (mut read, mut write) = self.stream.split();
            tokio::select! {
                outgoing = self.outgoing.recv(), if self.out.len() < BATCH => match outgoing {
                    Some(outgoing) => self.request(outgoing),
                    None => return,
                },
                read = fill(&mut read, &mut self.arrived) => if read.is_err() { return },
                written = write.write_buf(&mut self.out), if !self.out.is_empty() => match written {
                    Ok(count) if count > 0 => {}
                    Ok(_) | Err(_) => return,
                },
                _ = ticks.tick(), if !self.open.is_empty() => self.check_heartbeats(&mut sent),
            }
        }
    }

    /// Writes a request, and those that are queued behind it.
    fn request(&mut self, first: Outgoing) {
        let mut next = Some(first);
        while let Some(Outgoing { method, raw, answer }) = next {
            let (id, count) = self.ids.make();
            self.write(&id, None, method, |out| match &raw {
                Some(raw) => zerorpc::write_text_result(out, raw),
                None => out.push(0x90),
            });
            self.open.insert(count, OpenCall { answer, since: Instant::now(), last_heartbeat: None });
            next = if self.out.len() < BATCH { self.outgoing.try_recv().ok() } else { None };
        }
    }

    fn write(&mut self, id: &[u8; 32], channel: Option<&[u8]>, name: &str, args: impl FnOnce(&mut Vec<u8>)) {
        let mut message = Vec::with_capacity(256);
        zmtp::write_message(&mut message, &zmtp::DELIMITER, |out| {
            zerorpc::write_event(out, id, channel, name, args);
        });
        self.out.extend_from_slice(&message);
    }

    /// Five times per interval: sends due heartbeats, ends calls whose caller is gone or whose peer is silent.
    fn check_heartbeats(&mut self, sent: &mut HashMap<u64, Instant>) {
        let (now, interval) = (Instant::now(), self.heartbeat);
        sent.retain(|count, _| self.open.contains_key(count));
        let silent = |open: &mut OpenCall| open.last_heartbeat.is_some_and(|last| now >= last + 3 * interval);
        for (_, open) in self.open.extract_if(|_, open| open.answer.is_closed() || silent(open)) {
            let _ = open.answer.send(Err(ClientError::Silent));
        }
        let due: Vec<u64> = self
            .open
            .iter()
            .filter(|(count, open)| now >= *sent.get(count).unwrap_or(&open.since) + interval)
            .map(|(count, _)| *count)
            .collect();
        for count in due {
            sent.insert(count, now);
            let mut channel = b"\xc4\x20".to_vec();
            channel.extend(self.ids.id_of(count));
            let (id, _) = self.ids.make();
            self.write(&id, Some(&channel), "_zpc_hb", zerorpc::write_heartbeat);
        }
    }

    /// Processes the messages that have arrived.
    fn receive(&mut self) -> Result<(), ClientError> {
        while let Some((received, used)) = zmtp::next(&self.arrived, MAX_ANSWER)? {
            match received {
                Received::Command(body) => {
                    let mut pong = Vec::new();
                    zmtp::answer_command(body, &mut pong);
                    self.out.extend_from_slice(&pong);
                }
                Received::Message { payload, .. } => {
                    let event = ZeroRpcEvent::parse(payload)?;
                    if let Some(count) = event.response_to.and_then(|id| self.ids.count_of(id)) {
                        answer(&mut self.open, count, &event);
                    }
                }
            }
            self.arrived.advance(used);
        }
        Ok(())
    }
}

/// Passes an event to its call, if that is still open.
fn answer(open: &mut HashMap<u64, OpenCall>, count: u64, event: &ZeroRpcEvent<'_>) {
    let result = match event.name {
        b"_zpc_hb" => {
            if let Some(call) = open.get_mut(&count) {
                call.last_heartbeat = Some(Instant::now());
            }
            return;
        }
        b"_zpc_more" => return,
        b"OK" => result(event),
        b"ERR" => Err(error(event)),
        _ => Err(ClientError::Answer("neither OK nor ERR")),
    };
    if let Some(call) = open.remove(&count) {
        let _ = call.answer.send(result);
    }
}

fn result(event: &ZeroRpcEvent<'_>) -> Result<CallOutcome, ClientError> {
    let cursor = event.arguments(1).ok_or(ClientError::Answer("OK without exactly one result"))?;
    Ok(match cursor.clone().text() {
        Ok(text) => CallOutcome::Text(String::from_utf8_lossy(text).into_owned()),
        Err(_) if cursor.rest() == [0xc0] => CallOutcome::Nothing,
        Err(_) => CallOutcome::Other,
    })
}

fn error(event: &ZeroRpcEvent<'_>) -> ClientError {
    let read =
        |cursor: &mut Cursor<'_>| cursor.text().ok().map(|text| String::from_utf8_lossy(text).into_owned());
    let Some(mut cursor) = event.arguments(3) else {
        return ClientError::Answer("ERR without name, message and traceback");
    };
    match (read(&mut cursor), read(&mut cursor)) {
        (Some(name), Some(message)) => reported(name, message),
        _ => ClientError::Answer("ERR without name and message"),
    }
}
