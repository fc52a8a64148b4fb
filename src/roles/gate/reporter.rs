//! Who is informed of each reconcile, beside metrics, alarms and snapshots.

use serde_json::Value;

use super::snapshot::GateSnapshot;
use crate::decide::gate::{Plan, ledger::ActionOutcome};

/// Publishes each reconcile, beside metrics, alarms and snapshot.
pub trait Reporter: Send + Sync + 'static {
    /// The report that the sink stores beside the ledger; `Null`: no report.
    fn report(&self, _snapshot: &GateSnapshot) -> Value {
        Value::Null
    }

    /// Called after each plan with the snapshot after it and the outcome of each of its actions.
    fn plan_executed(&self, _snapshot: &GateSnapshot, _plan: &Plan, _outcomes: &[ActionOutcome]) {}
}

/// Publishes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReporter;

impl Reporter for NoReporter {}
