//! `$FLEET_FILE`: age, status and traffic of each pod, as input of a callback.
//!
//! Not part of the digest, because ages change with every keepalive and a change of the digest runs the
//! callback. `kubervisor breaker` reads silence and the results of its verdicts from it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{detect::LifeStatus, fleet::Traffic, key::Key, time::Timestamp};

/// One pod: a row of the JSON array in `$FLEET_FILE`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetRow<'a> {
    /// The pod's name, as in `PODS`.
    pub id: Cow<'a, str>,
    /// Its key, as in `PODS`.
    pub key: Key,
    /// Its role.
    #[serde(default)]
    pub role: Cow<'a, str>,
    /// Nonce of its agent's process; `None` from clients of the older dialect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Cow<'a, str>>,
    /// Seconds since its last keepalive.
    pub age: f64,
    /// Whether its keepalives arrive.
    pub status: LifeStatus,
    /// Its traffic switch.
    pub traffic: Traffic,
    /// The breaker or callback that withheld it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Cow<'a, str>>,
    /// When it was withheld, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_at: Option<Timestamp>,
    /// Number of withdrawals.
    #[serde(default)]
    pub retry_count: u32,
    /// The last verdict on it, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_round_trips_under_its_public_names() {
        let row = json!({"id": "web-1", "key": "2T3m2n", "role": "web", "nonce": "00ff", "age": 1.5,
            "status": "live", "traffic": "no", "breaker": "errors", "breakAt": 1_700_000_000_000_i64,
            "retryCount": 2, "verdict": "outlier, value 3"});
        let read: FleetRow<'_> = serde_json::from_value(row.clone()).unwrap();
        assert_eq!(read.traffic, Traffic::No);
        assert_eq!(serde_json::to_value(&read).unwrap(), row);
    }

    #[test]
    fn a_row_needs_only_what_every_pod_has() {
        let row = json!({"id": "a", "key": "1", "age": 0.0, "status": "down", "traffic": "yes"});
        let read: FleetRow<'_> = serde_json::from_value(row).unwrap();
        assert_eq!((read.retry_count, read.break_at, read.traffic), (0, None, Traffic::Yes));
    }
}
