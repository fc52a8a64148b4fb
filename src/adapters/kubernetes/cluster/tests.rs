//! What is stored in the caches, what is removed, and which changes are published.

mod backwards;
mod desired;
mod figures;

use std::{collections::HashSet, sync::Arc};

use serde_json::{Value, json};

use super::{
    super::objects::{CachedObject, Kind, PodRecord, Selector},
    Feed, Origin,
    state::State,
};
use crate::decide::time::Moment;

/// A pod of `shop` with these labels beside `app: web`; it serves with `yes`.
fn pod(name: &str, version: u64, traffic: &str) -> PodRecord {
    pod_of(name, version, &json!({"app": "web", "kubervisor/traffic": traffic}), &Value::Null)
}

fn pod_of(name: &str, version: u64, labels: &Value, controller: &Value) -> PodRecord {
    let owners: Vec<&Value> = Some(controller).filter(|c| !c.is_null()).into_iter().collect();
    serde_json::from_value::<PodRecord>(json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("u-{name}"), "labels": labels,
            "resourceVersion": version.to_string(), "ownerReferences": owners,
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap()
}

fn web() -> Selector {
    Selector::new([("app", "web")])
}

impl State {
    fn watched(&mut self, pod: PodRecord) {
        self.put(Kind::Pods, pod, Origin::Watch);
    }

    fn answered(&mut self, pod: PodRecord) {
        self.put(Kind::Pods, pod, Origin::Answer);
    }

    fn known(&self, name: &str) -> Option<u64> {
        self.pods.get("shop", name).map(|pod| pod.version)
    }

    fn departed(&self) -> u64 {
        self.departures.get("shop").copied().unwrap_or(0)
    }
}

#[test]
fn only_what_is_newer_gets_in() {
    let mut state = State::default();
    state.watched(pod("a", 5, "yes"));
    state.answered(pod("a", 4, "no"));
    state.answered(pod("a", 5, "no"));
    assert_eq!((state.known("a"), state.pods.get("shop", "a").unwrap().serving()), (Some(5), true));
    state.answered(pod("a", 6, "no"));
    state.watched(pod("a", 5, "yes"));
    assert_eq!((state.known("a"), state.pods.get("shop", "a").unwrap().serving()), (Some(6), false));
}

#[test]
fn a_pod_that_was_deleted_never_comes_back() {
    let mut state = State::default();
    state.watched(pod("a", 5, "yes"));
    state.delete(Kind::Pods, &pod("a", 7, "yes"), Origin::Watch);
    state.answered(pod("a", 6, "no"));
    state.answered(pod("a", 9, "no"));
    assert_eq!(state.known("a"), None);
    assert!(state.by_uid.is_empty());
}

#[test]
fn the_end_of_a_namesake_does_not_touch_the_pod_that_took_its_place() {
    let mut state = State::default();
    let mut second = pod("a", 8, "yes");
    second.uid = "another".into();
    state.watched(pod("a", 5, "yes"));
    state.watched(second);
    assert_eq!(state.by_uid.len(), 1, "two of one name cannot be");
    state.answered(pod("a", 9, "no"));
    state.delete(Kind::Pods, &pod("a", 10, "yes"), Origin::Watch);
    assert_eq!(state.pods.get("shop", "a").unwrap().uid(), "another");
}

#[test]
fn what_a_list_does_not_show_is_gone_unless_it_is_newer() {
    let mut state = State::default();
    for (name, version) in [("kept", 3), ("gone", 4), ("newer", 12)] {
        state.watched(pod(name, version, "yes"));
    }
    let seen = HashSet::from([Box::from("u-kept")]);
    state.keep::<PodRecord>(Kind::Pods, None, &seen, 10);
    assert_eq!((state.known("kept"), state.known("gone"), state.known("newer")), (Some(3), None, Some(12)));
    state.answered(pod("gone", 11, "yes"));
    assert_eq!(state.known("gone"), None, "it was deleted");
    state.keep::<PodRecord>(Kind::Pods, Some("elsewhere"), &HashSet::new(), 20);
    assert_eq!(state.known("kept"), Some(3), "another namespace is not in that list");
}

#[test]
fn a_pod_that_a_selector_lost_comes_back_with_other_labels_only() {
    let mut state = State::default();
    state.watched(pod("a", 3, "yes"));
    state.keep_selected("shop", &Arc::new(web()), &HashSet::new(), 10);
    assert_eq!(state.known("a"), None);
    state.watched(pod("a", 6, "no"));
    assert_eq!(state.known("a"), None, "an event of before the list");
    state.watched(pod_of("a", 7, &json!({"app": "other"}), &Value::Null));
    assert_eq!(state.known("a"), Some(7), "its labels were changed: it lives on");
}

#[test]
fn a_departure_is_counted_once_and_only_when_the_gate_did_not_do_it() {
    let mut state = State::default();
    for name in ["a", "b", "c", "d"] {
        state.watched(pod(name, 1, "yes"));
    }
    let mut unready = pod("a", 2, "yes");
    unready.ready = false;
    state.watched(unready);
    assert_eq!(state.departed(), 1, "not ready any more");
    state.delete(Kind::Pods, &pod("a", 3, "yes"), Origin::Watch);
    assert_eq!(state.departed(), 1, "it had left service before");
    state.delete(Kind::Pods, &pod("b", 4, "yes"), Origin::Watch);
    assert_eq!(state.departed(), 2, "deleted while it served");
    state.watched(pod("c", 5, "no"));
    assert_eq!(state.departed(), 3, "a person took its traffic");
    state.answered(pod("d", 6, "no"));
    state.watched(pod("d", 6, "no"));
    assert_eq!(state.departed(), 3, "the answer to our own write came first");
}

#[test]
fn the_gates_own_withhold_is_no_departure_even_if_the_watch_is_faster_than_the_answer() {
    let mut state = State::default();
    state.watched(pod("a", 1, "yes"));
    let mut withheld = pod("a", 2, "no");
    withheld.break_at = Some("2026-01-01T00:00:00Z".into());
    state.watched(withheld.clone());
    assert_eq!(state.departed(), 0);
    // Another pod that failed at the same time.
    state.watched(pod("b", 1, "yes"));
    let mut both = pod("b", 3, "no");
    (both.break_at, both.ready) = (withheld.break_at, false);
    state.watched(both);
    assert_eq!(state.departed(), 1);
}

#[test]
fn a_change_tells_the_pod_before_and_after_and_what_changes_nothing_is_not_told() {
    let mut state = State::default();
    state.watched(pod("a", 1, "yes"));
    state.watched(pod("a", 2, "yes"));
    assert_eq!((state.pending_changes.len(), state.known("a")), (1, Some(2)), "a heartbeat");
    state.watched(pod("a", 3, "no"));
    let change = state.pending_changes.pop().unwrap();
    assert_eq!((change.kind, &*change.namespace, &*change.name), (Kind::Pods, "shop", "a"));
    assert!(change.before.unwrap().serving() && !change.after.unwrap().serving());
}

#[test]
fn a_silent_watch_a_broken_one_and_one_that_is_not_complete_are_suspect() {
    let at = |seconds| Moment::after_origin(std::time::Duration::from_secs(seconds));
    let mut feed = Feed::new(Kind::Pods, None, at(0));
    assert!(feed.suspicion(at(1)).unwrap().contains("the first list is not complete yet"));
    feed.listed = true;
    assert_eq!((feed.suspicion(at(120)), feed.problem()), (None, None));
    assert!(feed.suspicion(at(121)).unwrap().contains("the watch of pods was silent for 121 s"));
}
