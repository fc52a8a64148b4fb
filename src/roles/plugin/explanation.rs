//! Why a pod is or is not withheld: from `status.explanations` of its resource, else from the pod itself.

mod text;

use std::cmp::Reverse;

use serde::Serialize;
use serde_json::{Value, json};

use super::{fields, format::CommandOutput, style::Style};
use crate::{
    adapters::kubernetes::untyped::{ClusterClient, ClusterError, ListScope, missing},
    api::keys,
    decide::time::Timestamp,
    roles::output::list,
};

/// The most events that are shown, the newest.
const EVENTS: usize = 10;

/// What the API server shows of one pod; also the JSON form.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodExplanation {
    pub(super) pod: String,
    namespace: String,
    pub(super) uid: Option<String>,
    /// Its label `kubervisor/traffic`.
    pub(super) traffic: Option<String>,
    /// The name of its KubervisorService.
    kubervisor_service: Option<String>,
    /// Of that KubervisorService.
    status: Option<String>,
    pub(super) standing: String,
    pub(super) breaker: Option<String>,
    /// Rule, value and threshold.
    pub(super) why: Option<String>,
    pub(super) decision: Option<String>,
    pub(super) since: Option<String>,
    admitted_at: Option<String>,
    pub(super) retry_count: Option<String>,
    floor: Option<String>,
    /// What the pod itself was told.
    notified: Option<String>,
    pub(super) next: Option<NextChange>,
    /// Conditions of the fleet, and what is missing.
    notes: Vec<String>,
    /// Oldest first.
    events: Vec<ShownEvent>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct NextChange {
    pub(super) what: String,
    at: Option<String>,
}

impl NextChange {
    /// When, if only time is missing.
    pub(super) fn time(&self) -> Option<Timestamp> {
        fields::instant(self.at.as_deref()?)
    }
}

#[derive(Debug, PartialEq, Serialize)]
struct ShownEvent {
    at: Option<String>,
    reason: String,
    message: String,
    count: u64,
}

/// Reads the pod, the namespace's KubervisorServices and the pod's events.
pub(super) async fn explain(
    cluster: &ClusterClient,
    namespace: &str,
    name: &str,
) -> Result<PodExplanation, ClusterError> {
    let here = ListScope::Namespace(namespace);
    let (pod, services, events) = tokio::join!(
        cluster.pod(namespace, name),
        cluster.services(here, None),
        cluster.events(namespace, name)
    );
    let (pod, services) = (pod?, services?);
    let (events, no_events) = match events {
        Ok(events) => (events, None),
        Err(error) => (Vec::new(), Some(format!("no events ({}): {error}", error.category()))),
    };
    let explained = services.iter().any(|service| explanation(service, pod.as_ref(), name).is_some());
    if pod.is_none() && !explained && events.is_empty() {
        return Err(missing("pod", namespace, name, "name that one with -n NAMESPACE"));
    }
    let mut found = PodExplanation::of(pod.as_ref(), &services, &events, [namespace, name]);
    found.notes.extend(no_events);
    Ok(found)
}

impl PodExplanation {
    pub(super) fn of(
        pod: Option<&Value>,
        services: &[Value],
        events: &[Value],
        [namespace, name]: [&str; 2],
    ) -> Self {
        let nothing = Value::Null;
        let service = service_of(services, pod, name);
        let explained = service.and_then(|service| explanation(service, pod, name)).unwrap_or(&nothing);
        let seen = pod.unwrap_or(&nothing);
        let traffic = mark(seen, "labels", keys::TRAFFIC);
        // Labels and annotations of the last withhold stay on a pod that serves again.
        let withheld = matches!(traffic.as_deref(), Some("no" | "pause"));
        let now = |key: &str, kind: &str| mark(seen, kind, key).filter(|_| withheld);
        let time = |value: &Value| fields::time(value).map(|at| at.to_string());
        Self {
            pod: name.to_owned(),
            namespace: namespace.to_owned(),
            uid: fields::text(seen, "/metadata/uid").or_else(|| fields::text(explained, "/uid")),
            kubervisor_service: service.and_then(|service| fields::text(service, "/metadata/name")),
            status: service.map(fields::status),
            standing: fields::text(explained, "/standing")
                .unwrap_or_else(|| standing(pod, traffic.as_deref())),
            breaker: fields::text(explained, "/breaker").or_else(|| now(keys::STRATEGY, "labels")),
            why: fields::text(explained, "/why"),
            decision: fields::text(explained, "/decision"),
            since: time(&explained["since"]).or_else(|| time(&json!(now(keys::BREAK_AT, "annotations")))),
            admitted_at: time(&json!(mark(seen, "annotations", keys::ADMITTED_AT))),
            retry_count: either(explained, ["/retryCount", "/retry_count"])
                .or_else(|| mark(seen, "annotations", keys::RETRY_COUNT)),
            floor: either(explained, ["/floor/formula", "/floor"]).or_else(|| service.and_then(floor)),
            notified: fields::text(explained, "/notified"),
            next: next(explained).or_else(|| next_of_paused(traffic.as_deref(), name)),
            notes: notes(pod, service),
            events: newest_events(events, pod),
            traffic,
        }
    }
}

