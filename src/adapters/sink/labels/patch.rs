//! One action as a guarded JSON Patch: the API server tests everything that the decision rests on in the same request.
//!
//! A pod without annotations has no map to add one to, so the whole map is tested and added. `test` with `null` passes for an
//! absent member; `remove` of an absent one fails, so only members of the cached pod are removed, and a stale cache leads
//! to a conflict.

use serde_json::{Value, json};

use crate::{
    adapters::kubernetes::objects::PodRecord,
    api::keys,
    decide::{
        fleet::Traffic,
        gate::action::{Action, Verb},
        label::is_label_value,
    },
};

/// The pod and the resource that a patch is made for.
pub(super) struct PatchTarget<'a> {
    /// The pod as cached.
    pub(super) pod: &'a PodRecord,
    /// The KubervisorService's name.
    pub(super) resource: &'a str,
}

/// The patch of an action; `None` for actions without one.
pub(super) fn patch(action: &Action, target: &PatchTarget<'_>) -> Option<Vec<Value>> {
    if matches!(action.verb, Verb::Kill | Verb::Release | Verb::Forget) {
        return None;
    }
    let mut steps = vec![test("/metadata/uid".to_owned(), json!(target.pod.uid.as_str()))];
    guard(action, target, &mut steps);
    match action.verb {
        Verb::Claim => claim(action, target, &mut steps),
        _ => write(action, target, &mut steps),
    }
    Some(steps)
}

/// Removes our marks from a released pod; its traffic label stays.
pub(super) fn release(target: &PatchTarget<'_>) -> Vec<Value> {
    let mut steps = same_pod(target);
    remove_all(target, &mut steps);
    steps
}

/// Removes the marks of a withdrawal from a serving pod; `None` for one without a fence.
pub(super) fn clean_up(target: &PatchTarget<'_>) -> Option<Vec<Value>> {
    let mut steps = still_serving(target)?;
    remove_marks(target, &mut steps);
    Some(steps)
}

/// Removes our marks from a serving pod that has left the fleet; `None` for one without a fence.
pub(super) fn leave(target: &PatchTarget<'_>) -> Option<Vec<Value>> {
    let mut steps = still_serving(target)?;
    remove_all(target, &mut steps);
    Some(steps)
}

/// Tests that it is still the pod that the resource has claimed.
fn same_pod(target: &PatchTarget<'_>) -> Vec<Value> {
    vec![
        test("/metadata/uid".to_owned(), json!(target.pod.uid.as_str())),
        test(label(keys::NAME), json!(target.resource)),
    ]
}

/// Tests that the pod still serves: a withdrawal that has landed meanwhile must not lose its marks. `None` without a fence.
fn still_serving(target: &PatchTarget<'_>) -> Option<Vec<Value>> {
    let fence = target.pod.fence_text.as_deref()?;
    let mut tests = same_pod(target);
    tests.extend([test(label(keys::TRAFFIC), json!("yes")), test(annotation(keys::FENCE), json!(fence))]);
    Some(tests)
}

fn remove_all(target: &PatchTarget<'_>, steps: &mut Vec<Value>) {
    steps.push(remove(label(keys::NAME)));
    remove_strategy(target, steps);
    remove_cost(target, steps);
    let pod = target.pod;
    let ours = [
        (keys::BREAK_AT, &pod.break_at),
        (keys::RETRY_COUNT, &pod.retry_count),
        (keys::ADMITTED_AT, &pod.admitted_at),
        (keys::FENCE, &pod.fence_text),
    ];
    steps.extend(ours.iter().filter(|(_, text)| text.is_some()).map(|(key, _)| remove(annotation(key))));
}

