//! What the replicas do, in order, and whether it breaks a promise.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::Value;

use crate::{objects::Change, world};

/// What all parts of one run tell; clones share it.
#[derive(Clone)]
pub struct Recorder(Arc<Mutex<Record>>);

struct Record {
    now: Duration,
    trace: Vec<String>,
    /// The replicas that work on each service.
    working: BTreeMap<String, BTreeSet<String>>,
    /// When each service lost its owner, or when something happened to the replicas after that.
    unowned_since: BTreeMap<String, Duration>,
    longest_unowned: Duration,
    /// Two replicas may never work on one service; false while clocks run at different speeds.
    exclusive: bool,
    violation: Option<String>,
}

/// While it exists, a replica works on a service.
pub struct Working {
    recorder: Recorder,
    replica: String,
    service: String,
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut record = self.recorder.0.lock();
        record.tell(&format!("{} ends {}", self.replica, self.service));
        record.working.entry(self.service.clone()).or_default().remove(&self.replica);
    }
}

impl Record {
    fn tell(&mut self, what: &str) {
        self.trace.push(format!("{:>6} ms {what}", self.now.as_millis()));
    }

    fn violated(&mut self, what: String) {
        self.tell(&format!("VIOLATED: {what}"));
        self.violation.get_or_insert(what);
    }
}

impl Recorder {
    /// Of so many services; `exclusive`: two replicas never work on one of them.
    pub fn new(services: usize, exclusive: bool) -> Self {
        let services = (0..services).map(world::service);
        Self(Arc::new(Mutex::new(Record {
            now: Duration::ZERO,
            trace: Vec::new(),
            unowned_since: services.clone().map(|service| (service, Duration::ZERO)).collect(),
            working: services.map(|service| (service, BTreeSet::new())).collect(),
            longest_unowned: Duration::ZERO,
            exclusive,
            violation: None,
        })))
    }

    /// Simulated time goes on.
    pub fn set_now(&self, now: Duration) {
        self.0.lock().now = now;
    }

    pub fn tell(&self, what: &str) {
        self.0.lock().tell(what);
    }

    /// A replica works on a service from now on.
    pub fn begin(&self, replica: &str, service: &str) -> Working {
        let mut record = self.0.lock();
        record.tell(&format!("{replica} begins {service}"));
        let others = record.working.entry(service.to_owned()).or_default();
        others.insert(replica.to_owned());
        let all = others.clone();
        if all.len() > 1 && record.exclusive {
            record.violated(format!("{all:?} work on {service} at a time"));
        }
        Working { recorder: self.clone(), replica: replica.to_owned(), service: service.to_owned() }
    }

    /// Something happened to the replicas: the time of what has no owner begins anew.
    pub fn disturbed(&self) {
        let mut record = self.0.lock();
        let now = record.now;
        record.unowned_since.values_mut().for_each(|since| *since = now);
    }

    /// A majority of replicas live: no service may be without an owner for longer than `limit`.
    pub fn check_owned(&self, limit: Duration) {
        let mut record = self.0.lock();
        let now = record.now;
        let owned: Vec<String> = record
            .working
            .iter()
            .filter(|(_, by)| !by.is_empty())
            .map(|(service, _)| service.clone())
            .collect();
        for service in owned {
            record.unowned_since.insert(service, now);
        }
        let Some((service, since)) = record.unowned_since.iter().min_by_key(|(_, since)| **since) else {
            return;
        };
        let (service, unowned) = (service.clone(), now.saturating_sub(*since));
        record.longest_unowned = record.longest_unowned.max(unowned);
        if unowned > limit && record.violation.is_none() {
            record.violated(format!("{service} has had no owner for {unowned:?}, at most {limit:?}"));
        }
    }

    /// The promises that the stored statuses tell about: of each generation one owner, and none of an old one after a
    /// new one.
    pub fn check_history(&self, history: &[Change]) {
        let mut owners: BTreeMap<(&str, u64), &str> = BTreeMap::new();
        let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
        let start = world::path("kubervisorservices", "");
        for change in history {
            let Some(service) = change.path.strip_prefix(&start) else { continue };
            let owner = &change.object["status"]["owner"];
            let (Some(member), Some(generation)) = (owner["member"].as_str(), owner["generation"].as_u64())
            else {
                continue;
            };
            let first = *owners.entry((service, generation)).or_insert(member);
            let newest = newest.entry(service).or_default();
            let mut record = self.0.lock();
            if first != member {
                record
                    .violated(format!("{first} and {member} both own generation {generation} of {service}"));
            }
            if generation < *newest {
                record.violated(format!(
                    "{member} wrote {service} with generation {generation} after {newest} at {:?}",
                    change.at
                ));
            }
            *newest = generation.max(*newest);
        }
    }

    pub fn violate(&self, what: String) {
        self.0.lock().violated(what);
    }

    /// The first broken promise.
    pub fn violation(&self) -> Option<String> {
        self.0.lock().violation.clone()
    }

    pub fn longest_unowned(&self) -> Duration {
        self.0.lock().longest_unowned
    }

    /// What happened, in order.
    pub fn trace(&self) -> Vec<String> {
        self.0.lock().trace.clone()
    }
}

/// The stored changes, as lines like those of a trace.
pub fn lines(history: &[Change]) -> impl Iterator<Item = String> {
    history.iter().map(|Change { at, kind, path, object, .. }| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let (metadata, spec) = (&object["metadata"], &object["spec"]);
        let record = &metadata["annotations"]["kubervisor.k8s.io/member"];
        let record: Value =
            record.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let status = &record["status"];
        format!(
            "{:>6} ms     {kind} {name} version {} holder {} view {} lapses {} owner {}",
            at.as_millis(),
            metadata["resourceVersion"],
            spec["holderIdentity"],
            status["view"],
            status["lapses"],
            object["status"]["owner"]
        )
    })
}

/// The same for two runs only if all went the same way: what the replicas did, and each stored change.
pub fn digest(trace: &[String], history: &[Change]) -> u64 {
    let mut hasher = DefaultHasher::new();
    trace.hash(&mut hasher);
    for change in history {
        let Change { at, revision, kind, path, object, .. } = change;
        let parts: [&Value; 3] =
            [&object["spec"], &object["metadata"]["annotations"], &object["status"]["owner"]];
        (at, revision, kind, path, parts.map(Value::to_string)).hash(&mut hasher);
    }
    hasher.finish()
}
