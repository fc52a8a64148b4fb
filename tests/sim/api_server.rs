//! The API server of the simulation: objects with resourceVersions, lists, watches, preconditions and two kinds of patch,
//! over the simulated network. Its state outlives the host, as etcd's does. It answers late, twice or not at all, as the
//! plan of faults says.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

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

struct Change {
    revision: u64,
    kind: &'static str,
    path: String,
    object: Value,
}

struct Objects {
    by_path: BTreeMap<String, Value>,
    changes: Vec<Change>,
    revision: u64,
    serial: u64,
    faults: Faults,
    dice: fastrand::Rng,
}

/// The stored objects; clones share them.
#[derive(Clone)]
pub struct ApiServer {
    objects: Arc<Mutex<Objects>>,
    revision: watch::Sender<u64>,
}

/// Why a request is refused: code, reason, message.
struct Refused(u16, &'static str, String);

/// The parts of a path and query that matter here.
struct Target {
    collection: String,
    name: Option<String>,
    status: bool,
    query: BTreeMap<String, String>,
}

impl ApiServer {
    /// Without objects; `seed` makes its faults.
    pub fn new(seed: u64) -> Self {
        let objects = Objects {
            by_path: BTreeMap::new(),
            changes: Vec::new(),
            revision: 1,
            serial: 0,
            faults: Faults::default(),
            dice: fastrand::Rng::with_seed(seed),
        };
        Self { objects: Arc::new(Mutex::new(objects)), revision: watch::channel(1).0 }
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

    /// Rises with each change.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// All changes so far, in order: path and object.
    pub fn history(&self) -> Vec<(String, Value)> {
        let objects = self.objects.lock();
        objects.changes.iter().map(|change| (change.path.clone(), change.object.clone())).collect()
    }

    /// Serves the port of this host for ever.
    pub async fn serve(self) -> turmoil::Result {
        let listener = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let server = self.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { server.answer(request).await }
                });
                // A client that has gone is no error.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let target = Target::of(&parts.uri);
        let writes = parts.method != Method::GET;
        let (delay, busy, twice, unanswered) = self.objects.lock().draw(writes);
        tokio::time::sleep(delay).await;
        if busy {
            let refused = Refused(429, "TooManyRequests", "busy".into());
            return Ok(refused.response());
        }
        if !writes && target.query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") {
            if target.query.contains_key("sendInitialEvents") {
                return Ok(Refused(422, "Invalid", "sendInitialEvents: Forbidden".into()).response());
            }
            return Ok(self.watch(&target));
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
        if unanswered {
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

    fn watch(&self, target: &Target) -> Response<Body> {
        let since = target.query.get("resourceVersion").and_then(|at| at.parse().ok()).unwrap_or(0);
        let selector = target.query.get("labelSelector").cloned().unwrap_or_default();
        let field = target.query.get("fieldSelector").cloned().unwrap_or_default();
        let collection = format!("{}/", target.collection);
        let state = (self.clone(), self.revision.subscribe(), since);
        let events = stream::unfold(state, move |(server, mut revision, since)| {
            let (collection, selector, field) = (collection.clone(), selector.clone(), field.clone());
            async move {
                loop {
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

impl Objects {
    fn draw(&mut self, writes: bool) -> (Duration, bool, Option<Duration>, bool) {
        let faults = self.faults;
        let delay = faults.late.mul_f64(self.dice.f64());
        let mut hit = |share: f64| self.dice.f64() < share;
        let (busy, twice, unanswered) =
            (hit(faults.busy), writes && hit(faults.twice), hit(faults.unanswered));
        (delay, busy, twice.then(|| Duration::from_secs(2).mul_f64(self.dice.f64())), unanswered)
    }

    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.revision += 1;
        let kind = if self.by_path.contains_key(path) { "MODIFIED" } else { "ADDED" };
        let metadata = &mut object["metadata"];
        if metadata["uid"].is_null() {
            self.serial += 1;
            metadata["uid"] = json!(format!("uid-{}", self.serial));
        }
        metadata["resourceVersion"] = json!(self.revision.to_string());
        self.by_path.insert(path.to_owned(), object.clone());
        let change = Change { revision: self.revision, kind, path: path.to_owned(), object: object.clone() };
        self.changes.push(change);
        object
    }

    fn get(&self, path: &str) -> Result<Value, Refused> {
        self.by_path.get(path).cloned().ok_or_else(|| Refused(404, "NotFound", format!("{path} not found")))
    }

    fn list(&self, target: &Target) -> Value {
        let prefix = format!("{}/", target.collection);
        let selector = target.query.get("labelSelector").map(String::as_str).unwrap_or_default();
        let field = target.query.get("fieldSelector").map(String::as_str).unwrap_or_default();
        let items: Vec<&Value> = self
            .by_path
            .range(prefix.clone()..)
            .take_while(|(path, _)| path.starts_with(&prefix))
            .map(|(_, object)| object)
            .filter(|object| selects(selector, field, object))
            .collect();
        json!({"kind": "List", "metadata": {"resourceVersion": self.revision.to_string()}, "items": items})
    }

    fn create(&mut self, target: &Target, mut object: Value) -> Result<Value, Refused> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let path = format!("{}/{name}", target.collection);
        if self.by_path.contains_key(&path) {
            return Err(Refused(409, "AlreadyExists", format!("{path} exists")));
        }
        object["metadata"]["uid"] = Value::Null;
        Ok(self.store(&path, object))
    }

    fn replace(&mut self, target: &Target, mut object: Value) -> Result<Value, Refused> {
        let old = self.get(&target.path())?;
        let wanted = &object["metadata"]["resourceVersion"];
        if !wanted.is_null() && *wanted != old["metadata"]["resourceVersion"] {
            return Err(conflict());
        }
        let uid = &object["metadata"]["uid"];
        if !uid.is_null() && *uid != old["metadata"]["uid"] {
            return Err(conflict());
        }
        if target.status {
            let status = object["status"].take();
            object = old.clone();
            object["status"] = status;
        }
        object["metadata"]["uid"] = old["metadata"]["uid"].clone();
        Ok(self.store(&target.path(), object))
    }

    fn patch(&mut self, target: &Target, kind: &str, patch: &Value) -> Result<Value, Refused> {
        let mut object = self.get(&target.path())?;
        let old = object["metadata"].clone();
        if kind.starts_with("application/json-patch") {
            // To the API server an absent member is null.
            let holds = |step: &Value| {
                let path = step["path"].as_str().unwrap_or_default();
                step["op"] == "test" && step["value"].is_null() && object.pointer(path).is_none()
            };
            let steps = patch.as_array().into_iter().flatten().filter(|step| !holds(step)).cloned().collect();
            let patch: json_patch::Patch = serde_json::from_value(Value::Array(steps))
                .map_err(|error| Refused(400, "BadRequest", error.to_string()))?;
            json_patch::patch(&mut object, &patch)
                .map_err(|error| Refused(422, "Invalid", error.to_string()))?;
        } else {
            json_patch::merge(&mut object, patch);
        }
        for pinned in ["resourceVersion", "uid"] {
            if object["metadata"][pinned] != old[pinned] {
                return Err(conflict());
            }
        }
        Ok(self.store(&target.path(), object))
    }

    fn delete(&mut self, target: &Target, body: &[u8]) -> Result<Value, Refused> {
        let mut object = self.get(&target.path())?;
        let options: Value = serde_json::from_slice(body).unwrap_or_default();
        for pinned in ["resourceVersion", "uid"] {
            let wanted = &options["preconditions"][pinned];
            if !wanted.is_null() && *wanted != object["metadata"][pinned] {
                return Err(conflict());
            }
        }
        self.by_path.remove(&target.path());
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let (revision, path) = (self.revision, target.path());
        self.changes.push(Change { revision, kind: "DELETED", path, object: object.clone() });
        Ok(object)
    }

    /// The lines of a watch for what has changed after `since`.
    fn lines(&self, collection: &str, selector: &str, field: &str, since: u64) -> String {
        let from = self.changes.partition_point(|change| change.revision <= since);
        let seen = self.changes[from..]
            .iter()
            .filter(|change| change.path.starts_with(collection) && selects(selector, field, &change.object));
        seen.map(|change| format!("{}\n", json!({"type": change.kind, "object": change.object}))).collect()
    }
}

impl Target {
    fn of(uri: &hyper::Uri) -> Self {
        let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
        let plural = parts.iter().position(|part| *part == "namespaces").map_or(parts.len(), |at| at + 3);
        let plural = plural.min(parts.len());
        let query = form_pairs(uri.query().unwrap_or_default());
        Self {
            collection: parts[..plural].join("/"),
            name: parts.get(plural).map(|name| (*name).to_owned()),
            status: parts.get(plural + 1) == Some(&"status"),
            query,
        }
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection, self.name.as_deref().unwrap_or_default())
    }
}

fn form_pairs(query: &str) -> BTreeMap<String, String> {
    let url = reqwest::Url::parse(&format!("http://api/?{query}"));
    url.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
}

/// Whether the object has all labels of `a=b,c=d`, and the name of `metadata.name=n`.
fn selects(selector: &str, field: &str, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let mut terms = selector.split(',').filter(|term| !term.is_empty());
    let named = field.strip_prefix("metadata.name=").is_none_or(|name| object["metadata"]["name"] == name);
    named
        && terms.all(|term| match term.split_once('=') {
            Some((key, value)) => labels[key.trim_end_matches('=')] == value.trim_start_matches('='),
            None => !labels[term].is_null(),
        })
}

fn json_of(body: &[u8]) -> Result<Value, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused(400, "BadRequest", error.to_string()))
}

fn conflict() -> Refused {
    Refused(409, "Conflict", "the object has been modified".to_owned())
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
