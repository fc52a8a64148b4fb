//! Why a pod is or is not withheld: what the controller wrote into the resource's status, and where it
//! wrote nothing, what the pod itself shows.

mod words;

use std::cmp::Reverse;

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Scope, Trouble, missing},
    view,
};
use crate::{api::keys, decide::time::Timestamp};

/// So many events are told, the newest.
const EVENTS: usize = 10;

/// One pod's story, as far as it can be known from outside the controller.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Story {
    pod: String,
    namespace: String,
    uid: Option<String>,
    /// What its traffic switch says.
    traffic: Option<String>,
    /// The KubervisorService that looks after it.
    kubervisor_service: Option<String>,
    /// Of that KubervisorService.
    status: Option<String>,
    standing: String,
    breaker: Option<String>,
    /// Rule, value and threshold.
    why: Option<String>,
    decision: Option<String>,
    since: Option<String>,
    admitted_at: Option<String>,
    retry_count: Option<String>,
    floor: Option<String>,
    next: Option<Next>,
    /// What else bears on it.
    notes: Vec<String>,
    /// Oldest first.
    events: Vec<Event>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Next {
    what: String,
    at: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Event {
    at: Option<String>,
    reason: String,
    message: String,
    count: u64,
}

/// Collects what is known of the pod.
pub(super) async fn tell(cluster: &Cluster, namespace: &str, name: &str) -> Result<Story, Trouble> {
    let here = Scope::Namespace(namespace);
    let (pod, services, events) =
        tokio::join!(cluster.pod(namespace, name), cluster.services(here), cluster.events(namespace, name));
    let (pod, services) = (pod?, services?);
    let (events, unheard) = match events {
        Ok(events) => (events, None),
        Err(trouble) => (Vec::new(), Some(format!("no events ({}): {trouble}", trouble.category()))),
    };
    let told = services.iter().any(|service| explanation(service, pod.as_ref(), name).is_some());
    if pod.is_none() && !told && events.is_empty() {
        return Err(missing("pod", namespace, name, "name that one with -n NAMESPACE"));
    }
    let mut story = Story::of(pod.as_ref(), &services, &events, [namespace, name]);
    story.notes.extend(unheard);
    Ok(story)
}

impl Story {
    fn of(pod: Option<&Value>, services: &[Value], events: &[Value], [namespace, name]: [&str; 2]) -> Self {
        let nothing = Value::Null;
        let service = service_of(services, pod, name);
        let told = service.and_then(|service| explanation(service, pod, name)).unwrap_or(&nothing);
        let seen = pod.unwrap_or(&nothing);
        let traffic = mark(seen, "labels", keys::TRAFFIC);
        // What the last cut left on a pod that serves again says nothing of now.
        let out = matches!(traffic.as_deref(), Some("no" | "pause"));
        let now = |key: &str, kind: &str| mark(seen, kind, key).filter(|_| out);
        let time = |value: &Value| view::time(value).map(|at| at.to_string());
        Self {
            pod: name.to_owned(),
            namespace: namespace.to_owned(),
            uid: view::text(seen, "/metadata/uid").or_else(|| view::text(told, "/uid")),
            kubervisor_service: service.and_then(|service| view::text(service, "/metadata/name")),
            status: service.map(view::status),
            standing: view::text(told, "/standing").unwrap_or_else(|| standing(pod, traffic.as_deref())),
            breaker: view::text(told, "/breaker").or_else(|| now(keys::STRATEGY, "labels")),
            why: view::text(told, "/why"),
            decision: view::text(told, "/decision"),
            since: time(&told["since"]).or_else(|| time(&json!(now(keys::BREAK_AT, "annotations")))),
            admitted_at: time(&json!(mark(seen, "annotations", keys::ADMITTED_AT))),
            retry_count: either(told, ["/retryCount", "/retry_count"])
                .or_else(|| mark(seen, "annotations", keys::RETRY_COUNT)),
            floor: either(told, ["/floor/formula", "/floor"]).or_else(|| service.and_then(floor)),
            next: next(told).or_else(|| human(traffic.as_deref(), name)),
            notes: notes(pod, service),
            events: chronicle(events, pod),
            traffic,
        }
    }
}

fn either(value: &Value, pointers: [&str; 2]) -> Option<String> {
    pointers.iter().find_map(|pointer| view::text(value, pointer))
}

/// A label or an annotation.
fn mark(pod: &Value, kind: &str, key: &str) -> Option<String> {
    pod["metadata"][kind][key].as_str().filter(|text| !text.is_empty()).map(view::plain)
}

/// The resource that the pod names; else the one whose fleet it is in; else the one that tells of it.
fn service_of<'a>(services: &'a [Value], pod: Option<&Value>, name: &str) -> Option<&'a Value> {
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

