//! The lasting states that a stored status reports: a new process continues its Events from there.

use crate::decide::alarm_reason::AlarmReason;
use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::ConditionStatus;
use crate::decide::time::Timestamp;

/// The state of withheld pods that stay in ready endpoints; the other states have the name of a plan's alarm.
pub const NOT_LEAVING: &str = "not_leaving_endpoints";

/// Each lasting state with its condition: type, status and reason (empty: any).
pub(super) const LASTING: [(&str, &str, ConditionStatus, &str); 11] = [
    (AlarmReason::FloorReached.as_str(), "FloorReached", ConditionStatus::True, "FloorHolds"),
    (AlarmReason::BelowFloor.as_str(), "FloorReached", ConditionStatus::True, "BelowFloor"),
    (AlarmReason::Panic.as_str(), "Panic", ConditionStatus::True, ""),
    (AlarmReason::NoData.as_str(), "DataAvailable", ConditionStatus::False, ""),
    (AlarmReason::ForeignNo.as_str(), "ForeignNo", ConditionStatus::True, "WithheldByOthers"),
    (AlarmReason::OddSwitch.as_str(), "ForeignNo", ConditionStatus::True, "OddSwitch"),
    (AlarmReason::WritesRefused.as_str(), "WritesRefused", ConditionStatus::True, ""),
    (AlarmReason::ReturnRefused.as_str(), "WritesRefused", ConditionStatus::True, "ReturnRefused"),
    (AlarmReason::LedgerFull.as_str(), "LedgerFull", ConditionStatus::True, ""),
    (AlarmReason::NotListed.as_str(), "NotListed", ConditionStatus::True, ""),
    (NOT_LEAVING, "NotLeavingEndpoints", ConditionStatus::True, ""),
];

/// What an earlier process has reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// The lasting states that have begun.
    pub raised: BTreeSet<&'static str>,
    /// The ledger's `revertedUntil`.
    pub reverted_until: Option<Timestamp>,
}

/// Reads it from the stored status.
#[must_use]
pub fn reported(status: &Value) -> Reported {
    let conditions = status.get("conditions").and_then(Value::as_array);
    let holds = |kind: &str, state: ConditionStatus, reason: &str| {
        conditions.into_iter().flatten().any(|condition| {
            let is = |member: &str, text: &str| condition.get(member).and_then(Value::as_str) == Some(text);
            is("type", kind) && is("status", state.as_str()) && (reason.is_empty() || is("reason", reason))
        })
    };
    let raised = LASTING.into_iter().filter(|(_, kind, state, reason)| holds(kind, *state, reason));
    let reverted_until = status.pointer("/ledger/revertedUntil").and_then(Value::as_i64);
    Reported {
        raised: raised.map(|(name, ..)| name).collect(),
        reverted_until: reverted_until.map(Timestamp::from_unix_millis),
    }
}
