//! The desired number of pods.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    super::{
        super::objects::{Kind, Selector},
        Desired, Feed, Origin,
        owner_scale::{CachedScale, OwnerScale},
        state::State,
    },
    pod_of,
};
use crate::{adapters::kubernetes::objects::PodRecord, decide::time::Moment};

fn reference(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": format!("u-{name}"), "controller": true})
}

fn set(name: &str) -> Value {
    reference("apps/v1", "ReplicaSet", name)
}

/// A cluster and pods in it.
#[derive(Default)]
struct Scene {
    state: State,
    pods: Vec<Arc<PodRecord>>,
    selector: Option<Selector>,
}

impl Scene {
    fn workload(mut self, kind: Kind, name: &str, replicas: u32, owner: Option<Value>) -> Self {
        let owners: Vec<Value> = owner.into_iter().collect();
        let record = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": format!("u-{name}"), "resourceVersion": "1",
                "ownerReferences": owners},
            "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"app": "web", "set": name}}}},
        });
        let record: super::super::WorkloadRecord = serde_json::from_value(record).unwrap();
        self.state.put(kind, record, Origin::Watch);
        self
    }

    fn scaler(mut self, api_version: &str, kind: &str, name: &str, least: u32) -> Self {
        let target = json!({"apiVersion": api_version, "kind": kind, "name": name});
        let record = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": "u-hpa", "resourceVersion": "1"},
            "spec": {"minReplicas": least, "scaleTargetRef": target},
        });
        let record: super::super::AutoscalerRecord = serde_json::from_value(record).unwrap();
        self.state.put(Kind::Autoscalers, record, Origin::Watch);
        self
    }

    fn pods(mut self, count: usize, owner: &Value) -> Self {
        for _ in 0..count {
            let name = format!("p{}", self.pods.len());
            self.pods.push(Arc::new(pod_of(&name, 1, &json!({"app": "web"}), owner)));
        }
        self
    }

    fn scale(mut self, name: &str, scale: OwnerScale) -> Self {
        self.state.scales.insert(format!("u-{name}").into(), CachedScale::now(scale));
        self
    }

    fn selecting(mut self, labels: &[(&str, &str)]) -> Self {
        self.selector = Some(Selector::new(labels.iter().copied()));
        self
    }

    fn desired(&self) -> Desired {
        self.state.desired("shop", &self.pods, self.selector.as_ref())
    }

    fn count(&self) -> u32 {
        let desired = self.desired();
        assert_eq!(desired.unknown, None);
        desired.count
    }
}

fn deployment() -> Scene {
    let owner = reference("apps/v1", "Deployment", "web");
    let scene = Scene::default().workload(Kind::Deployments, "web", 10, None);
    let scene = scene.workload(Kind::ReplicaSets, "web-old", 4, Some(owner.clone()));
    scene.workload(Kind::ReplicaSets, "web-new", 8, Some(owner))
}

#[test]
fn a_deployment_counts_once_during_a_rollout() {
    let scene = deployment().pods(4, &set("web-old")).pods(8, &set("web-new"));
    assert_eq!(scene.count(), 10);
    let owners = scene.desired().owners;
    assert_eq!(owners.iter().map(|key| &*key.owner.name).collect::<Vec<_>>(), ["web"]);
}

#[test]
fn several_owners_and_pods_without_one_add_up() {
    let scene = deployment().pods(8, &set("web-new"));
    let scene = scene.workload(Kind::StatefulSets, "db", 3, None);
    let scene = scene.pods(3, &reference("apps/v1", "StatefulSet", "db")).pods(2, &Value::Null);
    assert_eq!(scene.count(), 10 + 3 + 2);
}

#[test]
fn a_replica_set_that_nobody_controls_counts_itself() {
    let scene = Scene::default().workload(Kind::ReplicaSets, "lone", 6, None).pods(2, &set("lone"));
    assert_eq!(scene.count(), 6);
}

#[test]
fn an_owner_of_another_kind_counts_by_what_was_read_of_it_however_few_pods_are_there() {
    let job = || Scene::default().pods(3, &reference("batch/v1", "Job", "import"));
    assert_eq!(job().scale("import", OwnerScale::Pods(8)).count(), 8);
    let node = Scene::default().pods(2, &reference("v1", "Node", "n1"));
    assert_eq!(node.count(), 2, "static pods are as many as there are");
    let why = |scene: Scene| (scene.desired().unknown.unwrap(), scene.desired().unreadable);
    assert_eq!(why(job()), ("Job import: not read yet".to_owned(), None));
    let refused = "Job import: the controller may not get jobs".to_owned();
    let unreadable = OwnerScale::Unreadable("the controller may not get jobs".to_owned());
    assert_eq!(why(job().scale("import", unreadable)), (refused.clone(), Some(refused)));
    let (unknown, lasting) = why(job().scale("import", OwnerScale::NoScale));
    assert!(unknown.contains("no scale subresource") && lasting.is_some(), "{unknown}");
}

