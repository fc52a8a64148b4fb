//! What the API server of the simulation stores: objects with resourceVersions, and every change of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use hyper::Method;
use serde_json::{Value, json};

use crate::api_server::Faults;

/// One change of one object.
#[derive(Clone)]
pub struct Change {
    /// Simulated time.
    pub at: Duration,
    pub revision: u64,
    pub kind: &'static str,
    pub path: String,
    pub object: Value,
    /// As an event of a watch.
    line: Arc<str>,
}

/// All objects, and the faults of the server that holds them.
pub struct Objects {
    pub by_path: BTreeMap<String, Value>,
    pub changes: Vec<Change>,
    pub revision: u64,
    serial: u64,
    pub faults: Faults,
    dice: fastrand::Rng,
    /// Hosts that get no answer: what they ask for is done.
    pub deaf: BTreeSet<IpAddr>,
    /// Requests about Leases that were refused or not answered, as lines of a trace.
    pub refusals: Vec<String>,
    /// How many of them each host has had in a row: now, and at most.
    pub lost: BTreeMap<IpAddr, (u32, u32)>,
}

/// Why a request is refused: code, reason, message.
pub struct Refused(pub u16, pub &'static str, pub String);

/// The parts of a path and query that matter here.
pub struct Target {
    pub collection: String,
    pub name: Option<String>,
    status: bool,
    pub query: BTreeMap<String, String>,
}

impl Objects {
    /// None; `seed` makes the faults.
    pub fn new(seed: u64) -> Self {
        Self {
            by_path: BTreeMap::new(),
            changes: Vec::new(),
            revision: 1,
            serial: 0,
            faults: Faults::default(),
            dice: fastrand::Rng::with_seed(seed),
            deaf: BTreeSet::new(),
            refusals: Vec::new(),
            lost: BTreeMap::new(),
        }
    }

    /// What happens to a request: delay, refused with 429, delay of its repetition, unanswered.
    pub fn draw(&mut self, writes: bool) -> (Duration, bool, Option<Duration>, bool) {
        let faults = self.faults;
        let delay = faults.late.mul_f64(self.dice.f64());
        let mut hit = |share: f64| self.dice.f64() < share;
        let (busy, twice, unanswered) =
            (hit(faults.busy), writes && hit(faults.twice), hit(faults.unanswered));
        (delay, busy, twice.then(|| Duration::from_secs(2).mul_f64(self.dice.f64())), unanswered)
    }

    /// Notes whether a request about Leases was answered as it should be.
    pub fn note_request(&mut self, method: &Method, host: IpAddr, refused: Option<&str>) {
        let (run, longest) = self.lost.entry(host).or_default();
        *run = if refused.is_some() { *run + 1 } else { 0 };
        *longest = (*longest).max(*run);
        if let Some(how) = refused {
            let at = turmoil::sim_elapsed().unwrap_or_default().as_millis();
            let host = turmoil::reverse_lookup(host).unwrap_or_default();
            self.refusals.push(format!("{at:>6} ms     {method} of Leases by {host} {how}"));
        }
    }

    pub fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.revision += 1;
        let kind = if self.by_path.contains_key(path) { "MODIFIED" } else { "ADDED" };
        let metadata = &mut object["metadata"];
        if metadata["uid"].is_null() {
            self.serial += 1;
            metadata["uid"] = json!(format!("uid-{}", self.serial));
        }
        metadata["resourceVersion"] = json!(self.revision.to_string());
        self.by_path.insert(path.to_owned(), object.clone());
        self.note(kind, path, &object);
        object
    }

    fn note(&mut self, kind: &'static str, path: &str, object: &Value) {
        let (at, revision) = (turmoil::sim_elapsed().unwrap_or_default(), self.revision);
        let line = format!("{}\n", json!({"type": kind, "object": object})).into();
        self.changes.push(Change { at, revision, kind, path: path.to_owned(), object: object.clone(), line });
    }

    pub fn get(&self, path: &str) -> Result<Value, Refused> {
        self.by_path.get(path).cloned().ok_or_else(|| Refused(404, "NotFound", format!("{path} not found")))
    }

    pub fn list(&self, target: &Target) -> Value {
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

    pub fn create(&mut self, target: &Target, mut object: Value) -> Result<Value, Refused> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let path = format!("{}/{name}", target.collection);
        if self.by_path.contains_key(&path) {
            return Err(Refused(409, "AlreadyExists", format!("{path} exists")));
        }
        object["metadata"]["uid"] = Value::Null;
        Ok(self.store(&path, object))
    }

    pub fn replace(&mut self, target: &Target, mut object: Value) -> Result<Value, Refused> {
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

    pub fn patch(&mut self, target: &Target, kind: &str, patch: &Value) -> Result<Value, Refused> {
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

    pub fn delete(&mut self, target: &Target, body: &[u8]) -> Result<Value, Refused> {
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
        self.note("DELETED", &target.path(), &object);
        Ok(object)
    }

    /// The lines of a watch for what has changed after `since`.
    pub fn lines(&self, collection: &str, selector: &str, field: &str, since: u64) -> String {
        let from = self.changes.partition_point(|change| change.revision <= since);
        let seen = self.changes[from..]
            .iter()
            .filter(|change| change.path.starts_with(collection) && selects(selector, field, &change.object));
        seen.map(|change| &*change.line).collect()
    }
}

impl Target {
    pub fn of(uri: &hyper::Uri) -> Self {
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

    pub fn path(&self) -> String {
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

pub fn json_of(body: &[u8]) -> Result<Value, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused(400, "BadRequest", error.to_string()))
}

fn conflict() -> Refused {
    Refused(409, "Conflict", "the object has been modified".to_owned())
}
