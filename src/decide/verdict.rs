//! What was said about the pods: a callback's calls and the detectors' judgements, side by side.
//!
//! A judgement has five values, not two: "no data" is neither good nor bad, and whoever folds it into
//! one of them either empties a fleet when Prometheus is away or never withholds anything.

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{fleet::Uid, time::Timestamp};

/// What a callback wants for a pod; in order of strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// Traffic, now: the activator's time does not matter.
    Admit,
    /// No traffic; the activator decides when it comes back.
    Withhold,
    /// No traffic until somebody says otherwise.
    Pause,
    /// Its end, once it is withheld.
    Kill,
}

/// What a detector found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Judgement {
    /// Nothing wrong.
    Good,
    /// Out of bounds.
    Bad {
        /// 0..1, the worst goes first.
        severity: f64,
        /// In numbers.
        evidence: Evidence,
    },
    /// Nothing is known of this pod.
    NoData,
    /// What is known is too old.
    Stale,
    /// It could not be judged.
    Error,
}

/// Why, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Evidence {
    /// The rule, in words.
    pub rule: String,
    /// What was measured.
    pub value: Option<f64>,
    /// The bound that it crossed.
    pub threshold: Option<f64>,
    /// The peers' median, when the rule has peers.
    pub median: Option<f64>,
    /// Whatever is no number: the text that was found, m of n windows.
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

/// One source's word on one pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Opinion {
    /// A detector's.
    Judged(Judgement),
    /// A callback's.
    Called {
        /// What it wants.
        call: Call,
        /// Why, in its words.
        reason: String,
        /// 0..1.
        severity: f64,
        /// The breaker that it names: whose activator applies.
        breaker: Option<String>,
    },
}

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceKind {
    /// A breaker of the policy, by its name; subject to its coverage.
    Breaker,
    /// A callback: it was given the whole fleet, so a pod that it does not name has no objection against it.
    Callback,
}

/// Everything that one source said in its last successful run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Source {
    /// The breaker's name, or the callback's.
    pub name: String,
    /// Who says it.
    pub kind: SourceKind,
    /// When the run ended.
    pub at: Timestamp,
    opinions: Vec<(Uid, Opinion)>,
}

impl Source {
    /// Puts the opinions in order; of two of the same pod the stricter one stays.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        kind: SourceKind,
        at: Timestamp,
        mut opinions: Vec<(Uid, Opinion)>,
    ) -> Self {
        opinions.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| y.strictness(x)));
        opinions.dedup_by(|(later, _), (kept, _)| later == kept);
        Self { name: name.into(), kind, at, opinions }
    }

    /// In order of the UID.
    #[must_use]
    pub fn opinions(&self) -> &[(Uid, Opinion)] {
        &self.opinions
    }
}

impl Opinion {
    /// 0..1; what is not a number is 0.
    #[must_use]
    pub fn severity(&self) -> f64 {
        let severity = match self {
            Self::Judged(Judgement::Bad { severity, .. }) | Self::Called { severity, .. } => *severity,
            Self::Judged(_) => 0.0,
        };
        if severity.is_finite() { severity.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// This opinion asks for the pod to be out of traffic.
    #[must_use]
    pub fn objects(&self) -> bool {
        match self {
            Self::Judged(judgement) => matches!(judgement, Judgement::Bad { .. }),
            Self::Called { call, .. } => *call >= Call::Withhold,
        }
    }

    fn strictness(&self, other: &Self) -> Ordering {
        let rank = |opinion: &Self| match opinion {
            Self::Judged(_) => None,
            Self::Called { call, .. } => Some(*call),
        };
        let objects = self.objects().cmp(&other.objects());
        objects.then(rank(self).cmp(&rank(other))).then(self.severity().total_cmp(&other.severity()))
    }
}

/// All that is in force now. A successful run of a source replaces all that it said before.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verdicts {
    /// Rises whenever any source has run: panic is over after two calm evaluations, not two plans.
    pub evaluation: u64,
    /// One per breaker and callback.
    pub sources: Vec<Source>,
}

impl Verdicts {
    /// `source` ran: its earlier word is forgotten.
    pub fn replace(&mut self, source: Source) {
        self.evaluation += 1;
        self.sources.retain(|old| old.name != source.name || old.kind != source.kind);
        self.sources.push(source);
    }
}

/// Whom a callback's verdict names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Named {
    /// `id`.
    Id(String),
    /// `key`.
    Key(String),
}

