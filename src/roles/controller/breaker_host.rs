//! A worker as the host of its policy's breakers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::worker_state::WorkerState;
use crate::{
    adapters::sink::labels::fleet_of,
    clock::Clock,
    decide::{
        detect::{
            Observation,
            listed::FleetScope,
            members::{self, ListedPod},
        },
        fleet::Traffic,
        verdict::Source,
    },
    roles::{
        breaker::{
            Asker,
            runner::{BreakerHost, Superseded},
        },
        master::LiveEnsemble,
    },
};

pub(super) struct Host(pub(super) Arc<WorkerState>);

impl BreakerHost for Host {
    fn clock(&self) -> Clock {
        self.0.deps.process.clock
    }

    fn asker(&self) -> &Arc<Asker> {
        &self.0.asker
    }

    fn observations(&self) -> Vec<Observation> {
        let WorkerState { deps, settings, policy, report_history, .. } = &*self.0;
        let policy = policy.borrow().clone();
        let now = deps.process.clock.wall();
        let pods = fleet_of(&deps.cluster, settings, &policy);
        let listed: Vec<ListedPod> = pods
            .iter()
            .map(|pod| ListedPod {
                uid: pod.uid.clone(),
                name: pod.name.to_string(),
                address: pod.ip,
                shares_address: pod.host_network,
                age: pod.created.map_or(Duration::MAX, |created| now.since(created)),
                reusable_name: pod.controller.as_ref().is_none_or(|owner| &*owner.kind == "StatefulSet"),
                withheld: matches!(pod.traffic(), Traffic::No | Traffic::Pause),
            })
            .collect();
        let Some(members) = deps.live.as_ref().and_then(LiveEnsemble::members) else {
            return members::without_keepalives(&listed);
        };
        let mut report_history = report_history.lock();
        members.join(&settings.namespace, &listed, deps.process.clock.now(), &mut report_history).observations
    }

    fn receives_keepalives(&self) -> bool {
        // Only the leading master has the ensemble that silence is judged by.
        self.0.deps.live.as_ref().is_some_and(|live| live.members().is_some())
    }

    fn scope(&self) -> FleetScope {
        FleetScope { namespace: self.0.settings.namespace.clone(), by_uid: true }
    }

    fn publish(&self, source: Source) {
        self.0.reconciler.set_breaker_verdicts(source);
    }

    fn retain_breakers(&self, left: &BTreeSet<&str>) {
        self.0.reconciler.retain_breakers(|name| left.contains(name));
    }

    fn publish_failures(&self, failures: &BTreeMap<String, String>) {
        self.0.health.lock().failures.clone_from(failures);
    }

    /// Not stored: windows are short, and the next process fills its own.
    async fn persist(&self, _windows: Bytes) -> Result<(), Superseded> {
        Ok(())
    }
}
