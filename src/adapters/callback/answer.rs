//! Interprets a callback's stdout.
//!
//! Wrong types inside valid JSON are warnings, not errors: the output is kept as the state in any case.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use serde_json::{Value, value::RawValue};

use super::{CallbackAnswer, CallbackError};
use crate::{
    adapters::store::STATE_LIMIT,
    decide::{
        canonical::{CanonicalError, JsonNode},
        damper::AGAIN_LIMITS,
    },
};

/// A mistake in an answer that is ignored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// Bytes that are no UTF-8, which are replaced.
    #[error("its output is not UTF-8: the offending bytes were replaced")]
    BadUtf8,
    /// `again` is no number.
    #[error("the member 'again' must be a number of seconds; it is ignored")]
    BadAgain,
    /// `traffic` is neither a list nor an object.
    #[error("the member 'traffic' must be a list of verdicts or an object of id to verdict; it is ignored")]
    BadTraffic,
    /// A value that JSON has not, such as `NaN`, or one that fits into no double or text.
    #[error("{text:?} at {place:?} of its output is no JSON value that can be read: it counts as null")]
    OddValue {
        /// Its JSON pointer.
        place: String,
        /// Its source text, cut off after 64 characters.
        text: String,
    },
}

impl Warning {
    /// The metric's label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::BadUtf8 => "bad_utf8",
            Self::BadAgain => "bad_again",
            Self::BadTraffic => "bad_traffic",
            Self::OddValue { .. } => "odd_value",
        }
    }
}

/// Reads the stdout of a successful run.
pub(super) fn read(
    stdout: &Bytes,
    truncated: bool,
    warnings: &mut Vec<Warning>,
) -> Result<CallbackAnswer, CallbackError> {
    // Some programs begin a text with a byte order mark.
    let trimmed = stdout.trim_ascii();
    let trimmed = trimmed.strip_prefix(b"\xef\xbb\xbf").unwrap_or(trimmed);
    if trimmed.is_empty() && !truncated {
        return Ok(CallbackAnswer::default());
    }
    if truncated || trimmed.len() > STATE_LIMIT {
        return Err(CallbackError::StateTooLarge(trimmed.len()));
    }
    let state = match String::from_utf8_lossy(trimmed) {
        std::borrow::Cow::Borrowed(_) => stdout.slice_ref(trimmed),
        std::borrow::Cow::Owned(repaired) => {
            warnings.push(Warning::BadUtf8);
            Bytes::from(repaired)
        }
    };
    if state.len() > STATE_LIMIT {
        return Err(CallbackError::StateTooLarge(state.len()));
    }
    // Only the two members that are read must have values that fit into memory: a number beyond a double, or half a
    // surrogate pair, elsewhere in the state is the callback's own business.
    let state = match serde_json::from_slice::<&RawValue>(&state) {
        Ok(_) => state,
        Err(error) => without_odd_values(&state, warnings).ok_or(CallbackError::InvalidJson(error))?,
    };
    let value: &RawValue = serde_json::from_slice(&state).map_err(CallbackError::InvalidJson)?;
    let (traffic, again) = (member(value, "traffic", warnings), member(value, "again", warnings));
    Ok(CallbackAnswer {
        state: Some(state),
        traffic: traffic.filter(|traffic| is_traffic(traffic, warnings)),
        again: again.and_then(|again| seconds(&again, warnings)),
    })
}

/// The member of that name; `null` counts as absent.
fn member(value: &RawValue, name: &str, warnings: &mut Vec<Warning>) -> Option<Value> {
    let members: HashMap<String, &RawValue> = serde_json::from_str(value.get()).ok()?;
    let text = members.get(name)?.get();
    let read = serde_json::from_str::<Value>(text).or_else(|_| {
        let node = JsonNode::parse_lenient(text.as_bytes())?;
        warnings.extend(odd_value(&node, &format!("/{name}")));
        Ok::<_, CanonicalError>(readable(&node))
    });
    let Ok(read) = read else {
        warnings.push(if name == "again" { Warning::BadAgain } else { Warning::BadTraffic });
        return None;
    };
    Some(read).filter(|member| !member.is_null())
}