/// One verdict as the callback wrote it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrafficVerdict {
    /// Whom.
    pub who: Named,
    /// What it says.
    pub opinion: Opinion,
}

/// A `traffic` member, or a verdict in it, that is not what it must be. A warning: the rest counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrafficWarning {
    /// Neither list nor object.
    #[error("`traffic` is {found}: expected a list of verdicts, or an object id -> verdict")]
    NotAListOrObject {
        /// What it is.
        found: &'static str,
    },
    /// An item of the list is no object.
    #[error(
        "`traffic[{index}]` is {found}: expected an object like {{\"id\": \"web-1\", \"verdict\": \"withhold\"}}"
    )]
    ItemNotAnObject {
        /// Which.
        index: usize,
        /// What it is.
        found: &'static str,
    },
    /// Neither `id` nor `key`.
    #[error("`traffic[{index}]` names no pod: it needs a text `id` or `key`")]
    NamesNobody {
        /// Which.
        index: usize,
    },
    /// Not one of the words.
    #[error("`traffic` says {word} for {who}: expected withhold, admit, pause or kill (or no, yes, pause)")]
    UnknownWord {
        /// The pod.
        who: String,
        /// The word.
        word: String,
    },
    /// A member that was left out of account.
    #[error("`{member}` of the verdict for {who} is {found}: expected {expected}; it was ignored")]
    OddMember {
        /// The pod.
        who: String,
        /// Which.
        member: &'static str,
        /// What it is.
        found: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// Reads a callback's `traffic` member.
#[must_use]
pub fn parse_traffic(traffic: &Value) -> (Vec<TrafficVerdict>, Vec<TrafficWarning>) {
    let mut warnings = Vec::new();
    let verdicts = match traffic {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| read_item(index, item, &mut warnings))
            .collect(),
        Value::Object(members) => members
            .iter()
            .filter_map(|(id, word)| {
                let call = read_word(id, word, &mut warnings)?;
                Some(TrafficVerdict { who: Named::Id(id.clone()), opinion: called(call) })
            })
            .collect(),
        other => {
            warnings.push(TrafficWarning::NotAListOrObject { found: shape(other) });
            Vec::new()
        }
    };
    (verdicts, warnings)
}

/// Puts the callback's names to the fleet's; the second number counts verdicts for pods that nobody knows.
#[must_use]
pub fn resolve(
    verdicts: Vec<TrafficVerdict>,
    uid_of: impl Fn(&Named) -> Option<Uid>,
) -> (Vec<(Uid, Opinion)>, usize) {
    let all = verdicts.len();
    let known: Vec<_> =
        verdicts.into_iter().filter_map(|verdict| Some((uid_of(&verdict.who)?, verdict.opinion))).collect();
    let unknown = all - known.len();
    (known, unknown)
}

fn called(call: Call) -> Opinion {
    Opinion::Called { call, reason: String::new(), severity: 0.5, breaker: None }
}

fn read_item(index: usize, item: &Value, warnings: &mut Vec<TrafficWarning>) -> Option<TrafficVerdict> {
    let Value::Object(members) = item else {
        warnings.push(TrafficWarning::ItemNotAnObject { index, found: shape(item) });
        return None;
    };
    let text = |member: &str| members.get(member).and_then(Value::as_str).filter(|text| !text.is_empty());
    let who = match (text("id"), text("key")) {
        (Some(id), _) => Named::Id(id.to_owned()),
        (None, Some(key)) => Named::Key(key.to_owned()),
        (None, None) => {
            warnings.push(TrafficWarning::NamesNobody { index });
            return None;
        }
    };
    let (Named::Id(name) | Named::Key(name)) = &who;
    let call = read_word(name, members.get("verdict").unwrap_or(&Value::Null), warnings)?;
    let mut odd = |member, expected| {
        if let Some(found) = members.get(member).filter(|value| !value.is_null()) {
            let who = name.clone();
            warnings.push(TrafficWarning::OddMember { who, member, found: shape(found), expected });
        }
    };
    let reason = text("reason").map(str::to_owned);
    let breaker = text("breaker").map(str::to_owned);
    let severity =
        members.get("severity").and_then(Value::as_f64).filter(|severity| (0.0..=1.0).contains(severity));
    if reason.is_none() {
        odd("reason", "a text");
    }
    if breaker.is_none() {
        odd("breaker", "a text");
    }
    if severity.is_none() {
        odd("severity", "a number from 0 to 1");
    }
    let opinion = Opinion::Called {
        call,
        reason: reason.unwrap_or_default(),
        severity: severity.unwrap_or(0.5),
        breaker,
    };
    Some(TrafficVerdict { who, opinion })
}

