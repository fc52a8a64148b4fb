//! A master as the host of its policy's breakers: they see the ensemble, speak to its gate, and what they
//! remember is stored under the term.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{Shared, gate, reign};
use crate::{
    adapters::store::{Batch, RecordKey, Term},
    clock::Clock,
    decide::{
        detect::{Observation, listed::Scope},
        verdict::Source,
    },
    roles::{
        breaker::{
            Asker,
            round::{self, BreakerHost, Succeeded},
        },
        gatekeeper::Gatekeeper,
    },
};

/// The alarm of a detector that gets no usable answer.
const FAILING: &str = "detector_failing";

/// Evaluates until `stop`, or until it is deposed.
pub(crate) async fn run_breakers(
    shared: Arc<Shared>,
    term: Term,
    windows: Option<Bytes>,
    stop: CancellationToken,
) {
    let gatekeeping = &shared.gatekeeping;
    let (Some(gatekeeper), Some(asker)) = (gatekeeping.gatekeeper().cloned(), gatekeeping.asker().cloned())
    else {
        return stop.cancelled().await;
    };
    let manifests = gatekeeping.manifest();
    let host = MasterHost { shared: Arc::clone(&shared), gatekeeper, asker, term, stop: stop.clone() };
    round::run_breakers(Arc::new(host), manifests, windows, &stop).await;
}

/// One reign.
struct MasterHost {
    shared: Arc<Shared>,
    gatekeeper: Arc<Gatekeeper>,
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
        gate::observations(&self.shared)
    }

    fn scope(&self) -> Scope {
        Scope { namespace: self.shared.gatekeeping.namespace().to_owned(), by_uid: false }
    }

    fn said(&self, source: Source) {
        self.gatekeeper.breaker_said(source);
    }

    fn forget_breakers(&self, left: &BTreeSet<&str>) {
        self.gatekeeper.forget_breakers(|name| left.contains(name));
    }

    fn troubles(&self, troubles: &BTreeMap<String, String>) {
        self.shared.alarms.set(FAILING, !troubles.is_empty(), || {
            let one = |(name, trouble): (&String, &String)| format!("breaker {name}: {trouble}");
            let all: Vec<_> = troubles.iter().map(one).collect();
            format!("no verdicts from {}", all.join("; "))
        });
    }

    async fn keep(&self, memory: Bytes) -> Result<(), Succeeded> {
        let batch = Batch { put: vec![(RecordKey::Windows, memory)], delete: Vec::new() };
        reign::commit(&self.shared, self.term, batch, &self.stop).await.map_err(|_| Succeeded)
    }
}