/// What the controller says of this pod, not of one that had its name before.
fn explanation<'a>(service: &'a Value, pod: Option<&Value>, name: &str) -> Option<&'a Value> {
    let uid = pod.and_then(|pod| pod["metadata"]["uid"].as_str());
    view::list(service, "/status/explanations").iter().find(|told| {
        let same = match (told["uid"].as_str(), uid) {
            (Some(told), Some(uid)) => told == uid,
            _ => true,
        };
        told["name"] == name && same
    })
}

/// Where a pod stands that nobody tells of.
fn standing(pod: Option<&Value>, traffic: Option<&str>) -> String {
    let Some(pod) = pod else { return "gone".into() };
    let conditions = view::list(pod, "/status/conditions").iter();
    let ready = conditions.into_iter().any(|found| found["type"] == "Ready" && found["status"] == "True");
    let words = match traffic {
        _ if pod["metadata"]["deletionTimestamp"].is_string() => "terminating",
        Some("no") => "withheld",
        Some("pause") => "paused",
        None | Some("yes") if ready => "serving",
        None | Some("yes") => "notServing",
        Some(_) => "foreign",
    };
    words.into()
}

/// The arithmetic of the floor, from the counts.
fn floor(service: &Value) -> Option<String> {
    let status = &service["status"];
    let floor = status["floor"].as_u64()?;
    let Some(serving) = status["podCount"]["nbPodsManaged"].as_u64() else {
        return Some(format!("at least {floor} must serve"));
    };
    let more = match serving.checked_sub(floor) {
        Some(spare) => format!("{serving} serve - floor {floor} = {spare} more may be withheld"),
        None => format!(
            "{serving} serve, {} fewer than the floor of {floor}: none may be withheld",
            floor - serving
        ),
    };
    Some(more)
}

fn next(told: &Value) -> Option<Next> {
    let next = &told["next"];
    let what = either(next, ["/what", ""]).filter(|_| !next.is_null())?;
    Some(Next { what, at: view::time(&next["at"]).map(|at| at.to_string()) })
}

/// A paused pod waits for somebody, who may want to know how.
fn human(traffic: Option<&str>, pod: &str) -> Option<Next> {
    let what =
        format!("nothing until somebody says so: kubectl label pod {pod} {}=yes --overwrite", keys::TRAFFIC);
    (traffic == Some("pause")).then_some(Next { what, at: None })
}

/// What of the fleet bears on each of its pods.
fn notes(pod: Option<&Value>, service: Option<&Value>) -> Vec<String> {
    let mut notes = Vec::new();
    if pod.is_none() {
        notes.push("the pod is gone; this is what is still known of it".to_owned());
    }
    let named = pod.and_then(|pod| mark(pod, "labels", keys::NAME));
    let Some(service) = service else {
        notes.push(match named {
            Some(name) => {
                format!("its label {} says {name}, but there is no such KubervisorService", keys::NAME)
            }
            None => "no KubervisorService of this namespace looks after it".to_owned(),
        });
        return notes;
    };
    if service["spec"]["paused"] == true {
        notes.push("spec.paused: nothing is decided at the moment".to_owned());
    }
    let stands_out = [
        ("Ready", "False"),
        ("Gating", "False"),
        ("DataAvailable", "False"),
        ("FloorReached", "True"),
        ("Panic", "True"),
        ("DryRun", "True"),
    ];
    for (kind, status) in stands_out {
        if let Some(condition) = view::condition(service, kind).filter(|found| found["status"] == status) {
            let message = view::text(condition, "/message").or_else(|| view::text(condition, "/reason"));
            notes.push(format!("{kind} is {status}: {}", message.unwrap_or_default()));
        }
    }
    notes
}

/// The newest events of this pod, oldest first.
fn chronicle(events: &[Value], pod: Option<&Value>) -> Vec<Event> {
    let uid = pod.and_then(|pod| pod["metadata"]["uid"].as_str());
    let mine = |event: &&Value| match (event["involvedObject"]["uid"].as_str(), uid) {
        (Some(theirs), Some(uid)) => theirs == uid,
        _ => true,
    };
    let mut mine: Vec<_> = events.iter().filter(mine).map(|event| (happened(event), event)).collect();
    mine.sort_by_key(|(at, _)| Reverse(*at));
    mine.truncate(EVENTS);
    let told = mine.into_iter().rev().map(|(at, event)| Event {
        at: at.map(|at| at.to_string()),
        reason: view::text(event, "/reason").unwrap_or_default(),
        message: view::text(event, "/message").unwrap_or_default(),
        count: event["series"]["count"].as_u64().or_else(|| event["count"].as_u64()).unwrap_or(1),
    });
    told.collect()
}

/// When last; each way of reporting events has its own member for it.
fn happened(event: &Value) -> Option<Timestamp> {
    let pointers = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/eventTime",
        "/firstTimestamp",
        "/metadata/creationTimestamp",
    ];
    pointers.iter().find_map(|pointer| view::time(event.pointer(pointer)?))
}

#[cfg(test)]
mod tests;
