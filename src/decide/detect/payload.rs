//! Detectors of keepalives: the age of the last one, and values in its payload.

use std::time::Duration;

use serde_json::Value;

use super::{LifeStatus, Observation};
use crate::decide::verdict::{Evidence, Judgement, NoVerdict};

/// `keepalive.silentAfter`.
#[derive(Clone, Debug, PartialEq)]
pub struct SilenceRule {
    /// A pod whose last keepalive is older is bad.
    pub after: Duration,
}

/// `keepalive.pointer`.
#[derive(Clone, Debug, PartialEq)]
pub struct PayloadRule {
    /// JSON pointer (RFC 6901) into the payload.
    pub pointer: String,
    /// The good values.
    pub good: Good,
}

/// The good values at a pointer.
#[derive(Clone, Debug, PartialEq)]
pub enum Good {
    /// A number in [min, max]; at least one bound is set, and `min <= max`.
    Within {
        /// The lower bound, included.
        min: Option<f64>,
        /// The upper bound, included.
        max: Option<f64>,
    },
    /// One of these values; never empty.
    OneOf(Vec<Value>),
}

/// A pod's value for a comparison with its peers.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// A finite number.
    Number {
        /// Finite.
        value: f64,
        /// Whether the pod has no traffic now.
        withheld: bool,
    },
    /// No usable value, and why.
    None(NoVerdict),
}

/// Judges by the age of the last keepalive. An expired pod is bad at any age; one without any keepalive has no data.
pub fn silence(rule: &SilenceRule, pod: &Observation) -> Judgement {
    if !pod.heard {
        return Judgement::None(NoVerdict::NoKeepalive);
    }
    if pod.age <= rule.after && pod.status != LifeStatus::Expired {
        return Judgement::Good;
    }
    let (age, after) = (pod.age.as_secs_f64(), rule.after.as_secs_f64());
    Judgement::Bad {
        severity: beyond(age, after),
        evidence: Box::new(Evidence {
            rule: "keepalive.silentAfter".into(),
            value: Some(age),
            threshold: Some(after),
            ..Evidence::default()
        }),
    }
}

/// Judges by the value at the pointer.
pub fn bounds(rule: &PayloadRule, pod: &Observation) -> Judgement {
    if !pod.heard {
        return Judgement::None(NoVerdict::NoKeepalive);
    }
    if pod.status == LifeStatus::Expired {
        return Judgement::None(NoVerdict::Expired);
    }
    let value = match pod.payload.pointer(&rule.pointer) {
        None | Some(Value::Null) => return absent(rule),
        Some(Value::String(text)) if text.is_empty() && rule.pointer.is_empty() => {
            return Judgement::None(NoVerdict::NoValue);
        }
        Some(value) => value,
    };
    match &rule.good {
        Good::Within { min, max } => match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => within(rule, number, *min, *max),
            None => Judgement::None(NoVerdict::NoNumber),
        },
        Good::OneOf(good) => one_of(rule, value, good),
    }
}

/// Each pod's number at the pointer, in their order.
pub fn samples(pointer: &str, pods: &[&Observation]) -> Vec<Sample> {
    let sample = |pod: &&Observation| match pod.payload.pointer(pointer) {
        _ if !pod.heard => Sample::None(NoVerdict::NoKeepalive),
        _ if pod.status == LifeStatus::Expired => Sample::None(NoVerdict::Expired),
        None | Some(Value::Null) => Sample::None(NoVerdict::NoValue),
        Some(Value::String(text)) if text.is_empty() && pointer.is_empty() => {
            Sample::None(NoVerdict::NoValue)
        }
        Some(value) => match value.as_f64().filter(|number| number.is_finite()) {
            Some(value) => Sample::Number { value, withheld: pod.withheld },
            None => Sample::None(NoVerdict::NoNumber),
        },
    };
    pods.iter().map(sample).collect()
}

/// Severity of `value` beyond `limit`: 0 at the limit, towards 1 with distance.
pub fn beyond(value: f64, limit: f64) -> f64 {
    let far = (value - limit).abs();
    let share = far / (limit.abs() + far);
    if share.is_finite() { share } else { 0.0 }
}

/// No value at the pointer is no data, unless `null` is a good value.
fn absent(rule: &PayloadRule) -> Judgement {
    match &rule.good {
        Good::OneOf(good) if good.contains(&Value::Null) => Judgement::Good,
        _ => Judgement::None(NoVerdict::NoValue),
    }
}

fn within(rule: &PayloadRule, number: f64, min: Option<f64>, max: Option<f64>) -> Judgement {
    let crossed = min
        .filter(|min| number < *min)
        .map(|min| ("min", min))
        .or(max.filter(|max| number > *max).map(|max| ("max", max)));
    let Some((bound, limit)) = crossed else { return Judgement::Good };
    Judgement::Bad {
        severity: beyond(number, limit),
        evidence: Box::new(Evidence {
            rule: format!("keepalive.{bound} of {:?}", rule.pointer),
            value: Some(number),
            threshold: Some(limit),
            ..Evidence::default()
        }),
    }
}

fn one_of(rule: &PayloadRule, value: &Value, good: &[Value]) -> Judgement {
    if good.iter().any(|item| same(item, value)) {
        return Judgement::Good;
    }
    if !good.iter().any(|item| std::mem::discriminant(item) == std::mem::discriminant(value)) {
        return Judgement::None(NoVerdict::NoNumber);
    }
    Judgement::Bad {
        severity: 1.0,
        evidence: Box::new(Evidence {
            rule: format!("keepalive.oneOf of {:?}", rule.pointer),
            value: value.as_f64(),
            note: Some(format!("found {}", brief(value))),
            ..Evidence::default()
        }),
    }
}