fn read_word(who: &str, word: &Value, warnings: &mut Vec<TrafficWarning>) -> Option<Call> {
    match word.as_str() {
        Some("withhold" | "no") => Some(Call::Withhold),
        Some("admit" | "yes") => Some(Call::Admit),
        Some("pause") => Some(Call::Pause),
        Some("kill") => Some(Call::Kill),
        _ => {
            let word = word.to_string().chars().take(64).collect();
            warnings.push(TrafficWarning::UnknownWord { who: who.to_owned(), word });
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
mod tests {
    use serde_json::json;

    use super::*;

    fn call_of(verdict: &TrafficVerdict) -> Call {
        match verdict.opinion {
            Opinion::Called { call, .. } => call,
            Opinion::Judged(_) => panic!("a callback calls"),
        }
    }

    #[test]
    fn both_forms_and_both_vocabularies_are_read() {
        let (list, warnings) = parse_traffic(&json!([
            {"id": "a", "verdict": "withhold", "reason": "errors", "severity": 0.9, "breaker": "rate"},
            {"key": "2T3m2n", "verdict": "admit"}, {"id": "c", "verdict": "kill"},
        ]));
        assert_eq!(warnings, vec![]);
        assert_eq!(list.iter().map(call_of).collect::<Vec<_>>(), [Call::Withhold, Call::Admit, Call::Kill]);
        assert_eq!(list[1].who, Named::Key("2T3m2n".into()));
        let (object, warnings) = parse_traffic(&json!({"a": "no", "b": "yes", "c": "pause"}));
        assert_eq!(warnings, vec![]);
        assert_eq!(
            object.iter().map(call_of).collect::<Vec<_>>(),
            [Call::Withhold, Call::Admit, Call::Pause]
        );
    }

    #[test]
    fn a_wrong_shape_is_a_warning_and_the_rest_counts() {
        let (verdicts, warnings) =
            parse_traffic(&json!([7, {"verdict": "no"}, {"id": "a", "verdict": "open"},
            {"id": "b", "verdict": "no", "severity": 3}]));
        assert_eq!(verdicts.len(), 1);
        assert_eq!(warnings.len(), 4);
        assert!(matches!(warnings[0], TrafficWarning::ItemNotAnObject { index: 0, found: "a number" }));
        assert!(matches!(warnings[1], TrafficWarning::NamesNobody { index: 1 }));
        assert!(matches!(&warnings[2], TrafficWarning::UnknownWord { who, .. } if who == "a"));
        assert!(matches!(&warnings[3], TrafficWarning::OddMember { member: "severity", .. }));
        let (none, warnings) = parse_traffic(&json!("withhold"));
        assert!(none.is_empty());
        assert!(matches!(warnings[..], [TrafficWarning::NotAListOrObject { found: "a text" }]));
    }

    #[test]
    fn withhold_wins_over_admit_for_the_same_pod_and_unknown_pods_are_counted() {
        let (list, _) = parse_traffic(&json!([{"id": "a", "verdict": "admit"}, {"id": "a", "verdict": "no"},
            {"id": "ghost", "verdict": "no"}]));
        let (known, unknown) =
            resolve(list, |who| if *who == Named::Id("a".into()) { Some(Uid::from("u-a")) } else { None });
        assert_eq!(unknown, 1);
        let source = Source::new("callback", SourceKind::Callback, Timestamp::default(), known);
        assert_eq!(source.opinions().len(), 1);
        assert!(source.opinions()[0].1.objects());
    }

    #[test]
    fn a_successful_run_replaces_all_that_the_source_said_before() {
        let source = |pods| Source::new("rate", SourceKind::Breaker, Timestamp::default(), pods);
        let mut verdicts = Verdicts::default();
        verdicts.replace(source(vec![("a".into(), Opinion::Judged(Judgement::Good))]));
        verdicts.replace(source(vec![]));
        assert_eq!((verdicts.evaluation, verdicts.sources.len()), (2, 1));
        assert!(verdicts.sources[0].opinions().is_empty());
    }

    #[test]
    fn a_severity_that_is_no_number_counts_as_none() {
        let bad = |severity| Opinion::Judged(Judgement::Bad { severity, evidence: Evidence::default() });
        assert_eq!(bad(f64::NAN).severity(), 0.0);
        assert_eq!(bad(7.0).severity(), 1.0);
    }
}
