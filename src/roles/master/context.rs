//! What the tasks of a master share.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{gate::GateHandle, ingest::Ingest, metrics::MasterMetrics, reader::EnsembleReader};
use crate::{
    adapters::{
        callback::CallbackRunner,
        store::{Leadership, Store},
    },
    alarms::Alarms,
    clock::Clock,
    decide::{damper::Start, digest::Digest, ensemble::Settings},
};

pub(crate) struct Shared {
    pub(super) clock: Clock,
    pub(super) alarms: Alarms,
    pub(super) metrics: MasterMetrics,
    pub(super) store: Arc<dyn Store>,
    pub(super) ingest: Arc<Ingest>,
    pub(super) reader: Arc<EnsembleReader>,
    pub(super) settings: Settings,
    pub(super) damper: Duration,
    pub(super) callback: Option<CallbackRunner>,
    /// The local address of connections to the leader.
    pub(super) source: Option<Ipv4Addr>,
    /// Some master has led before, so that the next term is a fail-over.
    pub(super) led_before: AtomicBool,
    /// The newest digest and the number of pods that it covers.
    pub(super) digest: Mutex<Option<(Digest, usize)>>,
    pub(super) gate: GateHandle,
    /// The store's prefix.
    pub(super) cluster: String,
}

impl Shared {
    /// How the callback's schedule starts: after a fresh start it waits for pods to report, after a fail-over it does
    /// not.
    pub(super) fn start_kind(&self) -> Start {
        if self.led_before.swap(true, Ordering::Relaxed) { Start::FailOver } else { Start::Fresh }
    }

    pub(super) fn note_leadership(&self, leadership: &Leadership) {
        if matches!(leadership, Leadership::Follower { leader: Some(_) }) {
            self.led_before.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn publish_digest(&self, digest: Digest, pods: usize) {
        self.metrics.digests.inc();
        self.metrics.pods.set(i64::try_from(pods).unwrap_or(i64::MAX));
        *self.digest.lock() = Some((digest, pods));
    }
}