#[test]
fn a_custom_owner_counts_by_its_scale_when_all_of_its_sets_are_selected_and_by_the_selected_sets_else() {
    let rollout = reference("argoproj.io/v1alpha1", "Rollout", "web");
    let scene = || {
        let scene = Scene::default().workload(Kind::ReplicaSets, "one", 5, Some(rollout.clone()));
        let scene = scene.workload(Kind::ReplicaSets, "two", 2, Some(rollout.clone()));
        scene.workload(Kind::ReplicaSets, "old", 0, Some(rollout.clone())).pods(1, &set("one"))
    };
    let both = || scene().selecting(&[("app", "web")]);
    assert_eq!(both().scale("web", OwnerScale::Pods(6)).count(), 6);
    assert_eq!(both().scale("web", OwnerScale::NoScale).count(), 7, "also the set that has no pod yet");
    assert_eq!(both().desired().unknown.as_deref(), Some("Rollout web: not read yet"));
    let one = || scene().selecting(&[("app", "web"), ("set", "one")]);
    assert_eq!(one().scale("web", OwnerScale::Pods(6)).count(), 5, "the other colour never serves here");
    let scaler = |scene: Scene| scene.scaler("argoproj.io/v1alpha1", "Rollout", "web", 9);
    assert_eq!(scaler(both().scale("web", OwnerScale::Pods(6))).count(), 9);
    assert_eq!(scaler(one()).count(), 5, "an autoscaler scales both colours together");
}

#[test]
fn an_autoscaler_raises_the_number_of_what_it_scales_and_of_nothing_else() {
    let scene = || deployment().pods(8, &set("web-new"));
    assert_eq!(scene().scaler("apps/v1", "Deployment", "web", 12).count(), 12);
    assert_eq!(scene().scaler("apps/v1beta1", "Deployment", "web", 12).count(), 12, "whatever the version");
    assert_eq!(scene().scaler("apps/v1", "Deployment", "web", 3).count(), 10);
    assert_eq!(scene().scaler("apps/v1", "Deployment", "other", 12).count(), 10);
    assert_eq!(scene().scaler("apps/v1", "StatefulSet", "web", 12).count(), 10);
    assert_eq!(scene().scaler("example.com/v1", "Deployment", "web", 12).count(), 10);
    let at_zero = Scene::default().workload(Kind::Deployments, "web", 0, None);
    let owner = reference("apps/v1", "Deployment", "web");
    let at_zero = at_zero.workload(Kind::ReplicaSets, "web-new", 0, Some(owner)).pods(1, &set("web-new"));
    assert_eq!(at_zero.scaler("apps/v1", "Deployment", "web", 3).count(), 0, "it leaves that alone");
}

#[test]
fn pods_that_leave_count_for_nobody() {
    let mut scene = Scene::default().pods(3, &Value::Null);
    let mut leaving = (*scene.pods[0]).clone();
    leaving.terminating = true;
    scene.pods[0] = Arc::new(leaving);
    assert_eq!(scene.count(), 2);
}

#[test]
fn an_owner_that_is_not_known_is_named() {
    let unknown = |scene: Scene| scene.desired().unknown.unwrap();
    assert_eq!(unknown(Scene::default().pods(2, &set("web-new"))), "ReplicaSet web-new");
    let owner = reference("apps/v1", "Deployment", "web");
    let orphan = Scene::default().workload(Kind::ReplicaSets, "web-new", 8, Some(owner));
    assert_eq!(unknown(orphan.pods(1, &set("web-new"))), "Deployment web");
    let mut namesake = set("web-new");
    namesake["uid"] = json!("u-of-another");
    assert_eq!(unknown(deployment().pods(1, &namesake)), "ReplicaSet web-new");
}

#[test]
fn nothing_is_known_for_sure_before_the_autoscalers_are() {
    let mut scene = deployment().pods(8, &set("web-new"));
    scene.state.feeds.push(Feed::new(Kind::Autoscalers, None, Moment::ORIGIN));
    assert!(scene.desired().unknown.unwrap().contains("horizontalpodautoscalers"));
    scene.state.feeds[0].listed = true;
    assert_eq!(scene.count(), 10);
}
