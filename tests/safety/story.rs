//! Histories in the making, for the checker's own proof.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::checker::{Circumstances, Report, Revision, Violation, judge};

/// A history in the making: ten pods of one Deployment, floor 8.
pub(super) struct Story {
    pub(super) at: Duration,
    pub(super) revisions: Vec<Revision>,
    pub(super) pods: Vec<Value>,
    /// The resource; null: it is gone.
    pub(super) resource: Value,
    pub(super) circumstances: Circumstances,
}

const RESOURCE: &str = "kubervisor.k8s.io/kubervisorservices/shop/web";

impl Story {
    pub(super) fn of_ten() -> Self {
        let circumstances =
            Circumstances { namespaces: BTreeSet::from(["shop".to_owned()]), ..Circumstances::default() };
        let mut story = Self {
            at: Duration::ZERO,
            revisions: Vec::new(),
            pods: Vec::new(),
            resource: resource(),
            circumstances,
        };
        story.scale(10);
        let owner = json!([{"kind": "Deployment", "name": "web", "uid": "d", "controller": true}]);
        let set = json!({"metadata": {"name": "web-1", "ownerReferences": owner}, "spec": {"replicas": 3}});
        story.put("replicasets/shop/web-1", Some(set));
        story.select(&json!({"app": "web", "kubervisor/traffic": "yes"}));
        story.put(RESOURCE, Some(story.resource.clone()));
        for number in 0..10 {
            story.pods.push(pod(number));
            story.store(number);
        }
        story.list(0..10);
        story.later(60.0);
        story
    }

    pub(super) fn later(&mut self, seconds: f64) {
        self.at += Duration::from_secs_f64(seconds);
    }

    pub(super) fn put(&mut self, place: &str, object: Option<Value>) {
        let number = self.revisions.len() as i64 + 1;
        self.revisions.push(Revision { number, at: self.at, key: format!("/registry/{place}"), object });
    }

    pub(super) fn scale(&mut self, replicas: u32) {
        let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas}});
        self.put("deployments/shop/web", Some(deployment));
    }

    /// The slice of the Service lists these and no others.
    pub(super) fn list(&mut self, numbers: std::ops::Range<usize>) {
        let endpoint =
            |number| json!({"targetRef": {"uid": format!("u{number}")}, "conditions": {"ready": true}});
        let endpoints: Vec<_> = numbers.map(endpoint).collect();
        let labels = json!({"kubernetes.io/service-name": "web"});
        let slice = json!({"metadata": {"name": "web-x", "labels": labels}, "endpoints": endpoints});
        self.put("endpointslices/shop/web-x", Some(slice));
    }

    /// The Service's selector.
    pub(super) fn select(&mut self, selector: &Value) {
        self.put("services/specs/shop/web", Some(json!({"spec": {"selector": selector}})));
    }

    /// A change of the resource.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.resource);
        self.put(RESOURCE, Some(self.resource.clone()));
    }

    pub(super) fn end_resource(&mut self) {
        self.resource = Value::Null;
        self.put(RESOURCE, None);
    }

    /// The pod's entry in the ledger; `None`: it has none any more.
    pub(super) fn entry(&mut self, number: usize, state: Option<&str>) {
        self.edit(|resource| {
            let entries = resource["status"]["ledger"]["entries"].as_object_mut().unwrap();
            match state {
                Some(state) => drop(entries.insert(format!("u{number}"), json!({"state": state}))),
                None => drop(entries.remove(&format!("u{number}"))),
            }
        });
    }

    pub(super) fn store(&mut self, number: usize) {
        let pod = self.pods[number].clone();
        self.put(&format!("pods/shop/web-{number}"), Some(pod));
    }

    /// More pods than there should be, as a rollout with a surge makes them.
    pub(super) fn add_pods(&mut self, count: usize) {
        for _ in 0..count {
            self.pods.push(pod(self.pods.len()));
            self.store(self.pods.len() - 1);
        }
        self.list(0..self.pods.len());
    }

    /// All pods belong to a StatefulSet of ten.
    pub(super) fn owned_by_a_stateful_set(&mut self) {
        let set = json!({"metadata": {"name": "web"}, "spec": {"replicas": 10}});
        self.put("statefulsets/shop/web", Some(set));
        for number in 0..self.pods.len() {
            let owner = json!([{"kind": "StatefulSet", "name": "web", "uid": "s", "controller": true}]);
            self.pods[number]["metadata"]["ownerReferences"] = owner;
            self.store(number);
        }
        self.later(60.0);
    }

    /// A pod is deleted, and another one of its name is created that is not ready yet.
    pub(super) fn replace(&mut self, number: usize) {
        self.put(&format!("pods/shop/web-{number}"), None);
        self.pods[number]["metadata"]["uid"] = json!(format!("u{number}-b"));
        self.ready(number, false);
    }

    /// Our withdrawal as it should be: reserved, then carried out.
    pub(super) fn withhold(&mut self, number: usize) {
        self.entry(number, Some("reserved"));
        self.land(number);
    }

    /// Our withdrawal's write to the pod, with its marks.
    pub(super) fn land(&mut self, number: usize) {
        let at = format!("{:?}", self.at);
        let metadata = &mut self.pods[number]["metadata"];
        metadata["labels"]["kubervisor/traffic"] = json!("no");
        metadata["labels"]["kubervisor/strategy"] = json!("slow");
        metadata["annotations"]["breaker/breakAt"] = json!(at);
        self.store(number);
    }

    pub(super) fn admit(&mut self, number: usize) {
        let fence = format!("e.{}", self.revisions.len());
        let metadata = &mut self.pods[number]["metadata"];
        metadata["labels"] = json!({"app": "web", "kubervisor/traffic": "yes", "kubervisor/name": "web"});
        metadata["annotations"] = json!({"kubervisor/fence": fence});
        self.store(number);
        if !self.resource.is_null() {
            self.entry(number, None);
        }
    }

    pub(super) fn ready(&mut self, number: usize, ready: bool) {
        let status = if ready { "True" } else { "False" };
        self.pods[number]["status"]["conditions"][0]["status"] = json!(status);
        self.store(number);
    }

    pub(super) fn traffic_by_hand(&mut self, number: usize, word: &str) {
        self.pods[number]["metadata"]["labels"]["kubervisor/traffic"] = json!(word);
        self.store(number);
    }

    pub(super) fn judged(&self) -> Report {
        judge(&self.revisions, &self.circumstances, self.at)
    }

    /// The only kind of violation, or a failed test.
    pub(super) fn only(&self, expected: impl Fn(&Violation) -> bool) {
        let report = self.judged();
        assert!(!report.violations.is_empty() && report.violations.iter().all(expected), "{report}");
    }
}

fn resource() -> Value {
    let breakers =
        json!([{"name": "slow", "minPodsAvailableRatio": 75}, {"name": "down", "minPodsAvailableCount": 2}]);
    json!({
        "metadata": {"name": "web", "uid": "k"}, "spec": {"service": "web", "breakers": breakers},
        "status": {"ledger": {"entries": {}}},
    })
}

fn pod(number: usize) -> Value {
    let owner = json!([{"kind": "ReplicaSet", "name": "web-1", "uid": "r", "controller": true}]);
    let labels = json!({"app": "web", "kubervisor/traffic": "yes", "kubervisor/name": "web"});
    json!({
        "metadata": {
            "name": format!("web-{number}"), "uid": format!("u{number}"), "labels": labels,
            "annotations": {"kubervisor/fence": "e.1"}, "ownerReferences": owner,
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}
