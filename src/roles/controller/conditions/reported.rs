//! The lasting states that a stored status reports: a new process continues its Events from there.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::ConditionStatus::{self, False, True};
use crate::decide::{alarm_reason::AlarmReason, time::Timestamp};

/// The state of withheld pods that stay in ready endpoints; the other states have the name of a plan's alarm.
pub const NOT_LEAVING: &str = "not_leaving_endpoints";

/// A state that Events tell the beginning of, and some the end.
#[derive(Clone, Copy)]
pub struct Lasting {
    /// The plan's alarm, or [`NOT_LEAVING`].
    pub name: &'static str,
    /// The condition that shows it: type, status and reason (empty: any).
    condition: (&'static str, ConditionStatus, &'static str),
    /// The Event's reason at its beginning.
    pub begins: &'static str,
    /// Reason and note at its end.
    pub ends: Option<(&'static str, &'static str)>,
}

const fn lasting(
    name: &'static str,
    condition: (&'static str, ConditionStatus, &'static str),
    begins: &'static str,
) -> Lasting {
    Lasting { name, condition, begins, ends: None }
}

impl Lasting {
    const fn ending(self, reason: &'static str, note: &'static str) -> Self {
        Self { ends: Some((reason, note)), ..self }
    }
}

/// All lasting states.
pub const LASTING: [Lasting; 12] = [
    lasting(AlarmReason::FloorReached.as_str(), ("FloorReached", True, "FloorHolds"), "FloorReached"),
    lasting(AlarmReason::BelowFloor.as_str(), ("FloorReached", True, "BelowFloor"), "BelowFloor"),
    lasting(AlarmReason::Panic.as_str(), ("Panic", True, ""), "PanicEntered")
        .ending("PanicLeft", "no more of the fleet looks bad than usual: decisions are made again"),
    lasting(AlarmReason::NoData.as_str(), ("DataAvailable", False, ""), "NoData")
        .ending("DataBack", "every breaker has enough verdicts again"),
    lasting(AlarmReason::ForeignNo.as_str(), ("ForeignNo", True, "WithheldByOthers"), "ForeignNo"),
    lasting(AlarmReason::OddSwitch.as_str(), ("ForeignNo", True, "OddSwitch"), "OddSwitch"),
    lasting(AlarmReason::WritesRefused.as_str(), ("WritesRefused", True, ""), "WritesRefused"),
    lasting(AlarmReason::ReturnRefused.as_str(), ("WritesRefused", True, "ReturnRefused"), "ReturnRefused")
        .ending("ReturnAccepted", "no pod is kept from its traffic by a refused write any more"),
    lasting(AlarmReason::SetBack.as_str(), ("SetBack", True, ""), "SetBack"),
    lasting(AlarmReason::LedgerFull.as_str(), ("LedgerFull", True, ""), "LedgerFull"),
    lasting(AlarmReason::NotListed.as_str(), ("NotListed", True, ""), "NotListed"),
    lasting(NOT_LEAVING, ("NotLeavingEndpoints", True, ""), "NotLeavingEndpoints"),
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
pub fn reported(status: &Value) -> Reported {
    let conditions = status.get("conditions").and_then(Value::as_array);
    let holds = |(kind, state, reason): (&str, ConditionStatus, &str)| {
        conditions.into_iter().flatten().any(|condition| {
            let is = |member: &str, text: &str| condition.get(member).and_then(Value::as_str) == Some(text);
            is("type", kind) && is("status", state.as_str()) && (reason.is_empty() || is("reason", reason))
        })
    };
    let raised = LASTING.into_iter().filter(|lasting| holds(lasting.condition));
    let reverted_until = status.pointer("/ledger/revertedUntil").and_then(Value::as_i64);
    Reported {
        raised: raised.map(|lasting| lasting.name).collect(),
        reverted_until: reverted_until.map(Timestamp::from_unix_millis),
    }
}