/// The output with `null` for what JSON has not; `None`: it is no JSON all the same.
fn without_odd_values(state: &[u8], warnings: &mut Vec<Warning>) -> Option<Bytes> {
    let node = JsonNode::parse_lenient(state).ok().filter(|node| !matches!(node, JsonNode::Odd(_)))?;
    warnings.extend(odd_value(&node, ""));
    let mut out = Vec::with_capacity(state.len());
    node.write(&mut out);
    Some(Bytes::from(out))
}

fn odd_value(node: &JsonNode<'_>, below: &str) -> Option<Warning> {
    let (place, text) = node.first_odd()?;
    Some(Warning::OddValue { place: format!("{below}{place}"), text: text.chars().take(64).collect() })
}

/// As a value, with `null` for what cannot be read.
fn readable(node: &JsonNode<'_>) -> Value {
    match node {
        JsonNode::Scalar(text) => serde_json::from_str(text).unwrap_or_default(),
        JsonNode::Text(text) => Value::String(text.to_string()),
        JsonNode::List(items) => items.iter().map(readable).collect(),
        JsonNode::Object(members) => {
            members.iter().map(|(name, value)| (name.to_string(), readable(value))).collect()
        }
        JsonNode::Beyond(_) | JsonNode::Odd(_) => Value::Null,
    }
}

fn is_traffic(traffic: &Value, warnings: &mut Vec<Warning>) -> bool {
    let valid = traffic.is_array() || traffic.is_object();
    if !valid {
        warnings.push(Warning::BadTraffic);
    }
    valid
}