impl CommandOutput for PodExplanation {
    fn value(&self) -> Value {
        json!(self)
    }

    fn names(&self) -> Vec<String> {
        vec![format!("pod/{}", self.pod)]
    }

    fn text(&self, style: Style, _wide: bool) -> String {
        let lines = self.to_string();
        lines.lines().map(|line| style.wrap(line, text::COLUMN) + "\n").collect()
    }
}

fn either(value: &Value, pointers: [&str; 2]) -> Option<String> {
    pointers.iter().find_map(|pointer| fields::text(value, pointer))
}

/// A label or an annotation.
fn mark(pod: &Value, kind: &str, key: &str) -> Option<String> {
    pod["metadata"][kind][key].as_str().filter(|text| !text.is_empty()).map(fields::plain)
}

/// The resource that the pod's label names; else the one whose selector fits; else the one that explains it.
pub(super) fn service_of<'a>(services: &'a [Value], pod: Option<&Value>, name: &str) -> Option<&'a Value> {
    let labels = pod.map(|pod| &pod["metadata"]["labels"]);
    let named = labels.and_then(|labels| labels[keys::NAME].as_str());
    let has = |service: &&Value| {
        let selector = service["status"]["selector"].as_object().filter(|selector| !selector.is_empty());
        selector.zip(labels).is_some_and(|(selector, labels)| {
            selector.iter().all(|(key, wanted)| labels.get(key) == Some(wanted))
        })
    };
    services
        .iter()
        .find(|service| named.is_some() && service["metadata"]["name"].as_str() == named)
        .or_else(|| services.iter().find(has))
        .or_else(|| services.iter().find(|service| explanation(service, pod, name).is_some()))
}

/// The controller's explanation of this pod, not of an earlier one of its name.
fn explanation<'a>(service: &'a Value, pod: Option<&Value>, name: &str) -> Option<&'a Value> {
    let uid = pod.and_then(|pod| pod["metadata"]["uid"].as_str());
    list(service, "/status/explanations").iter().find(|entry| {
        let same = match (entry["uid"].as_str(), uid) {
            (Some(of), Some(uid)) => of == uid,
            _ => true,
        };
        entry["name"] == name && same
    })
}

/// The standing of a pod without an explanation.
fn standing(pod: Option<&Value>, traffic: Option<&str>) -> String {
    let Some(pod) = pod else { return "gone".into() };
    let conditions = list(pod, "/status/conditions").iter();
    let ready = conditions.into_iter().any(|found| found["type"] == "Ready" && found["status"] == "True");
    let standing = match traffic {
        _ if pod["metadata"]["deletionTimestamp"].is_string() => "terminating",
        Some("no") => "withheld",
        Some("pause") => "paused",
        None | Some("yes") if ready => "serving",
        None | Some("yes") => "notServing",
        Some(_) => "foreign",
    };
    standing.into()
}