/// How the answer to the patch differs from what it wrote: an admission policy or webhook has changed it.
pub(super) fn altered(action: &Action, stored: &PodRecord, resource: &str) -> Option<String> {
    let write = &action.write;
    let name = (action.verb == Verb::Claim).then_some(resource);
    let fence = write.fence.map(|fence| fence.to_string());
    let break_at = write.break_at.map(|at| at.to_string());
    let written = [
        (keys::NAME, name, stored.labels.get(keys::NAME)),
        (keys::TRAFFIC, write.traffic.and_then(label_text), stored.labels.get(keys::TRAFFIC)),
        (keys::FENCE, fence.as_deref(), stored.fence_text.as_deref()),
        (keys::BREAK_AT, break_at.as_deref(), stored.break_at.as_deref()),
    ];
    let changed = written.into_iter().filter(|(_, sent, is)| sent.is_some() && sent != is);
    let each: Vec<String> =
        changed.map(|(key, sent, is)| format!("{key} is {}, not {}", shown(is), shown(sent))).collect();
    (!each.is_empty()).then(|| format!("an admission policy or webhook changes it: {}", each.join("; ")))
}

/// A value as text for people.
fn shown(text: Option<&str>) -> String {
    text.map_or_else(|| "absent".to_owned(), |text| format!("{text:?}"))
}

/// How the stored pod differs from the action's tests.
pub(super) fn differences(action: &Action, stored: &PodRecord, resource: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, wanted: Option<&str>, is: Option<&str>| {
        if wanted != is {
            found.push(format!("its {what} is {}, not {}", shown(is), shown(wanted)));
        }
    };
    differ("uid", Some(action.uid.as_str()), Some(stored.uid.as_str()));
    if action.guard.ours {
        differ(keys::NAME, Some(resource), stored.labels.get(keys::NAME));
    }
    if action.guard.traffic == Some(Traffic::Unlabelled) {
        differ(keys::TRAFFIC, None, stored.labels.get(keys::TRAFFIC));
    }
    if let Some(traffic) = action.guard.traffic.and_then(label_text) {
        differ(keys::TRAFFIC, Some(traffic), stored.labels.get(keys::TRAFFIC));
    }
    if let Some(fence) = action.guard.fence {
        differ(keys::FENCE, Some(&fence.to_string()), stored.fence_text.as_deref());
    }
    found
}

/// Adds the tests of the action's guard.
fn guard(action: &Action, target: &PatchTarget<'_>, steps: &mut Vec<Value>) {
    let guard = &action.guard;
    if guard.ours {
        steps.push(test(label(keys::NAME), json!(target.resource)));
    }
    // A claim tests traffic label and fence where it writes them.
    if action.verb == Verb::Claim {
        return;
    }
    if let Some(traffic) = guard.traffic.and_then(label_text) {
        steps.push(test(label(keys::TRAFFIC), json!(traffic)));
    }
    if let Some(fence) = guard.fence {
        steps.push(test(annotation(keys::FENCE), json!(fence.to_string())));
    }
}

fn claim(action: &Action, target: &PatchTarget<'_>, steps: &mut Vec<Value>) {
    let pod = target.pod;
    let fence = action.write.fence.map(|fence| fence.to_string());
    if pod.has_annotations {
        // The stored text, even if it is not a fence.
        steps.push(test(annotation(keys::FENCE), json!(pod.fence_text)));
        steps.push(add(annotation(keys::FENCE), json!(fence)));
    } else {
        steps.push(test("/metadata/annotations".to_owned(), Value::Null));
        steps.push(add("/metadata/annotations".to_owned(), json!({keys::FENCE: fence})));
    }
    steps.push(test(label(keys::NAME), json!(pod.labels.get(keys::NAME))));
    steps.push(add(label(keys::NAME), json!(target.resource)));
    if let Some(traffic) = action.write.traffic.and_then(label_text) {
        steps.push(test(label(keys::TRAFFIC), Value::Null));
        steps.push(add(label(keys::TRAFFIC), json!(traffic)));
    }
}

