//! The resource's `status`, made from [`Facts`].
//!
//! Pure and stable: equal facts give the same status, byte for byte, because a changed status is written, and each write
//! goes to all watchers. A time is therefore taken from the old status unless what it dates has changed.

mod episodes;
mod facts;
mod findings;
mod hindrances;
mod reported;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use self::findings::{Finding, findings};
pub use self::{
    facts::{Facts, ResourceProblem, ServiceState},
    reported::{LASTING, Lasting, NOT_LEAVING, Reported, reported},
};
use crate::{
    adapters::sink::labels::BESIDE_THE_REPORT,
    decide::{
        gate::{Plan, explain::Explanation},
        time::Timestamp,
    },
    roles::gate::snapshot::{GateSnapshot, PodCounts},
};

/// The schema's limit.
const EXPLANATIONS: usize = 100;
/// Longest text of an explanation, in characters: 100 of them share an object with the ledger.
const LONGEST_TEXT: usize = 512;
/// Longest message of a condition, in characters.
const LONGEST_MESSAGE: usize = 2048;

/// The status without the ledger.
pub fn status(facts: &Facts<'_>) -> Value {
    let mut status = Map::new();
    let old = |member: &str| facts.previous.and_then(|previous| previous.get(member));
    status.insert("conditions".to_owned(), conditions(facts));
    let started = old("startTime").cloned().unwrap_or_else(|| seconds(facts.started));
    status.insert("startTime".to_owned(), started);
    status.insert("observedGeneration".to_owned(), json!(facts.generation));
    status.insert("selector".to_owned(), json!(facts.selector));
    let fleet = facts.snapshot.filter(|snapshot| snapshot.plan.is_some()).map_or_else(
        // Before the first plan the old values stay.
        || {
            ["podCount", "serving", "floor", "explanations", "episodes"]
                .map(|member| (member, old(member).cloned()))
        },
        |snapshot| {
            [
                ("podCount", Some(pod_count(facts, snapshot))),
                ("serving", Some(json!(snapshot.serving()))),
                ("floor", Some(json!(snapshot.floor.budget.floor))),
                ("explanations", Some(explanations(facts, snapshot))),
                ("episodes", episodes::episodes(old("episodes"), snapshot)),
            ]
        },
    );
    let known = fleet.into_iter().filter_map(|(member, value)| Some((member.to_owned(), value?)));
    status.extend(known);
    Value::Object(status)
}

/// Whether the two differ, apart from `lastProbeTime` and what is no part of the report.
pub fn changed(old: &Value, new: &Value) -> bool {
    comparable(old) != comparable(new)
}

fn comparable(status: &Value) -> Value {
    let mut status = status.clone();
    let Some(members) = status.as_object_mut() else { return json!({}) };
    for member in BESIDE_THE_REPORT {
        members.remove(member);
    }
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

/// Counts after the plan, as in the original.
fn pod_count(facts: &Facts<'_>, snapshot: &GateSnapshot) -> Value {
    let PodCounts { managed, breaked, paused, unknown } = snapshot.counts();
    let mut count = json!({
        "nbPodsManaged": managed, "nbPodsBreaked": breaked, "nbPodsPaused": paused, "nbPodsUnknown": unknown,
    });
    stamp(facts, &mut count, facts.previous.and_then(|previous| previous.get("podCount")));
    count
}

/// The newest decisions first, then the pods that a breaker objects to, then the rest.
fn explanations(facts: &Facts<'_>, snapshot: &GateSnapshot) -> Value {
    let rehearsal = snapshot.rehearsal.as_ref().filter(|_| facts.dry_run);
    let plan = rehearsal.or(snapshot.plan.as_ref());
    let mut all: Vec<&Explanation> =
        plan.map(|plan: &Plan| plan.explanations.iter().collect()).unwrap_or_default();
    all.sort_by_key(|said| (std::cmp::Reverse(said.since), said.breaker.is_none()));
    let old = facts.previous.and_then(|previous| previous.get("explanations")).and_then(Value::as_array);
    let newest = all.into_iter().take(EXPLANATIONS).map(|said| {
        let uid = json!(line(said.uid.as_str(), 63));
        let old = old.and_then(|old| old.iter().find(|old| old.get("uid") == Some(&uid)));
        explanation(uid, said, old, facts.notified.get(said.uid.as_str()))
    });
    newest.collect()
}

/// `why` keeps the numbers of the decision until the next one; `/explain` has the current ones.
fn explanation(uid: Value, said: &Explanation, old: Option<&Value>, notified: Option<&String>) -> Value {
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
        ("notified", notified.map(|told| json!(line(told, LONGEST_TEXT)))),
    ];
    let known = members.into_iter().filter_map(|(member, value)| Some((member.to_owned(), value?)));
    let mut new: Map<String, Value> = known.collect();
    let mut without = old.and_then(Value::as_object).cloned().unwrap_or_default();
    let why = without.remove("why").filter(|_| without == new);
    let why = why.or(said.why.as_ref().map(|why| json!(line(why, LONGEST_TEXT))));
    new.extend(why.map(|why| ("why".to_owned(), why)));
    Value::Object(new)
}

/// RFC 3339 in whole seconds, which the original's clients parse.
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
