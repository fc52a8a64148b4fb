//! The resource's `status`, made from facts: what a person reads first, and what `kubectl wait` waits for.
//!
//! Pure: the same facts give the same status, byte for byte, times included, because a status that differs is
//! written, and each write wakes everybody who watches. Times therefore come from the old status wherever nothing
//! that they stand for has changed.

mod findings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use self::findings::{Finding, findings};
use crate::{
    decide::{
        fleet::Traffic,
        gate::{
            Plan,
            explain::{Explanation, Standing},
        },
        time::Timestamp,
    },
    roles::gatekeeper::view::GatekeeperView,
};

/// Explanations that the schema takes.
const EXPLANATIONS: usize = 100;
/// Of each of their texts, in characters: a hundred of them share an object with the ledger.
const LONGEST_TEXT: usize = 512;
/// Of a condition's message.
const LONGEST_MESSAGE: usize = 2048;

/// Why the resource itself is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Its spec breaks a rule (it was stored before the schema knew the rule).
    InvalidSpec(String),
    /// The controller does not get on with it.
    Failed(String),
}

/// What is known of the Service that the resource names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// It is not there.
    Missing,
    /// It is there and cannot be gated.
    Refused {
        /// For people.
        why: String,
    },
    /// Its selector does not have the traffic key: the fleet is only watched.
    Ungated,
    /// Its selector has it.
    Gated,
}

/// What is known of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerState {
    /// It came back as it was sent.
    Stored,
    /// The API server took it and dropped it: an older definition.
    NotStored,
    /// What is stored is not for us to read.
    Unreadable(String),
    /// It takes no more.
    Full,
}

/// Everything that a status says, as it is now.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The Service that it names.
    pub service_name: &'a str,
    /// `metadata.generation` that this was found for.
    pub generation: i64,
    /// The old status.
    pub previous: Option<&'a Value>,
    /// Now.
    pub now: Timestamp,
    /// Since when the resource is looked after; an older `startTime` is kept.
    pub started: Timestamp,
    /// Why the resource itself is of no use.
    pub problem: Option<Problem>,
    /// Its Service.
    pub service: ServiceState,
    /// What the gatekeeper decided; `None` before it has looked.
    pub view: Option<&'a GatekeeperView>,
    /// `spec.dryRun`, or the controller's flag.
    pub dry_run: bool,
    /// `spec.paused`.
    pub paused: bool,
    /// `spec.panicThreshold`, its default included.
    pub panic_threshold: Option<u8>,
    /// The other resource that claims the same pods.
    pub overlap: Option<String>,
    /// The ledger.
    pub ledger: LedgerState,
    /// New pods come without the label, and nothing in the cluster adds it.
    pub template_unlabelled: bool,
    /// What is wrong with the data, by breaker.
    pub troubles: &'a BTreeMap<String, String>,
    /// Withheld pods that do not leave the ready endpoints.
    pub unlanded: Option<String>,
    /// The verb and resource that the role lacks, such as `patch pods`.
    pub rbac: Option<String>,
    /// The Service's selector without the traffic key.
    pub selector: &'a BTreeMap<String, String>,
}

/// The status without the ledger.
#[must_use]
pub fn status(facts: &Facts<'_>) -> Value {
    let mut status = Map::new();
    let old = |member: &str| facts.previous.and_then(|previous| previous.get(member));
    status.insert("conditions".to_owned(), conditions(facts));
    let started = old("startTime").cloned().unwrap_or_else(|| seconds(facts.started));
    status.insert("startTime".to_owned(), started);
    status.insert("observedGeneration".to_owned(), json!(facts.generation));
    status.insert("selector".to_owned(), json!(facts.selector));
    let fleet = facts.view.filter(|view| view.plan.is_some()).map_or_else(
        // Nobody has looked yet: what was last seen stands.
        || ["podCount", "floor", "explanations"].map(|member| (member, old(member).cloned())),
        |view| {
            [
                ("podCount", Some(pod_count(facts, view))),
                ("floor", Some(json!(view.floor.budget.floor))),
                ("explanations", Some(explanations(facts, view))),
            ]
        },
    );
    let known = fleet.into_iter().filter_map(|(member, value)| Some((member.to_owned(), value?)));
    status.extend(known);
    Value::Object(status)
}

/// Whether the second says something that the first did not; when somebody last looked is no news, and the ledger is
/// not ours.
#[must_use]
pub fn changed(old: &Value, new: &Value) -> bool {
    news(old) != news(new)
}

fn news(status: &Value) -> Value {
    let mut status = status.clone();
    let Some(members) = status.as_object_mut() else { return json!({}) };
    members.remove("ledger");
    let conditions = members.get_mut("conditions").and_then(Value::as_array_mut);
    for item in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        item.remove("lastProbeTime");
    }
    if let Some(count) = members.get_mut("podCount").and_then(Value::as_object_mut) {
        count.remove("lastProbeTime");
    }
    status
}

fn conditions(facts: &Facts<'_>) -> Value {
    let old = facts.previous.and_then(|previous| previous.get("conditions")).and_then(Value::as_array);
    let old = |kind: &str| old?.iter().find(|condition| condition.get("type") == Some(&json!(kind)));
    findings(facts).into_iter().map(|finding| condition(facts, &finding, old(finding.kind))).collect()
}