fn write(action: &Action, target: &PatchTarget<'_>, steps: &mut Vec<Value>) {
    let write = &action.write;
    if let Some(traffic) = write.traffic.and_then(label_text) {
        steps.push(add(label(keys::TRAFFIC), json!(traffic)));
    }
    // A callback chooses its breaker's name freely.
    if let Some(strategy) = write.strategy.as_deref().filter(|strategy| is_label_value(strategy)) {
        steps.push(add(label(keys::STRATEGY), json!(strategy)));
    }
    let annotations = [
        (keys::FENCE, write.fence.map(|fence| fence.to_string())),
        (keys::BREAK_AT, write.break_at.map(|at| at.to_string())),
        (keys::RETRY_COUNT, write.retry_count.map(|count| count.to_string())),
        (keys::ADMITTED_AT, write.admitted_at.map(|at| at.to_string())),
    ];
    steps.extend(annotations.into_iter().filter_map(|(key, text)| Some(add(annotation(key), json!(text?)))));
    match action.verb {
        Verb::Withhold if target.pod.deletion_cost.is_none() => {
            steps.push(test(annotation(keys::DELETION_COST), Value::Null));
            steps.push(add(annotation(keys::DELETION_COST), json!(keys::OUR_DELETION_COST)));
        }
        Verb::Admit => remove_marks(target, steps),
        _ => {}
    }
}

fn remove_marks(target: &PatchTarget<'_>, steps: &mut Vec<Value>) {
    remove_strategy(target, steps);
    if target.pod.break_at.is_some() {
        steps.push(remove(annotation(keys::BREAK_AT)));
    }
    remove_cost(target, steps);
}

fn remove_strategy(target: &PatchTarget<'_>, steps: &mut Vec<Value>) {
    if target.pod.labels.get(keys::STRATEGY).is_some() {
        steps.push(remove(label(keys::STRATEGY)));
    }
}

/// Removes only our own value; a user's stays.
fn remove_cost(target: &PatchTarget<'_>, steps: &mut Vec<Value>) {
    if target.pod.deletion_cost.as_deref() == Some(keys::OUR_DELETION_COST) {
        steps.push(test(annotation(keys::DELETION_COST), json!(keys::OUR_DELETION_COST)));
        steps.push(remove(annotation(keys::DELETION_COST)));
    }
}

/// The value of the traffic label, for states that have one.
fn label_text(traffic: Traffic) -> Option<&'static str> {
    match traffic {
        Traffic::Yes => Some("yes"),
        Traffic::No => Some("no"),
        Traffic::Pause => Some("pause"),
        Traffic::Unlabelled | Traffic::Other => None,
    }
}

fn label(key: &str) -> String {
    format!("/metadata/labels/{}", escaped(key))
}

fn annotation(key: &str) -> String {
    format!("/metadata/annotations/{}", escaped(key))
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn test(path: String, value: Value) -> Value {
    step("test", path, Some(value))
}

fn add(path: String, value: Value) -> Value {
    step("add", path, Some(value))
}

fn remove(path: String) -> Value {
    step("remove", path, None)
}

fn step(op: &str, path: String, value: Option<Value>) -> Value {
    let members = [("op", Some(op.into())), ("path", Some(Value::String(path))), ("value", value)];
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{
        fleet::{Epoch, Fence, Uid},
        gate::action::{Guard, Write},
    };

    #[test]
    fn a_write_that_a_policy_changes_is_told_with_what_it_became() {
        let fence = Fence { epoch: Epoch(1), serial: 2 };
        let action = Action {
            verb: Verb::Claim,
            uid: Uid::from("u"),
            name: "web-1".to_owned(),
            guard: Guard { traffic: None, fence: None, ours: false, until: None },
            write: Write { traffic: Some(Traffic::Yes), fence: Some(fence), ..Write::default() },
            breaker: String::new(),
            reason: String::new(),
        };
        let stored = |traffic: &str| -> PodRecord {
            serde_json::from_value(json!({
                "metadata": {
                    "name": "web-1", "namespace": "shop", "uid": "u", "resourceVersion": "5",
                    "labels": {keys::NAME: "web", keys::TRAFFIC: traffic},
                    "annotations": {keys::FENCE: fence.to_string()},
                },
            }))
            .unwrap()
        };
        assert_eq!(altered(&action, &stored("yes"), "web"), None);
        let said = altered(&action, &stored("maybe"), "web").unwrap();
        assert!(said.ends_with("kubervisor/traffic is \"maybe\", not \"yes\""), "{said}");
        let said = altered(&action, &stored("yes"), "shop").unwrap();
        assert!(said.contains("kubervisor/name is \"web\", not \"shop\""), "{said}");
    }
}
