//! The admin pages of a controller: its services and the state of each pod.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    deps::Deps,
    key::{self, ResourceKey},
    sharing::{self, service_key},
};
use crate::{
    adapters::kubernetes::events::Event,
    admin::{AdminEvent, MemberControl, Views},
    alarms::Alarms,
    decide::{alarm_reason::AlarmReason, time::Timestamp},
    roles::gate::snapshot::GateSnapshot,
};

/// Events on the page of one resource.
const SHOWN_EVENTS: usize = 50;

/// Returns the newest snapshot of one worker.
pub(super) type SnapshotFn = dyn Fn() -> Arc<GateSnapshot> + Send;

/// Access to the gate snapshots of all workers.
#[derive(Default)]
pub(super) struct StatusSnapshots {
    latest: Mutex<Vec<Box<SnapshotFn>>>,
}

impl StatusSnapshots {
    pub(super) fn replace(&self, latest: Vec<Box<SnapshotFn>>) {
        *self.latest.lock() = latest;
    }

    fn all(&self) -> Vec<Arc<GateSnapshot>> {
        self.latest.lock().iter().map(|latest| latest()).collect()
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

    fn cluster(&self) -> Value {
        if let Some(replicas) = self.deps.replicas.get() {
            let all = self.deps.cluster.resources();
            return replicas.page(sharing::owners(&self.deps, replicas, &all));
        }
        match &self.master {
            Some(master) => master.cluster(),
            None => json!({"members": [], "leadership": {"posture": "alone"}}),
        }
    }

    fn replicas(&self) -> Option<Arc<dyn MemberControl>> {
        let replicas: Arc<dyn MemberControl> = self.deps.replicas.get().cloned()?;
        Some(replicas)
    }

    fn elsewhere(&self) -> Vec<Value> {
        let Some(replicas) = self.deps.replicas.get() else { return Vec::new() };
        let here = self.fleets().into_iter().map(|fleet| (fleet.namespace.clone(), fleet.name.clone()));
        let here: BTreeSet<ResourceKey> = here.collect();
        let mut others = self.deps.cluster.resources();
        others.retain(|resource| !here.contains(&key::of(resource)));
        let owners = sharing::owners(&self.deps, replicas, &others);
        let row = |key: ResourceKey| {
            let owner = owners.get(&service_key(&key));
            let owner = owner.map(|owner| json!({ "member": owner.id, "address": owner.address }));
            json!({"namespace": key.0, "name": key.1, "owner": owner})
        };
        others.iter().map(|resource| row(key::of(resource))).collect()
    }

    fn fleets(&self) -> Vec<Arc<GateSnapshot>> {
        self.snapshots.all()
    }

    fn events(&self, namespace: &str, name: &str) -> Vec<AdminEvent> {
        let shown = |(at, event): (Timestamp, Event)| AdminEvent {
            at: at.to_string(),
            kind: event.kind.as_str(),
            reason: event.reason,
            about: format!("{} {}", event.about.kind, event.about.name),
            note: event.note,
        };
        self.deps.events.recent(namespace, name).into_iter().take(SHOWN_EVENTS).map(shown).collect()
    }

    fn alarms(&self) -> &Alarms {
        &self.deps.process.alarms
    }
}
