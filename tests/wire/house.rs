//! A served port with a recording handler, and raw sockets to it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use kubervisor::adapters::wire::{Answer, Handler, Limits, Refusal, RefusalKind, Server, WireMetrics};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The time limit of a step.
pub(crate) const CAP: Duration = Duration::from_secs(20);

/// Records requests; the answer depends on the content.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) pings: Mutex<Vec<String>>,
    pub(crate) forwarded: Mutex<Vec<String>>,
    pub(crate) peers: Mutex<Vec<SocketAddr>>,
    pub(crate) downs: Mutex<usize>,
}

fn refusal(kind: RefusalKind, message: &str) -> Refusal {
    Refusal { kind, message: message.into() }
}

impl Handler for Recorder {
    fn ping(&self, peer: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>> {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(raw) else {
            return Answer::Now(Err(refusal(RefusalKind::Malformed, "not JSON")));
        };
        self.pings.lock().unwrap().push(String::from_utf8_lossy(raw).into_owned());
        self.peers.lock().unwrap().push(peer);
        if value.get("conflict").is_some() {
            return Answer::Now(Err(refusal(RefusalKind::Conflict, "the key is taken")));
        }
        if value.get("later").is_some() {
            return Answer::Later(Box::pin(async {
                tokio::task::yield_now().await;
                Ok(())
            }));
        }
        Answer::Now(Ok(()))
    }

    fn forwarded(&self, _: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>> {
        let raw = String::from_utf8_lossy(raw).into_owned();
        let result = if raw.contains("conflict") {
            Err(refusal(RefusalKind::Conflict, "the key is taken"))
        } else {
            Ok(())
        };
        self.forwarded.lock().unwrap().push(raw);
        Answer::Later(Box::pin(async { result }))
    }

    fn invoke(&self, _: SocketAddr, raw: Bytes) -> BoxFuture<'static, Result<Option<String>, Refusal>> {
        Box::pin(async move {
            let request: serde_json::Value =
                serde_json::from_slice(&raw).map_err(|_| refusal(RefusalKind::Malformed, "not JSON"))?;
            if request.get("forbidden").is_some() {
                return Err(refusal(RefusalKind::Forbidden, "commands are off"));
            }
            if let Some(millis) = request["sleep"].as_u64() {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            if let Some(length) = request["print"].as_u64() {
                return Ok(Some("x".repeat(length as usize)));
            }
            Ok(request["cmd"].as_str().map(str::to_owned))
        })
    }

    fn challenge(&self, _: SocketAddr) -> Result<String, Refusal> {
        Ok(r#"{"challenge":"abc"}"#.into())
    }

    fn state(&self) -> BoxFuture<'static, Result<Option<Bytes>, Refusal>> {
        Box::pin(async { Ok(Some(Bytes::from_static(br#"{"a":1}"#))) })
    }

    fn down(&self) -> Result<(), Refusal> {
        *self.downs.lock().unwrap() += 1;
        Ok(())
    }
}

/// A served port.
pub(crate) struct House {
    pub(crate) address: SocketAddr,
    pub(crate) handler: Arc<Recorder>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) served: JoinHandle<()>,
    registry: Registry,
}

impl House {
    pub(crate) fn open() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let mut registry = Registry::default();
        let metrics = WireMetrics::register(&mut registry);
        let server = Server::bind_with("127.0.0.1:0".parse().unwrap(), limits, metrics).unwrap();
        let address = server.local_addr().unwrap();
        let (handler, shutdown) = (Arc::new(Recorder::default()), CancellationToken::new());
        let served = tokio::spawn(server.serve(Arc::clone(&handler) as Arc<dyn Handler>, shutdown.clone()));
        Self { address, handler, shutdown, served, registry }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// A metric's value: `series` is its name with its labels.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has reached a value.
    pub(crate) async fn reaches(&self, series: &str, value: u64) {
        let reached = async {
            while self.metric(series) < value {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(CAP, reached).await.is_ok(), "{series} is {}", self.metric(series));
    }

    pub(crate) async fn raw(&self) -> Raw {
        Raw(TcpStream::connect(self.address).await.unwrap())
    }

    /// A raw connection after the handshake.
    pub(crate) async fn greeted(&self) -> Raw {
        let mut raw = self.raw().await;
        raw.send(&client_hello()).await;
        let mut hello = [0; 64 + 43];
        timeout(CAP, raw.0.read_exact(&mut hello)).await.unwrap().unwrap();
        raw
    }

    /// Checks that other connections are served.
    pub(crate) async fn still_serves(&self) {
        let mut raw = self.greeted().await;
        raw.send(&ping("{}")).await;
        let answer = raw.read_some().await;
        assert!(answer.windows(2).any(|bytes| bytes == b"OK"), "{answer:?}");
    }
}

/// A socket for arbitrary bytes.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // The server may have closed already; the reads find that.
        let _ = timeout(CAP, self.0.write_all(bytes)).await.unwrap();
    }

    pub(crate) async fn read_some(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 64 << 10];
        let count = timeout(CAP, self.0.read(&mut bytes)).await.expect("an answer in time").unwrap_or(0);
        bytes.truncate(count);
        bytes
    }

    /// Waits until the server closes; returns the last bytes.
    pub(crate) async fn closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = timeout(CAP, self.0.read_to_end(&mut bytes)).await.expect("the server closes it in time");
        bytes
    }
}

/// The captured first bytes of libzmq's DEALER.
pub(crate) fn client_hello() -> Vec<u8> {
    let mut hello = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL".to_vec();
    hello.resize(64, 0);
    hello.extend(b"\x04\x29\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0");
    hello
}

/// A message: the delimiter, then the payload.
pub(crate) fn message(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    match u8::try_from(payload.len()) {
        Ok(length) => bytes.extend([0, length]),
        Err(_) => {
            bytes.push(2);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// A call, as Python 3's zerorpc packs it.
pub(crate) fn call(name: &str, args: Vec<rmpv::Value>) -> Vec<u8> {
    use rmpv::Value;
    let id = Value::Binary(b"0123456789abcdef0123456789abcdef".to_vec());
    let header = Value::Map(vec![("message_id".into(), id), ("v".into(), 3.into())]);
    let mut payload = Vec::new();
    let event = Value::Array(vec![header, name.into(), Value::Array(args)]);
    rmpv::encode::write_value(&mut payload, &event).unwrap();
    message(&payload)
}

/// A keepalive.
pub(crate) fn ping(raw: &str) -> Vec<u8> {
    call("ping", vec![raw.into()])
}