fn seconds(again: &Value, warnings: &mut Vec<Warning>) -> Option<Duration> {
    let Some(seconds) = again.as_f64() else {
        warnings.push(Warning::BadAgain);
        return None;
    };
    let (least, most) = AGAIN_LIMITS;
    Some(Duration::from_secs_f64(seconds.clamp(least.as_secs_f64(), most.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_str(text: &str) -> (Result<CallbackAnswer, CallbackError>, Vec<Warning>) {
        let mut warnings = Vec::new();
        (read(&Bytes::copy_from_slice(text.as_bytes()), false, &mut warnings), warnings)
    }

    #[test]
    fn empty_output_is_a_success_that_keeps_the_state() {
        for text in ["", "\n", " \t\r\n"] {
            let (answer, warnings) = read_str(text);
            assert_eq!(answer.unwrap(), CallbackAnswer::default());
            assert!(warnings.is_empty());
        }
    }

    #[test]
    fn any_json_is_a_state_and_only_an_object_has_members() {
        for text in ["1", "null", "\"x\"", "[{\"traffic\": 3}]", "{}"] {
            let (answer, warnings) = read_str(&format!(" {text}\n"));
            let answer = answer.unwrap();
            assert_eq!(answer.state.unwrap(), text);
            assert_eq!((answer.traffic, answer.again, warnings.len()), (None, None, 0));
        }
    }

    #[test]
    fn again_is_clamped_and_a_wrong_type_is_a_warning() {
        for (text, expected) in [("0", 0.1), ("-5", 0.1), ("2.5", 2.5), ("1e300", 86_400.0), ("7", 7.0)] {
            let (answer, warnings) = read_str(&format!("{{\"again\": {text}}}"));
            assert_eq!(answer.unwrap().again, Some(Duration::from_secs_f64(expected)), "{text}");
            assert!(warnings.is_empty());
        }
        for text in ["\"5\"", "[]", "true"] {
            let (answer, warnings) = read_str(&format!("{{\"again\": {text}}}"));
            let answer = answer.unwrap();
            assert_eq!(answer.again, None);
            assert!(answer.state.is_some());
            assert_eq!(warnings, [Warning::BadAgain]);
        }
        assert_eq!(read_str("{\"again\": null}").1, []);
    }

    #[test]
    fn traffic_is_returned_verbatim_and_a_wrong_type_is_a_warning() {
        let (answer, warnings) = read_str(r#"{"traffic": {"a": "withhold"}, "mine": 1}"#);
        let answer = answer.unwrap();
        assert_eq!(answer.traffic, Some(serde_json::json!({"a": "withhold"})));
        assert_eq!(answer.state.unwrap(), r#"{"traffic": {"a": "withhold"}, "mine": 1}"#);
        assert!(warnings.is_empty());
        let (answer, warnings) = read_str(r#"{"traffic": 7}"#);
        assert_eq!((answer.unwrap().traffic, warnings), (None, vec![Warning::BadTraffic]));
    }

    #[test]
    fn two_values_or_half_a_value_are_no_json() {
        for text in ["{} {}", "{", "hello", "NaN", "'x'"] {
            assert_eq!(read_str(text).0.unwrap_err().category(), "invalid_json", "{text}");
        }
    }

    #[test]
    fn values_that_no_member_of_ours_has_cost_nothing() {
        for text in [
            r#"{"n": 1e400, "again": 2}"#,
            r#"{"name": "caf\udce9", "again": 2}"#,
            "\u{feff}{\"again\": 2}\r\n",
        ] {
            let answer = read_str(text).0.unwrap();
            assert_eq!(answer.again, Some(Duration::from_secs(2)), "{text}");
            assert_eq!(answer.state.unwrap(), text.trim_start_matches('\u{feff}').trim());
        }
    }

    #[test]
    fn an_odd_value_in_an_answer_costs_itself_and_neither_the_run_nor_another_pods_verdict() {
        for odd in ["NaN", "Infinity", "-Infinity", "1e400", &format!("1{}", "0".repeat(400))] {
            let text = format!(
                r#"{{"traffic": [{{"id": "a", "verdict": "withhold", "severity": {odd}}},
                {{"id": "b", "verdict": "withhold"}}], "again": 2}}"#
            );
            let (answer, warnings) = read_str(&text);
            let answer = answer.unwrap();
            let (verdicts, _) = crate::decide::verdict::parse_traffic(&answer.traffic.unwrap());
            assert_eq!((verdicts.len(), answer.again), (2, Some(Duration::from_secs(2))), "{odd}");
            let [Warning::OddValue { place, text }] = &warnings[..] else { panic!("{odd}: {warnings:?}") };
            assert_eq!(place, "/traffic/0/severity");
            assert!(odd.starts_with(text.as_str()) && text.len() <= 64, "{text}");
        }
        // Elsewhere in the state, which the next run gets.
        let (answer, warnings) = read_str(r#"{"mean": NaN, "again": 3}"#);
        let answer = answer.unwrap();
        assert_eq!(
            (answer.again, answer.state.unwrap()),
            (Some(Duration::from_secs(3)), r#"{"again":3,"mean":null}"#.into())
        );
        assert_eq!(
            warnings[0].to_string(),
            r#""NaN" at "/mean" of its output is no JSON value that can be read: it counts as null"#
        );
        let (answer, warnings) =
            read_str(r#"{"traffic": {"a": "withhold", "b": "\udce9"}, "again": Infinity}"#);
        let answer = answer.unwrap();
        assert_eq!((answer.traffic.unwrap()["a"].as_str(), answer.again), (Some("withhold"), None));
        assert_eq!(warnings.len(), 1, "the first place is told: {warnings:?}");
    }

    #[test]
    fn bytes_that_are_no_utf8_are_replaced_and_flagged() {
        let mut warnings = Vec::new();
        let answer = read(&Bytes::from_static(b"{\"a\": \"\xff\"}"), false, &mut warnings).unwrap();
        assert_eq!(answer.state.unwrap(), "{\"a\": \"\u{fffd}\"}");
        assert_eq!(warnings, [Warning::BadUtf8]);
    }

    #[test]
    fn a_state_beyond_the_limit_is_refused_and_one_at_the_limit_is_not() {
        let text = |size: usize| format!("\"{}\"", "x".repeat(size - 2));
        assert_eq!(read_str(&text(STATE_LIMIT)).0.unwrap().state.unwrap().len(), STATE_LIMIT);
        assert_eq!(read_str(&text(STATE_LIMIT + 1)).0.unwrap_err().category(), "state_too_large");
        // Each bad byte grows to three.
        let mut bad = vec![0xff; STATE_LIMIT / 2];
        bad.insert(0, b'"');
        bad.push(b'"');
        assert_eq!(read(&bad.into(), false, &mut Vec::new()).unwrap_err().category(), "state_too_large");
    }
}
