//! The admin pages of a controller: its services and the state of each pod.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::deps::Deps;
use crate::{admin::Views, decide::alarm_reason::AlarmReason, roles::gate::snapshot::GateSnapshot};

/// Returns the newest snapshot of one worker.
pub(super) type SnapshotFn = dyn Fn() -> Arc<GateSnapshot> + Send;

/// Access to the gate snapshots of all workers.
#[derive(Default)]
pub(super) struct StatusSnapshots {
    latest: Mutex<Vec<Box<SnapshotFn>>>,
}

impl StatusSnapshots {
    pub(super) fn replace(&self, latest: Vec<Box<SnapshotFn>>) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
    }

    fn all(&self) -> Vec<Arc<GateSnapshot>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|latest| latest()).collect()
    }
}

pub(super) struct ControllerPages {
    pub(super) deps: Arc<Deps>,
    pub(super) snapshots: Arc<StatusSnapshots>,
    /// The pages of the master in the same process.
    pub(super) master: Option<Arc<dyn Views>>,
}

impl Views for ControllerPages {
    fn ready(&self) -> Result<(), String> {
        // Each namespace stands for itself: one that is in sync is enough, an alarm names the others.
        let scopes = self.deps.cluster.problems();
        let none = scopes.values().all(|failures| !failures.is_empty());
        let unsynced = scopes.values().flatten().filter(|_| none);
        let unsynced = unsynced.map(|cache| format!("not in sync: {cache}"));
        let up = self.deps.process.alarms.up();
        let forbidden = up.iter().filter(|alarm| alarm.reason == AlarmReason::StatusForbidden);
        let all = unsynced.chain(forbidden.map(|alarm| alarm.message.clone()));
        let all: Vec<String> = all.chain(self.deps.process.alarms.all_tasks_run().err()).collect();
        if all.is_empty() { Ok(()) } else { Err(all.join("; ")) }
    }

    fn ensemble(&self) -> Value {
        let none =
            || json!({"error": "no keepalives are taken here: start the controller with --keepalives ADDR"});
        self.master.as_ref().map_or_else(none, |master| master.ensemble())
    }

    fn cluster(&self) -> BoxFuture<'_, Value> {
        match &self.master {
            Some(master) => master.cluster(),
            None => Box::pin(async { json!({"members": [], "leadership": {"posture": "alone"}}) }),
        }
    }

    fn services(&self) -> Value {
        let alarms = &self.deps.process.alarms;
        json!({
            "services": self.snapshots.all(),
            "alarms": { "up": alarms.up(), "history": alarms.history() },
        })
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Value> {
        let all = self.snapshots.all();
        let found = all.iter().find(|fleet| fleet.namespace == namespace && fleet.name == name)?;
        serde_json::to_value(found).ok()
    }

    fn explain(&self, namespace: &str, pod: &str) -> Option<Value> {
        let all = self.snapshots.all();
        all.iter().filter(|fleet| fleet.namespace == namespace).find_map(|fleet| fleet.explain(pod))
    }
}
