//! How members of a resource become words for a terminal.
//!
//! A resource is whatever its author wrote, and a terminal obeys control characters: none gets through.

use serde_json::Value;

use crate::decide::time::Timestamp;

/// What kubectl writes where there is nothing.
pub(super) const NONE: &str = "<none>";

/// What stands at `pointer`, as a person would write it.
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

/// The list at `pointer`.
pub(super) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// On one line, and with nothing that a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A time that is RFC 3339 or, as the core's own, milliseconds since 1970.
pub(super) fn time(value: &Value) -> Option<Timestamp> {
    let millis = match value {
        Value::String(text) => text.parse::<jiff::Timestamp>().ok()?.as_millisecond(),
        other => other.as_i64()?,
    };
    Some(Timestamp::from_unix_millis(millis))
}

/// The condition of that type.
pub(super) fn condition<'a>(resource: &'a Value, kind: &str) -> Option<&'a Value> {
    list(resource, "/status/conditions").iter().find(|condition| condition["type"] == kind)
}

/// How long ago, as kubectl shortens it.
pub(super) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(since).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Ready, or why not, in a word or two.
pub(super) fn status(resource: &Value) -> String {
    if let Some(ready) = condition(resource, "Ready") {
        let reason = text(ready, "/reason").filter(|reason| reason != "NotReady");
        return match (ready["status"].as_str(), reason) {
            (Some("True"), _) => "Ready".into(),
            (Some("False"), reason) => worded("NotReady", reason.or_else(|| complaint(resource))),
            (_, reason) => worded("Unknown", reason),
        };
    }
    // What the original wrote, or a controller that has not seen it yet.
    match complaint(resource) {
        Some(kind) => worded("NotReady", Some(kind)),
        None if condition(resource, "Running").is_some_and(|running| running["status"] == "True") => {
            "Ready".into()
        }
        None => "Unknown".into(),
    }
}

/// The first of the original's complaints that holds.
fn complaint(resource: &Value) -> Option<String> {
    let kinds = ["InitFailed", "ServiceNotAvailable", "Failed"];
    let holds = |kind: &&str| condition(resource, kind).is_some_and(|found| found["status"] == "True");
    kinds.into_iter().find(holds).map(str::to_owned)
}

fn worded(word: &str, reason: Option<String>) -> String {
    reason.map_or_else(|| word.to_owned(), |reason| format!("{word}: {reason}"))
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
    fn nothing_that_a_terminal_obeys_gets_through() {
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
