//! Verdicts on pods: the judgements of detectors and the calls of callbacks.
//!
//! A judgement may also be "no verdict", which is neither good nor bad. Read as bad it would empty a fleet
//! while Prometheus is unreachable, read as good it would admit pods that nothing has checked.

mod no_verdict;
mod source;

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::{
    no_verdict::{NoVerdict, NoVerdicts},
    source::{Source, SourceKind},
};
use super::{fleet::Uid, time::Timestamp};

/// A callback's verdict on a pod; in ascending strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// Admit now, without the activator's wait.
    Admit,
    /// Withhold; the activator decides when to admit.
    Withhold,
    /// Withhold until a person or a callback admits it.
    Pause,
    /// Kill, once it is withheld.
    Kill,
}

/// A detector's verdict on a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Judgement {
    /// Within the bounds.
    Good,
    /// Out of bounds.
    Bad {
        /// 0..1; the largest is withheld first.
        severity: f64,
        /// The numbers of the rule; boxed, because most judgements have none.
        evidence: Box<Evidence>,
    },
    /// No verdict, and why.
    None(NoVerdict),
}

/// The numbers behind a judgement.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Evidence {
    /// The rule, as text.
    pub rule: String,
    /// The measured value.
    pub value: Option<f64>,
    /// The bound.
    pub threshold: Option<f64>,
    /// The median of the peers, for rules that compare pods.
    pub median: Option<f64>,
    /// Evidence that is not a number: the text that was found, m of n windows.
    pub note: Option<String>,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule)?;
        for (what, number) in [("value", self.value), ("threshold", self.threshold), ("median", self.median)]
        {
            if let Some(number) = number {
                write!(f, ", {what} {number}")?;
            }
        }
        self.note.iter().try_for_each(|note| write!(f, ", {note}"))
    }
}

/// One source's verdict on one pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Opinion {
    /// A detector's.
    Judged(Judgement),
    /// A callback's.
    Called {
        /// The verdict.
        call: Call,
        /// The callback's reason; may be empty.
        reason: String,
        /// 0..1; the largest is withheld first.
        severity: f64,
        /// The breaker whose activator applies; `None`: the default one.
        breaker: Option<String>,
    },
    /// A person's request. It says nothing about the pod's health.
    Requested {
        /// [`Call::Admit`] or [`Call::Withhold`].
        call: Call,
        /// Who asks, until when and why.
        reason: String,
        /// When it ends.
        until: Timestamp,
    },
}

impl Opinion {
    /// 0..1; 0 for NaN and infinite values.
    pub fn severity(&self) -> f64 {
        let severity = match self {
            Self::Judged(Judgement::Bad { severity, .. }) | Self::Called { severity, .. } => *severity,
            Self::Judged(_) | Self::Requested { .. } => 0.0,
        };
        if severity.is_finite() { severity.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Whether it is a reason to withhold the pod.
    pub fn objects(&self) -> bool {
        match self {
            Self::Judged(judgement) => matches!(judgement, Judgement::Bad { .. }),
            Self::Called { call, .. } => *call >= Call::Withhold,
            Self::Requested { .. } => false,
        }
    }

    fn strictness(&self, other: &Self) -> Ordering {
        let rank = |opinion: &Self| match opinion {
            Self::Judged(_) => None,
            Self::Called { call, .. } | Self::Requested { call, .. } => Some(*call),
        };
        let objects = self.objects().cmp(&other.objects());
        objects.then(rank(self).cmp(&rank(other))).then(self.severity().total_cmp(&other.severity()))
    }
}

/// The verdicts in force: those of the last successful run of each source.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verdicts {
    /// Rises with each run of any source: panic ends after two evaluations below the threshold, not two plans.
    pub evaluation: u64,
    /// One per breaker and callback.
    pub sources: Vec<Source>,
}

impl Verdicts {
    /// Replaces the verdicts of `source`'s last run, which are returned.
    pub fn replace(&mut self, source: Source) -> Option<Source> {
        self.evaluation += 1;
        let last = self.sources.iter().position(|old| old.name == source.name && old.kind == source.kind);
        let last = last.map(|index| self.sources.remove(index));
        self.sources.push(source);
        last
    }

    /// Whether the last run of the same source was as calm as this one ([`Source::is_as_calm_as`]).
    pub fn are_as_calm_as(&self, source: &Source) -> bool {
        self.sources.iter().any(|old| old.is_as_calm_as(source))
    }
}

/// The pod that a callback's verdict names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum VerdictTarget {
    /// `id`.
    Id(String),
    /// `key`.
    Key(String),
}

/// One verdict as the callback wrote it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrafficVerdict {
    /// The pod.
    pub who: VerdictTarget,
    /// The verdict.
    pub opinion: Opinion,
}

