//! Members of a resource as text for a terminal, without control characters, which a terminal would execute.

use serde_json::Value;

use crate::{decide::time::Timestamp, roles::output};

/// As kubectl prints a missing value.
pub(super) const NONE: &str = "<none>";

/// The value at `pointer`, strings without quotes; `None` for null, an empty string or none.
pub(super) fn text(value: &Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(plain(text)),
        other => Some(plain(&other.to_string())),
    }
}

/// As [`text`], for a cell of a table.
pub(super) fn cell(value: &Value, pointer: &str) -> String {
    text(value, pointer).unwrap_or_else(|| NONE.into())
}

/// Control characters and line breaks become spaces.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A time as RFC 3339 or as milliseconds since 1970.
pub(super) fn time(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => instant(text),
        other => other.as_i64().map(Timestamp::from_unix_millis),
    }
}

/// A time as RFC 3339.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    let at = text.parse::<jiff::Timestamp>().ok()?;
    Some(Timestamp::from_unix_millis(at.as_millisecond()))
}

/// The condition of that type.
pub(super) fn condition<'a>(resource: &'a Value, kind: &str) -> Option<&'a Value> {
    output::list(resource, "/status/conditions").iter().find(|condition| condition["type"] == kind)
}

/// The age as kubectl shortens it.
pub(super) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(since).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `Ready`, or the reason why not.
pub(super) fn status(resource: &Value) -> String {
    if let Some(ready) = condition(resource, "Ready") {
        let reason = text(ready, "/reason").filter(|reason| reason != "NotReady");
        return match (ready["status"].as_str(), reason) {
            (Some("True"), _) => "Ready".into(),
            (Some("False"), reason) => with_reason("NotReady", reason.or_else(|| original_failure(resource))),
            (_, reason) => with_reason("Unknown", reason),
        };
    }
    // Written by the original, or not yet reconciled.
    match original_failure(resource) {
        Some(kind) => with_reason("NotReady", Some(kind)),
        None if condition(resource, "Running").is_some_and(|running| running["status"] == "True") => {
            "Ready".into()
        }
        None => "Unknown".into(),
    }
}

/// The first of the original's failure conditions that is true.
fn original_failure(resource: &Value) -> Option<String> {
    let kinds = ["InitFailed", "ServiceNotAvailable", "Failed"];
    let holds = |kind: &&str| condition(resource, kind).is_some_and(|found| found["status"] == "True");
    kinds.into_iter().find(holds).map(str::to_owned)
}

fn with_reason(status: &str, reason: Option<String>) -> String {
    reason.map_or_else(|| status.to_owned(), |reason| format!("{status}: {reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(conditions: &[(&str, &str, &str)]) -> Value {
        let conditions = conditions
            .iter()
            .map(|(kind, status, reason)| json!({ "type": kind, "status": status, "reason": reason }));
        json!({ "status": { "conditions": conditions.collect::<Vec<_>>() } })
    }

    #[test]
    fn a_status_is_ready_or_the_first_reason_why_not() {
        let said = |conditions: &[_]| status(&with(conditions));
        assert_eq!(said(&[("Ready", "True", "AllWell")]), "Ready");
        assert_eq!(said(&[("Ready", "False", "ServiceMissing")]), "NotReady: ServiceMissing");
        assert_eq!(said(&[("Ready", "False", ""), ("Failed", "True", "x")]), "NotReady: Failed");
        assert_eq!(said(&[("Ready", "Unknown", "NoData")]), "Unknown: NoData");
        assert_eq!(said(&[]), "Unknown");
    }

    #[test]
    fn a_status_that_the_original_wrote_is_read_too() {
        let said = |conditions: &[_]| status(&with(conditions));
        assert_eq!(said(&[("Running", "True", "")]), "Ready");
        assert_eq!(said(&[("Running", "False", ""), ("InitFailed", "True", "")]), "NotReady: InitFailed");
    }

    #[test]
    fn control_characters_become_spaces() {
        assert_eq!(text(&json!({ "a": "x\u{1b}[2J\ny" }), "/a").as_deref(), Some("x [2J y"));
        assert_eq!(cell(&json!({ "a": "" }), "/a"), NONE);
    }

    #[test]
    fn times_are_read_in_both_forms_and_ages_are_short() {
        let zero = time(&json!("1970-01-01T00:00:00Z")).unwrap();
        assert_eq!(Some(zero), time(&json!(0)));
        assert_eq!(time(&json!("yesterday")), None);
        let ages = [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d")];
        for (seconds, words) in ages {
            assert_eq!(age(zero, Timestamp::from_unix_millis(seconds * 1000)), words);
        }
        assert_eq!(age(Timestamp::from_unix_millis(5000), zero), "0s", "a clock that is behind");
    }
}