fn condition(facts: &Facts<'_>, finding: &Finding, old: Option<&Value>) -> Value {
    let kept = |member: &str| old.and_then(|old| old.get(member)).filter(|time| time.is_string()).cloned();
    let status = json!(finding.state.as_str());
    let same_status = old.and_then(|old| old.get("status")) == Some(&status);
    let since = if same_status { kept("lastTransitionTime") } else { None };
    let mut condition = json!({
        "type": finding.kind, "status": status, "reason": finding.reason,
        "message": line(&finding.message, LONGEST_MESSAGE), "observedGeneration": facts.generation,
        "lastTransitionTime": since.unwrap_or_else(|| seconds(facts.now)),
    });
    stamp(facts, &mut condition, old);
    condition
}

/// `lastProbeTime`: the old one unless something else has changed.
fn stamp(facts: &Facts<'_>, new: &mut Value, old: Option<&Value>) {
    let probed = old.and_then(|old| old.get("lastProbeTime")).cloned();
    let mut without = old.cloned().unwrap_or_default();
    without.as_object_mut().and_then(|members| members.remove("lastProbeTime"));
    let probed = probed.filter(|_| without == *new).unwrap_or_else(|| seconds(facts.now));
    if let Some(members) = new.as_object_mut() {
        members.insert("lastProbeTime".to_owned(), probed);
    }
}

/// By the pods' switch after the plan, as the original counted.
fn pod_count(facts: &Facts<'_>, view: &GatekeeperView) -> Value {
    let (mut managed, mut breaked, mut paused, mut unknown) = (0, 0, 0, 0);
    for pod in &view.pods {
        let silent = pod.explanation.as_ref().is_some_and(|said| said.standing == Standing::ListedUnknown);
        let count = match pod.traffic {
            Traffic::Yes if silent => &mut unknown,
            Traffic::Yes => &mut managed,
            Traffic::No => &mut breaked,
            Traffic::Pause => &mut paused,
            Traffic::Unlabelled | Traffic::Other => &mut unknown,
        };
        *count += 1;
    }
    let mut count = json!({
        "nbPodsManaged": managed, "nbPodsBreaked": breaked, "nbPodsPaused": paused, "nbPodsUnknown": unknown,
    });
    stamp(facts, &mut count, facts.previous.and_then(|previous| previous.get("podCount")));
    count
}

/// The newest decisions first, then those that somebody objects to, then the rest.
fn explanations(facts: &Facts<'_>, view: &GatekeeperView) -> Value {
    let plan =
        if facts.dry_run { view.rehearsal.as_ref().or(view.plan.as_ref()) } else { view.plan.as_ref() };
    let mut all: Vec<&Explanation> =
        plan.map(|plan: &Plan| plan.explanations.iter().collect()).unwrap_or_default();
    all.sort_by_key(|said| (std::cmp::Reverse(said.since), said.breaker.is_none()));
    let old = facts.previous.and_then(|previous| previous.get("explanations")).and_then(Value::as_array);
    let newest = all.into_iter().take(EXPLANATIONS).map(|said| {
        let uid = json!(line(said.uid.as_str(), 63));
        let old = old.and_then(|old| old.iter().find(|old| old.get("uid") == Some(&uid)));
        explanation(uid, said, old)
    });
    newest.collect()
}

/// One of them. Its numbers are those of the decision and stay until the next one; `/explain` has today's.
fn explanation(uid: Value, said: &Explanation, old: Option<&Value>) -> Value {
    let next = said.next.as_ref().map(|next| match next.at {
        Some(at) => format!("{} at {}", next.what, rfc3339(at)),
        None => next.what.to_owned(),
    });
    let members = [
        ("uid", Some(uid)),
        ("name", Some(json!(line(&said.name, 253)))),
        ("standing", serde_json::to_value(said.standing).ok()),
        ("breaker", said.breaker.as_ref().map(|breaker| json!(line(breaker, 63)))),
        ("decision", Some(json!(line(said.decision, LONGEST_TEXT)))),
        ("next", next.map(|next| json!(next))),
        ("retryCount", Some(json!(said.retry_count))),
        ("since", said.since.map(seconds)),
    ];
    let known = members.into_iter().filter_map(|(member, value)| Some((member.to_owned(), value?)));
    let mut new: Map<String, Value> = known.collect();
    let mut without = old.and_then(Value::as_object).cloned().unwrap_or_default();
    let why = without.remove("why").filter(|_| without == new);
    let why = why.or(said.why.as_ref().map(|why| json!(line(why, LONGEST_TEXT))));
    new.extend(why.map(|why| ("why".to_owned(), why)));
    Value::Object(new)
}

/// RFC 3339, whole seconds: what the original's clients read.
fn rfc3339(at: Timestamp) -> String {
    let mut text = at.to_string();
    if let Some(point) = text.rfind('.') {
        text.replace_range(point.., "Z");
    }
    text
}

fn seconds(at: Timestamp) -> Value {
    json!(rfc3339(at))
}

/// One line of no more than `most` characters.
fn line(text: &str, most: usize) -> String {
    text.chars().take(most).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