/// A part of the `traffic` member that was ignored; the rest counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrafficWarning {
    /// The member is neither a list nor an object.
    #[error("`traffic` is {0}: expected a list of verdicts, or an object id -> verdict")]
    NotAListOrObject(&'static str),
    /// An item of the list is not an object.
    #[error(
        "`traffic[{index}]` is {found}: expected an object like {{\"id\": \"web-1\", \"verdict\": \"withhold\"}}"
    )]
    ItemNotAnObject {
        /// Index of the item.
        index: usize,
        /// Its JSON type.
        found: &'static str,
    },
    /// An item has neither `id` nor `key`.
    #[error("`traffic[{0}]` names no pod: it needs a text `id` or `key`")]
    MissingPod(usize),
    /// The verdict is not one of the known words.
    #[error(
        "`traffic` has the unknown verdict {word} for {who}: expected withhold, admit, pause or kill (or no, yes, pause)"
    )]
    UnknownVerdict {
        /// The pod.
        who: String,
        /// The verdict as JSON, cut off after 64 characters.
        word: String,
    },
    /// An optional member has the wrong type and was ignored.
    #[error("`{member}` of the verdict for {who} is {found}: expected {expected}; it was ignored")]
    WrongMember {
        /// The pod.
        who: String,
        /// Name of the member.
        member: &'static str,
        /// Its JSON type.
        found: &'static str,
        /// The expected type.
        expected: &'static str,
    },
}

/// Reads a callback's `traffic` member.
pub fn parse_traffic(traffic: &Value) -> (Vec<TrafficVerdict>, Vec<TrafficWarning>) {
    let mut warnings = Vec::new();
    let verdicts = match traffic {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| parse_item(index, item, &mut warnings))
            .collect(),
        Value::Object(members) => members
            .iter()
            .filter_map(|(id, value)| {
                let call = parse_call(id, value, &mut warnings)?;
                Some(TrafficVerdict { who: VerdictTarget::Id(id.clone()), opinion: called(call) })
            })
            .collect(),
        other => {
            warnings.push(TrafficWarning::NotAListOrObject(shape(other)));
            Vec::new()
        }
    };
    (verdicts, warnings)
}

/// Resolves names to UIDs; also returns the number of verdicts for pods that are not in the fleet.
pub fn resolve(
    verdicts: Vec<TrafficVerdict>,
    uid_of: impl Fn(&VerdictTarget) -> Option<Uid>,
) -> (Vec<(Uid, Opinion)>, usize) {
    let all = verdicts.len();
    let resolved = verdicts.into_iter().filter_map(|verdict| Some((uid_of(&verdict.who)?, verdict.opinion)));
    let known: Vec<_> = resolved.collect();
    let unknown = all - known.len();
    (known, unknown)
}

fn called(call: Call) -> Opinion {
    Opinion::Called { call, reason: String::new(), severity: 0.5, breaker: None }
}

fn parse_item(index: usize, item: &Value, warnings: &mut Vec<TrafficWarning>) -> Option<TrafficVerdict> {
    let Value::Object(members) = item else {
        warnings.push(TrafficWarning::ItemNotAnObject { index, found: shape(item) });
        return None;
    };
    let text = |member: &str| members.get(member).and_then(Value::as_str).filter(|text| !text.is_empty());
    let who = match (text("id"), text("key")) {
        (Some(id), _) => VerdictTarget::Id(id.to_owned()),
        (None, Some(key)) => VerdictTarget::Key(key.to_owned()),
        (None, None) => {
            warnings.push(TrafficWarning::MissingPod(index));
            return None;
        }
    };
    let (VerdictTarget::Id(name) | VerdictTarget::Key(name)) = &who;
    let call = parse_call(name, members.get("verdict").unwrap_or(&Value::Null), warnings)?;
    let reason = text("reason").map(str::to_owned);
    let breaker = text("breaker").map(str::to_owned);
    let severity =
        members.get("severity").and_then(Value::as_f64).filter(|severity| (0.0..=1.0).contains(severity));
    for (ignored, member, expected) in [
        (reason.is_none(), "reason", "a text"),
        (breaker.is_none(), "breaker", "a text"),
        (severity.is_none(), "severity", "a number from 0 to 1"),
    ] {
        if let Some(found) = members.get(member).filter(|value| ignored && !value.is_null()) {
            let (who, found) = (name.clone(), shape(found));
            warnings.push(TrafficWarning::WrongMember { who, member, found, expected });
        }
    }
    let opinion = Opinion::Called {
        call,
        reason: reason.unwrap_or_default(),
        severity: severity.unwrap_or(0.5),
        breaker,
    };
    Some(TrafficVerdict { who, opinion })
}

fn parse_call(who: &str, value: &Value, warnings: &mut Vec<TrafficWarning>) -> Option<Call> {
    match value.as_str() {
        Some("withhold" | "no") => Some(Call::Withhold),
        Some("admit" | "yes") => Some(Call::Admit),
        Some("pause") => Some(Call::Pause),
        Some("kill") => Some(Call::Kill),
        _ => {
            let word = value.to_string().chars().take(64).collect();
            warnings.push(TrafficWarning::UnknownVerdict { who: who.to_owned(), word });
            None
        }
    }
}

fn shape(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
