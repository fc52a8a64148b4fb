//! Runs the policy's breakers on a master: on the ensemble, with verdicts for its gate, and with their windows stored
//! under the term.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{commit::commit, context::Shared};
use crate::{
    adapters::store::{Batch, RecordKey, Term},
    clock::Clock,
    decide::alarm_reason::AlarmReason,
    decide::{
        detect::{Observation, listed::FleetScope},
        verdict::Source,
    },
    roles::{
        breaker::{
            Asker,
            runner::{self, BreakerHost, Superseded},
        },
        gate::RosterGate,
    },
};

/// Evaluates until `stop`, or until leadership is lost.
pub(crate) async fn run_breakers(
    shared: Arc<Shared>,
    term: Term,
    windows: Option<Bytes>,
    stop: CancellationToken,
) {
    let gate = &shared.gate;
    let (Some(roster_gate), Some(asker)) = (gate.roster_gate.clone(), gate.asker.clone()) else {
        return stop.cancelled().await;
    };
    let manifests = gate.manifest.clone();
    let host = MasterHost { shared: Arc::clone(&shared), roster_gate, asker, term, stop: stop.clone() };
    runner::run_breakers(Arc::new(host), manifests, windows, &stop).await;
}

/// One term.
struct MasterHost {
    shared: Arc<Shared>,
    roster_gate: Arc<RosterGate>,
    asker: Arc<Asker>,
    term: Term,
    stop: CancellationToken,
}

impl BreakerHost for MasterHost {
    fn clock(&self) -> Clock {
        self.shared.clock
    }

    fn asker(&self) -> &Arc<Asker> {
        &self.asker
    }

    fn observations(&self) -> Vec<Observation> {
        self.shared.gate.observations(&self.shared.reader)
    }

    fn scope(&self) -> FleetScope {
        FleetScope { namespace: self.shared.gate.namespace.clone(), by_uid: false }
    }

    fn publish(&self, source: Source) {
        self.roster_gate.reconciler().set_breaker_verdicts(source);
    }

    fn retain_breakers(&self, left: &BTreeSet<&str>) {
        self.roster_gate.reconciler().retain_breakers(|name| left.contains(name));
    }

    fn publish_failures(&self, failures: &BTreeMap<String, String>) {
        self.shared.alarms.set(AlarmReason::DetectorFailing, !failures.is_empty(), || {
            let one = |(name, failure): (&String, &String)| format!("breaker {name}: {failure}");
            let all: Vec<_> = failures.iter().map(one).collect();
            format!("no verdicts from {}", all.join("; "))
        });
    }

    async fn persist(&self, windows: Bytes) -> Result<(), Superseded> {
        let batch = Batch { put: vec![(RecordKey::Windows, windows)], delete: Vec::new() };
        commit(&self.shared, self.term, batch, &self.stop).await.map_err(|_| Superseded)
    }
}
