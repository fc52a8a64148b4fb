//! The API server of the simulation: objects with resourceVersions, lists, watches, preconditions and two kinds of patch,
//! over the simulated network. Its state outlives the host, as etcd's does. It answers late, twice or not at all, as the
//! plan of faults says.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::objects::{Change, Objects, Refused, Target, json_of};

/// The port of the API server.
pub const PORT: u16 = 6443;

type Body = BoxBody<Bytes, Infallible>;

/// How the API server misbehaves at present.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The longest delay before a request is carried out.
    pub late: Duration,
    /// Share of writes that are carried out a second time, up to 2 s later.
    pub twice: f64,
    /// Share of requests that are carried out and never answered.
    pub unanswered: f64,
    /// Share of requests that are refused with 429.
    pub busy: f64,
}

/// The stored objects; clones share them.
#[derive(Clone)]
pub struct ApiServer {
    objects: Arc<Mutex<Objects>>,
    revision: watch::Sender<u64>,
}

impl ApiServer {
    /// Without objects; `seed` makes its faults.
    pub fn new(seed: u64) -> Self {
        Self { objects: Arc::new(Mutex::new(Objects::new(seed))), revision: watch::channel(1).0 }
    }

    /// From now on it misbehaves like this.
    pub fn set_faults(&self, faults: Faults) {
        self.objects.lock().faults = faults;
    }

    /// The object at `path`, as stored.
    pub fn object(&self, path: &str) -> Option<Value> {
        self.objects.lock().by_path.get(path).cloned()
    }

    /// The objects whose path begins with `prefix`.
    pub fn objects(&self, prefix: &str) -> Vec<Value> {
        let objects = self.objects.lock();
        let from = objects.by_path.range(prefix.to_owned()..);
        from.take_while(|(path, _)| path.starts_with(prefix)).map(|(_, object)| object.clone()).collect()
    }

    /// Stores an object past all requests, as an administrator does.
    pub fn put(&self, path: &str, object: Value) -> Value {
        let mut objects = self.objects.lock();
        let stored = objects.store(path, object);
        self.revision.send_replace(objects.revision);
        stored
    }

    /// The requests about Leases that were refused or not answered, as lines like those of a trace.
    pub fn refusals(&self) -> Vec<String> {
        self.objects.lock().refusals.clone()
    }

    /// How many requests about Leases of one host were refused or not answered in a row, at most, since
    /// [`forget_lost`](Self::forget_lost).
    pub fn lost_in_a_row(&self) -> u32 {
        self.objects.lock().lost.values().map(|(_, longest)| *longest).max().unwrap_or(0)
    }

    /// Counts them anew.
    pub fn forget_lost(&self) {
        self.objects.lock().lost.clear();
    }

    /// Rises with each change.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// All changes so far, in order.
    pub fn history(&self) -> Vec<Change> {
        self.objects.lock().changes.clone()
    }

    /// Whether this host gets no answers from now on, while what it asks for is done.
    pub fn set_deaf(&self, host: IpAddr, deaf: bool) {
        let hosts = &mut self.objects.lock().deaf;
        if deaf {
            hosts.insert(host)
        } else {
            hosts.remove(&host)
        };
    }

    fn is_deaf(&self, host: IpAddr) -> bool {
        self.objects.lock().deaf.contains(&host)
    }

    /// Serves the port of this host for ever.
    pub async fn serve(self) -> turmoil::Result {
        let listener = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
        loop {
            let (stream, peer) = listener.accept().await?;
            let server = self.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { server.answer(request, peer.ip()).await }
                });
                // A client that has gone is no error.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }

    async fn answer(self, request: Request<Incoming>, peer: IpAddr) -> Result<Response<Body>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let target = Target::of(&parts.uri);
        let writes = parts.method != Method::GET;
        let (delay, busy, twice, unanswered) = self.objects.lock().draw(writes);
        tokio::time::sleep(delay).await;
        if target.collection.ends_with("/leases") {
            let refused = busy.then_some("refused").or(unanswered.then_some("not answered"));
            self.objects.lock().note_request(&parts.method, peer, refused);
        }
        if busy {
            let refused = Refused(429, "TooManyRequests", "busy".into());
            return Ok(refused.response());
        }
        if !writes && target.query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") {
            if target.query.contains_key("sendInitialEvents") {
                return Ok(Refused(422, "Invalid", "sendInitialEvents: Forbidden".into()).response());
            }
            return Ok(self.watch(&target, peer));
        }
        let patch = parts.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let found = self.carry_out(&parts.method, &target, patch, &body);
        if let Some(delay) = twice {
            let (server, method, patch) = (self.clone(), parts.method.clone(), patch.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                // The second time only the effect matters.
                drop(server.carry_out(&method, &target, &patch, &body));
            });
        }
        if unanswered || self.is_deaf(peer) {
            std::future::pending::<()>().await;
        }
        Ok(match found {
            Ok((code, object)) => response(code, object.to_string()),
            Err(refused) => refused.response(),
        })
    }

    fn carry_out(
        &self,
        method: &Method,
        target: &Target,
        patch: &str,
        body: &[u8],
    ) -> Result<(u16, Value), Refused> {
        let mut objects = self.objects.lock();
        let done = match *method {
            Method::GET if target.name.is_none() => Ok((200, objects.list(target))),
            Method::GET => objects.get(&target.path()).map(|object| (200, object)),
            Method::POST => objects.create(target, json_of(body)?).map(|object| (201, object)),
            Method::PUT => objects.replace(target, json_of(body)?).map(|object| (200, object)),
            Method::PATCH => objects.patch(target, patch, &json_of(body)?).map(|object| (200, object)),
            Method::DELETE => objects.delete(target, body).map(|object| (200, object)),
            _ => Err(Refused(405, "MethodNotAllowed", method.to_string())),
        };
        self.revision.send_replace(objects.revision);
        done
    }

    fn watch(&self, target: &Target, peer: IpAddr) -> Response<Body> {
        let since = target.query.get("resourceVersion").and_then(|at| at.parse().ok()).unwrap_or(0);
        let selector = target.query.get("labelSelector").cloned().unwrap_or_default();
        let field = target.query.get("fieldSelector").cloned().unwrap_or_default();
        let collection = format!("{}/", target.collection);
        let state = (self.clone(), self.revision.subscribe(), since);
        let events = stream::unfold(state, move |(server, mut revision, since)| {
            let (collection, selector, field) = (collection.clone(), selector.clone(), field.clone());
            async move {
                loop {
                    while server.is_deaf(peer) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    let until = *revision.borrow_and_update();
                    let lines = server.objects.lock().lines(&collection, &selector, &field, since);
                    if !lines.is_empty() {
                        return Some((Frame::data(Bytes::from(lines)), (server, revision, until)));
                    }
                    revision.changed().await.ok()?;
                }
            }
        });
        Response::new(BodyExt::boxed(StreamBody::new(events.map(Ok::<_, Infallible>))))
    }
}

impl Refused {
    fn response(&self) -> Response<Body> {
        let Self(code, reason, message) = self;
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
            "reason": reason, "message": message});
        response(*code, status.to_string())
    }
}

fn response(code: u16, text: String) -> Response<Body> {
    let mut response = Response::new(http_body_util::Full::new(Bytes::from(text)).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}
