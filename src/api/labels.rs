//! Texts that YAML reads as another type: the label `kubervisor/traffic: yes` is a boolean for the Kubernetes API
//! server, which then refuses the object. Every document of a file is checked, because Services and pod templates have
//! the label.

use serde_json::Value;

use super::{
    keys::TRAFFIC,
    located::{Document, join},
    report::{Report, describe},
};

/// Members whose value is a map of texts, at any depth.
const TEXT_MAPS: [&str; 4] = ["labels", "annotations", "matchLabels", "selector"];

/// Reports every label, annotation and selector that is no text.
pub(super) fn check(document: &Document, report: &mut Report<'_>) {
    walk(&document.value, "", false, &mut |path, value, in_text_map| {
        if !in_text_map {
            return;
        }
        if let Some(word) = document.boolean_word(path) {
            report_word(path, word, report);
        } else if matches!(value, Value::Bool(_) | Value::Number(_)) {
            let what = format!("is {}, and a label is a text", describe(value));
            report.add(path, what, format!("instead write \"{value}\" in quotes"));
        }
    });
}

/// Kinds whose own selector decides which pods they keep.
const WORKLOADS: [&str; 6] =
    ["Deployment", "StatefulSet", "ReplicaSet", "ReplicationController", "DaemonSet", "Job"];

/// Reports the traffic key in a workload's own selector, where tools such as kustomize put common labels: with each
/// withdrawal the workload would let the pod go and create another one.
pub(super) fn check_selector(document: &Document, report: &mut Report<'_>) {
    let kind = document.value.get("kind").and_then(Value::as_str).unwrap_or_default();
    let selector = document.value.pointer("/spec/selector").filter(|_| WORKLOADS.contains(&kind));
    if let Some(place) = selector.and_then(traffic_key_in) {
        let path = join(place, TRAFFIC);
        let what = format!(
            "is in the selector of a {kind}: with each withdrawal it would let the pod go and create another"
        );
        let write = "instead write the key in the pod template's labels and in the Service's selector only";
        report.add(&path, what, write);
    }
}

/// Where a workload's `spec.selector` asks for the traffic label: the path of the map that has the key.
pub fn traffic_key_in(selector: &Value) -> Option<&'static str> {
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    let asks = |one: &Value| one.get("key").and_then(Value::as_str) == Some(TRAFFIC);
    match () {
        () if selector.get(TRAFFIC).is_some() => Some("spec.selector"),
        () if selector.get("matchLabels").is_some_and(|labels| labels.get(TRAFFIC).is_some()) => {
            Some("spec.selector.matchLabels")
        }
        () if expressions.is_some_and(|all| all.iter().any(asks)) => Some("spec.selector.matchExpressions"),
        () => None,
    }
}

/// Reports every unquoted `yes`, `no`, `on` and `off` in a document of ours: a boolean in YAML 1.1, a text in 1.2.
pub(super) fn check_words(document: &Document, report: &mut Report<'_>) {
    walk(&document.value, "", false, &mut |path, _, _| {
        let Some(word) = document.boolean_word(path) else { return };
        if super::fields::find(path).is_some_and(|field| field.write == "true or false") {
            report.misfit(path, format!("is the unquoted word {word}"));
        } else {
            report_word(path, word, report);
        }
    });
}

fn report_word(path: &str, word: &str, report: &mut Report<'_>) {
    report.add(
        path,
        format!("is the unquoted word {word}, which YAML takes for a boolean"),
        format!("instead write \"{word}\" in quotes"),
    );
}

/// Calls `visit` with each leaf, its path, and whether its map is one of texts.
fn walk(value: &Value, path: &str, in_text_map: bool, visit: &mut impl FnMut(&str, &Value, bool)) {
    match value {
        Value::Object(map) => {
            for (key, member) in map {
                let is_text_map = member.is_object() && TEXT_MAPS.contains(&key.as_str());
                let leaf_of_text_map = in_text_map && !member.is_object() && !member.is_array();
                walk(member, &join(path, key), is_text_map || leaf_of_text_map, visit);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{path}[{index}]"), false, visit);
            }
        }
        leaf => visit(path, leaf, in_text_map),
    }
}
