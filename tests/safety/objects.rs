//! What the checker reads of stored objects, spelled out once more: a mistake in the product's own names and
//! rules must not be the checker's mistake too.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

pub(super) const TRAFFIC: &str = "kubervisor/traffic";
pub(super) const NAME: &str = "kubervisor/name";
pub(super) const STRATEGY: &str = "kubervisor/strategy";
pub(super) const BREAK_AT: &str = "breaker/breakAt";
pub(super) const FENCE: &str = "kubervisor/fence";
pub(super) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const OUR_DELETION_COST: &str = "-2147483647";

/// The kinds that decide about traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Pod,
    Deployment,
    ReplicaSet,
    StatefulSet,
    Autoscaler,
    Service,
    Slice,
    Resource,
}

/// What an etcd key stands for: its kind, namespace and name.
pub(super) fn identify(key: &str) -> Option<(Kind, &str, &str)> {
    const PLACES: [(&str, Kind); 8] = [
        ("pods/", Kind::Pod),
        ("deployments/", Kind::Deployment),
        ("replicasets/", Kind::ReplicaSet),
        ("statefulsets/", Kind::StatefulSet),
        ("horizontalpodautoscalers/", Kind::Autoscaler),
        ("services/specs/", Kind::Service),
        ("endpointslices/", Kind::Slice),
        ("kubervisor.k8s.io/kubervisorservices/", Kind::Resource),
    ];
    let key = key.strip_prefix("/registry/")?;
    let (kind, rest) = PLACES.iter().find_map(|(place, kind)| Some((*kind, key.strip_prefix(place)?)))?;
    let (namespace, name) = rest.split_once('/')?;
    Some((kind, namespace, name))
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), text(value))).collect()
}

/// The kind, name and UID of the controlling owner.
fn controller(object: &Value) -> Option<(String, String, String)> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    Some((text(&owner["kind"]), text(&owner["name"]), text(&owner["uid"])))
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pod {
    pub(super) uid: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) owner: Option<(String, String, String)>,
    pub(super) terminating: bool,
    phase: String,
    ready: bool,
}

impl Pod {
    pub(super) fn read(object: &Value) -> Self {
        let (metadata, status) = (&object["metadata"], &object["status"]);
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let ready = conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        Self {
            uid: text(&metadata["uid"]),
            name: text(&metadata["name"]),
            labels: texts(&metadata["labels"]),
            annotations: texts(&metadata["annotations"]),
            owner: controller(object),
            terminating: metadata["deletionTimestamp"].is_string(),
            phase: text(&status["phase"]),
            ready,
        }
    }

    pub(super) fn traffic(&self) -> Option<&str> {
        self.labels.get(TRAFFIC).map(String::as_str)
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// Whether it would take requests if its labels let it.
    pub(super) fn could_serve(&self) -> bool {
        self.ready && !self.terminating && self.phase == "Running"
    }

    /// Whether it is one of its fleet at all.
    pub(super) fn lives(&self) -> bool {
        !self.terminating && self.phase != "Succeeded" && self.phase != "Failed"
    }

    /// What a pod that serves has no use for.
    pub(super) fn leftovers(&self) -> Vec<&'static str> {
        let mut left = Vec::new();
        if self.labels.contains_key(STRATEGY) {
            left.push(STRATEGY);
        }
        if self.annotations.contains_key(BREAK_AT) {
            left.push(BREAK_AT);
        }
        if self.annotation(DELETION_COST) == Some(OUR_DELETION_COST) {
            left.push(DELETION_COST);
        }
        left
    }
}

/// A Deployment, a ReplicaSet or a StatefulSet.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) replicas: u64,
    pub(super) owner: Option<(String, String, String)>,
}

impl Owner {
    pub(super) fn read(object: &Value) -> Self {
        Self {
            name: text(&object["metadata"]["name"]),
            replicas: object["spec"]["replicas"].as_u64().unwrap_or(1),
            owner: controller(object),
        }
    }
}

/// Whom it scales, and the least.
#[derive(Clone, Debug)]
pub(super) struct Autoscaler {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) least: u64,
}

impl Autoscaler {
    pub(super) fn read(object: &Value) -> Self {
        let target = &object["spec"]["scaleTargetRef"];
        Self {
            kind: text(&target["kind"]),
            name: text(&target["name"]),
            least: object["spec"]["minReplicas"].as_u64().unwrap_or(1),
        }
    }
}

/// A Service's selector, whole.
pub(super) type Selector = BTreeMap<String, String>;

pub(super) fn selector(object: &Value) -> Selector {
    texts(&object["spec"]["selector"])
}

/// An EndpointSlice: its Service, and the UIDs of the pods that it shows ready.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub(super) service: String,
    pub(super) ready: BTreeSet<String>,
}

impl Slice {
    pub(super) fn read(object: &Value) -> Self {
        let endpoints = object["endpoints"].as_array().into_iter().flatten();
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
        Self {
            service: text(&object["metadata"]["labels"]["kubernetes.io/service-name"]),
            ready: ready.map(|endpoint| text(&endpoint["targetRef"]["uid"])).collect(),
        }
    }
}

/// A KubervisorService.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) uid: String,
    pub(super) service: String,
    /// Of each breaker: the least number and the least share in percent.
    pub(super) least: Vec<(u64, u64)>,
    /// The UIDs of the ledger's pods.
    pub(super) entries: Vec<String>,
    /// Those whose withdrawal may still land.
    pub(super) reserved: BTreeSet<String>,
    pub(super) dry_run: bool,
    pub(super) paused: bool,
}

impl Resource {
    pub(super) fn read(object: &Value) -> Self {
        let breakers = object["spec"]["breakers"].as_array().into_iter().flatten();
        let number = |value: &Value, default| value.as_u64().unwrap_or(default);
        let entries = || object["status"]["ledger"]["entries"].as_object().into_iter().flatten();
        let reserved = entries().filter(|(_, entry)| entry["state"] == "reserved");
        Self {
            uid: text(&object["metadata"]["uid"]),
            service: text(&object["spec"]["service"]),
            least: breakers
                .map(|b| (number(&b["minPodsAvailableCount"], 1), number(&b["minPodsAvailableRatio"], 0)))
                .collect(),
            entries: entries().map(|(uid, _)| uid.clone()).collect(),
            reserved: reserved.map(|(uid, _)| uid.clone()).collect(),
            dry_run: object["spec"]["dryRun"] == true,
            paused: object["spec"]["paused"] == true || asked_to_pause(object),
        }
    }

    /// Why nothing may be reserved.
    pub(super) fn off(&self) -> Option<&'static str> {
        self.paused.then_some("paused").or(self.dry_run.then_some("dry run"))
    }

    /// So many must serve when there should be so many.
    pub(super) fn floor(&self, desired: u64) -> u64 {
        let of = |(count, ratio): &(u64, u64)| (*count).max((ratio * desired).div_ceil(100));
        self.least.iter().map(of).max().unwrap_or(0)
    }
}

/// The last request about the whole resource asks for a pause. Requests of the driver end by the next one.
fn asked_to_pause(object: &Value) -> bool {
    let requests = object["metadata"]["annotations"]["kubervisor/requests"].as_str().unwrap_or_default();
    let requests = requests.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut of_all =
        requests.map(|request| text(&request["do"])).filter(|verb| verb == "pause" || verb == "resume");
    of_all.next_back().as_deref() == Some("pause")
}
