//! A proxy between a controller and the API server that counts what is asked and makes the faults that neither of the
//! two real processes can be told to make: a kill between a write and its answer, a 409 out of the blue, an answer that
//! never comes, a watch that has only bookmarks.
//!
//! Plain HTTP on loopback for the controller, TLS and the token of a plane's user for the API server. It runs on a
//! thread of its own, so that a test may block.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, none uses all")]

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Instant,
};

use axum::http::{
    HeaderName, HeaderValue, Request, Response,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER,
        TRANSFER_ENCODING,
    },
};
use bytes::Bytes;
use futures::future;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch};

#[path = "proxy/asked.rs"]
mod asked;
#[path = "proxy/fault.rs"]
mod fault;
#[path = "proxy/stream.rs"]
mod stream;

pub use asked::{Asked, Count};
use fault::Rules;
pub use fault::{Fault, Matching, Refusal};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// A running proxy; it ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    directory: TempDir,
    shared: Arc<Shared>,
    cut: watch::Sender<u64>,
    _stop: mpsc::Sender<()>,
}

struct Shared {
    began: Instant,
    asked: Mutex<Vec<Asked>>,
    rules: Mutex<Rules>,
    bookmarks_only: watch::Sender<bool>,
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// Starts one that forwards as the user of that kubeconfig.
    pub fn start(upstream: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shared = Arc::new(Shared {
            began: Instant::now(),
            asked: Mutex::default(),
            rules: Mutex::default(),
            bookmarks_only: watch::channel(false).0,
        });
        let ((cut, cuts), (stop, stopped), (ready, address)) =
            (watch::channel(0), mpsc::channel(), mpsc::channel());
        let (upstream, inner) = (upstream.to_owned(), Arc::clone(&shared));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                let client = client(&upstream).await;
                tokio::select! {
                    () = serve(listener, client, inner, cuts) => {}
                    _ = tokio::task::spawn_blocking(move || stopped.recv()) => {}
                }
            });
        });
        let address = address.recv().expect("the proxy listens");
        fs::write(directory.path().join("kubeconfig"), kubeconfig(address)).unwrap();
        Self { address, directory, shared, cut, _stop: stop }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The kubeconfig for whoever is to come through it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// From now on, `fault` for what matches.
    pub fn on(&self, matching: Matching, fault: Fault) {
        self.shared.rules().add(matching, fault);
    }

    /// No faults any more; what hangs goes on hanging, until its client gives up.
    pub fn clear(&self) {
        self.shared.rules().clear();
        self.shared.bookmarks_only.send_replace(false);
    }

    /// Breaks every watch off, in the middle.
    pub fn cut_watches(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Whether watches tell nothing but bookmarks; what happens meanwhile is never told.
    pub fn bookmarks_only(&self, only: bool) {
        self.shared.bookmarks_only.send_replace(only);
    }

    /// What was asked since the start or the last [`forget`](Self::forget).
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked().clone()
    }

    /// The same, counted.
    pub fn count(&self) -> Count {
        Count::of(&self.shared.asked())
    }

    /// Counts from zero again.
    pub fn forget(&self) {
        self.shared.asked().clear();
    }
}

async fn client(upstream: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(upstream).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    // Whoever is behind us is to see what the server said, and when.
    config.default_retry = false;
    config.read_timeout = None;
    Client::try_from(config).unwrap()
}

fn kubeconfig(address: SocketAddr) -> String {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "proxy", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
    });
    config.to_string()
}

async fn serve(listener: TcpListener, client: Client, shared: Arc<Shared>, cuts: watch::Receiver<u64>) {
    while let Ok((socket, _)) = listener.accept().await {
        let _late_packets_only = socket.set_nodelay(true);
        let (client, shared, cuts) = (client.clone(), Arc::clone(&shared), cuts.clone());
        tokio::spawn(async move {
            let service =
                service_fn(|request| pass(request, client.clone(), Arc::clone(&shared), cuts.clone()));
            // An error is a connection that we broke off on purpose, or that its client did.
            let _ended = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

/// One request: told of, met with its faults, forwarded.
async fn pass(
    request: Request<Incoming>,
    client: Client,
    shared: Arc<Shared>,
    cuts: watch::Receiver<u64>,
) -> Result<Answer, BoxError> {
    let asked = Asked::of(&request, shared.began.elapsed());
    let at = {
        let mut all = shared.asked();
        all.push(asked.clone());
        all.len() - 1
    };
    let faults = shared.rules().applying(&asked);
    for fault in &faults {
        match fault {
            Fault::Delay(time) => tokio::time::sleep(*time).await,
            Fault::Refuse(refusal) => {
                tell(&shared, at, refusal.code);
                return Ok(refuse(refusal));
            }
            Fault::Expire if asked.verb == "watch" => return Ok(expired()),
            Fault::Expire => return Ok(refuse(&Refusal::gone())),
            Fault::Before(hook) => {
                hook();
                return Err(broken_off());
            }
            Fault::After(_) | Fault::LoseAnswer | Fault::Hang => {}
        }
    }
    let answer = forward(request, &client).await?;
    tell(&shared, at, answer.status().as_u16());
    if asked.verb == "watch" && answer.status().is_success() {
        return Ok(answer.map(|body| stream::watched(body, cuts, shared.bookmarks_only.subscribe())));
    }
    if faults.is_empty() {
        return Ok(answer.map(|body| body.map_err(BoxError::from).boxed_unsync()));
    }
    // Until the last byte is here the server may still be at it.
    let (head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    for fault in &faults {
        match fault {
            Fault::After(hook) => {
                hook();
                return Err(broken_off());
            }
            Fault::LoseAnswer => return Err(broken_off()),
            Fault::Hang => future::pending::<()>().await,
            _ => {}
        }
    }
    Ok(Response::from_parts(head, whole(body)))
}

fn tell(shared: &Shared, at: usize, code: u16) {
    if let Some(asked) = shared.asked().get_mut(at) {
        asked.code = Some(code);
    }
}

async fn forward(request: Request<Incoming>, client: &Client) -> Result<Response<Body>, BoxError> {
    let (mut head, body) = request.into_parts();
    let hop: [HeaderName; 6] =
        [HOST, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH, ACCEPT_ENCODING, AUTHORIZATION];
    for name in hop {
        head.headers.remove(name);
    }
    let body = body.collect().await?.to_bytes();
    let mut answer = client.send(Request::from_parts(head, Body::from(body))).await?;
    answer.headers_mut().remove(CONNECTION);
    answer.headers_mut().remove(TRANSFER_ENCODING);
    Ok(answer)
}

fn whole(body: Bytes) -> UnsyncBoxBody<Bytes, BoxError> {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

fn refuse(refusal: &Refusal) -> Answer {
    let mut answer = Response::new(whole(refusal.status().to_string().into()));
    *answer.status_mut() = refusal.code.try_into().unwrap();
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(after) = refusal.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, after.into());
    }
    answer
}

/// As an API server says it to a watch: 200, and the news in the stream.
fn expired() -> Answer {
    let event = json!({"type": "ERROR", "object": Refusal::gone().status()});
    let mut answer = Response::new(whole(format!("{event}\n").into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn broken_off() -> BoxError {
    io::Error::from(io::ErrorKind::ConnectionAborted).into()
}