/// The arithmetic of the floor.
fn floor(service: &Value) -> Option<String> {
    let status = &service["status"];
    let floor = status["floor"].as_u64()?;
    let Some(serving) = status["serving"].as_u64() else {
        return Some(format!("at least {floor} must serve"));
    };
    Some(match serving.checked_sub(floor) {
        Some(spare) => format!("{serving} serve - floor {floor} = {spare} more may be withheld"),
        None => format!(
            "{serving} serve, {} fewer than the floor of {floor}: none may be withheld",
            floor - serving
        ),
    })
}

fn next(explanation: &Value) -> Option<NextChange> {
    let next = &explanation["next"];
    let what = either(next, ["/what", ""]).filter(|_| !next.is_null())?;
    // The status has both in one text.
    let timed = what.rsplit_once(" at ").and_then(|(what, at)| Some((what.to_owned(), fields::instant(at)?)));
    let (what, at) = match timed {
        Some((what, at)) => (what, Some(at)),
        None => (what, fields::time(&next["at"])),
    };
    Some(NextChange { what, at: at.map(|at| at.to_string()) })
}

/// A paused pod gets traffic again by hand only.
fn next_of_paused(traffic: Option<&str>, pod: &str) -> Option<NextChange> {
    let what = format!(
        "nothing until its label is changed: kubectl label pod {pod} {}=yes --overwrite",
        keys::TRAFFIC
    );
    (traffic == Some("pause")).then_some(NextChange { what, at: None })
}

/// Conditions of the fleet that concern each of its pods, and what is missing.
fn notes(pod: Option<&Value>, service: Option<&Value>) -> Vec<String> {
    let mut notes = Vec::new();
    if pod.is_none() {
        notes.push("the pod is gone; this is from its KubervisorService and its events".to_owned());
    }
    let named = pod.and_then(|pod| mark(pod, "labels", keys::NAME));
    let Some(service) = service else {
        notes.push(match named {
            Some(name) => {
                format!("its label {} is {name}, but there is no such KubervisorService", keys::NAME)
            }
            None => "no KubervisorService of this namespace selects it".to_owned(),
        });
        return notes;
    };
    notes.extend(fleet_notes(service));
    notes
}

/// Conditions of the fleet that concern each of its pods.
pub(super) fn fleet_notes(service: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    if service["spec"]["paused"] == true {
        notes.push("spec.paused: nothing is decided at the moment".to_owned());
    }
    let notable = [
        ("Ready", "False"),
        ("Gating", "False"),
        ("DataAvailable", "False"),
        ("FloorReached", "True"),
        ("Panic", "True"),
        ("DryRun", "True"),
    ];
    for (kind, status) in notable {
        if let Some(condition) = fields::condition(service, kind).filter(|found| found["status"] == status) {
            let message = fields::text(condition, "/message").or_else(|| fields::text(condition, "/reason"));
            notes.push(format!("{kind} is {status}: {}", message.unwrap_or_default()));
        }
    }
    notes
}

/// The newest events of this pod, oldest first.
fn newest_events(events: &[Value], pod: Option<&Value>) -> Vec<ShownEvent> {
    let uid = pod.and_then(|pod| pod["metadata"]["uid"].as_str());
    let of_pod = |event: &&Value| match (event["involvedObject"]["uid"].as_str(), uid) {
        (Some(of), Some(uid)) => of == uid,
        _ => true,
    };
    let mut newest: Vec<_> = events.iter().filter(of_pod).map(|event| (last_time(event), event)).collect();
    newest.sort_by_key(|(at, _)| Reverse(*at));
    newest.truncate(EVENTS);
    let shown = newest.into_iter().rev().map(|(at, event)| ShownEvent {
        at: at.map(|at| at.to_string()),
        reason: fields::text(event, "/reason").unwrap_or_default(),
        message: fields::text(event, "/message").unwrap_or_default(),
        count: event["series"]["count"].as_u64().or_else(|| event["count"].as_u64()).unwrap_or(1),
    });
    shown.collect()
}

/// When it last happened; each version of the events API has its own member for it.
fn last_time(event: &Value) -> Option<Timestamp> {
    let pointers = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/eventTime",
        "/firstTimestamp",
        "/metadata/creationTimestamp",
    ];
    pointers.iter().find_map(|pointer| fields::time(event.pointer(pointer)?))
}

#[cfg(test)]
mod tests;