/// Equality of JSON values; numbers compare by value, so that 1 equals 1.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// The value as JSON, cut to 64 characters.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 64 { text } else { text.chars().take(61).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use serde_json::json;

    use super::*;

    fn pod(payload: Value) -> Observation {
        Observation {
            uid: "u".into(),
            id: "web-1".into(),
            age: Duration::from_secs(1),
            status: LifeStatus::Live,
            heard: true,
            withheld: false,
            name_age: None,
            payload: Arc::new(payload),
        }
    }

    fn rule(pointer: &str, good: Good) -> PayloadRule {
        PayloadRule { pointer: pointer.into(), good }
    }

    fn evidence(judgement: Judgement) -> (f64, Evidence) {
        match judgement {
            Judgement::Bad { severity, evidence } => (severity, *evidence),
            other => panic!("not bad: {other:?}"),
        }
    }

    #[test]
    fn a_pod_is_silent_only_beyond_the_limit() {
        let rule = SilenceRule { after: Duration::from_secs(10) };
        let mut observed = pod(json!(""));
        observed.age = Duration::from_secs(10);
        assert_eq!(silence(&rule, &observed), Judgement::Good);
        observed.age = Duration::from_millis(10_001);
        let (slight, found) = evidence(silence(&rule, &observed));
        assert_eq!((found.value, found.threshold), (Some(10.001), Some(10.0)));
        observed.age = Duration::from_secs(60);
        assert!(evidence(silence(&rule, &observed)).0 > slight, "severity grows with silence");
    }

    #[test]
    fn an_expired_pod_is_silent_whatever_its_age_and_its_payload_is_stale() {
        let mut observed = pod(json!({"errors": 1.0}));
        observed.status = LifeStatus::Expired;
        evidence(silence(&SilenceRule { after: Duration::from_secs(10) }, &observed));
        let within = rule("/errors", Good::Within { min: None, max: Some(0.1) });
        assert_eq!(bounds(&within, &observed), Judgement::None(NoVerdict::Expired));
        assert_eq!(samples("/errors", &[&observed]), [Sample::None(NoVerdict::Expired)]);
    }

    #[test]
    fn both_ends_of_a_range_are_good_and_beyond_them_is_bad() {
        let within = rule("/load", Good::Within { min: Some(-1.0), max: Some(2.0) });
        for good in [json!(-1), json!(0), json!(2.0)] {
            assert_eq!(bounds(&within, &pod(json!({"load": good}))), Judgement::Good);
        }
        let (_, low) = evidence(bounds(&within, &pod(json!({"load": -1.5}))));
        assert_eq!((low.value, low.threshold), (Some(-1.5), Some(-1.0)));
        assert_eq!(low.rule, "keepalive.min of \"/load\"");
        let (near, high) = evidence(bounds(&within, &pod(json!({"load": 2.5}))));
        assert_eq!((high.value, high.threshold), (Some(2.5), Some(2.0)));
        let (far, _) = evidence(bounds(&within, &pod(json!({"load": 50}))));
        assert!(far > near && far < 1.0);
    }

    #[test]
    fn a_missing_value_is_no_data_and_another_type_is_an_error() {
        let within = rule("/load", Good::Within { min: None, max: Some(2.0) });
        for missing in [json!({}), json!(""), json!(null), json!({"load": null}), json!(7)] {
            assert_eq!(
                bounds(&within, &pod(missing.clone())),
                Judgement::None(NoVerdict::NoValue),
                "{missing}"
            );
        }
        for odd in [json!("NaN"), json!("3"), json!(true), json!([3]), json!({"a": 3})] {
            assert_eq!(
                bounds(&within, &pod(json!({"load": odd}))),
                Judgement::None(NoVerdict::NoNumber),
                "{odd}"
            );
        }
    }

    #[test]
    fn one_of_compares_numbers_by_value_and_the_note_has_what_was_found() {
        let states = rule("/state", Good::OneOf(vec![json!("up"), json!(1)]));
        assert_eq!(bounds(&states, &pod(json!({"state": "up"}))), Judgement::Good);
        assert_eq!(bounds(&states, &pod(json!({"state": 1.0}))), Judgement::Good);
        let (severity, found) = evidence(bounds(&states, &pod(json!({"state": "x".repeat(500)}))));
        assert_eq!(severity, 1.0);
        assert!(found.note.is_some_and(|note| note.starts_with("found \"xxx") && note.len() < 80));
        assert_eq!(bounds(&states, &pod(json!({"state": true}))), Judgement::None(NoVerdict::NoNumber));
        assert_eq!(bounds(&states, &pod(json!({}))), Judgement::None(NoVerdict::NoValue));
    }

    #[test]
    fn the_empty_pointer_is_the_whole_payload_and_no_payload_is_no_data() {
        let within = rule("", Good::Within { min: None, max: Some(2.0) });
        assert_eq!(bounds(&within, &pod(json!(1))), Judgement::Good);
        assert_eq!(bounds(&within, &pod(json!(""))), Judgement::None(NoVerdict::NoValue));
        evidence(bounds(&within, &pod(json!(3))));
    }

    #[test]
    fn pointers_follow_rfc_6901() {
        let within = rule("/a~1b/m~0n/1", Good::Within { min: None, max: Some(2.0) });
        assert_eq!(bounds(&within, &pod(json!({"a/b": {"m~n": [9, 1]}}))), Judgement::Good);
    }
}
