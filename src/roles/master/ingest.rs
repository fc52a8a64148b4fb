//! Takes keepalives: a leader takes them into its ensemble at once, a follower forwards them, and without a leader the
//! newest of each pod is kept and forwarded later. The hot path holds one short lock and awaits nothing.

mod address_policy;
mod forward;
mod pending;
mod refusals;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

pub(crate) use self::{address_policy::AddressPolicy, forward::Forwarder, pending::PendingPing};
use self::{pending::PendingPings, refusals::Refusals};
use super::metrics::IngestMetrics;
use crate::{
    adapters::wire::{Answer, Refusal, RefusalKind},
    alarms::Alarms,
    clock::Clock,
    decide::{
        ensemble::{Ensemble, KeepaliveEffect, Rejection, Ticket},
        keepalive::Keepalive,
        key::Key,
        time::Moment,
    },
};

/// The longest time that the answer to a `down` waits for the store, below the 1 s of a forwarded keepalive.
const STORED_WITHIN: Duration = Duration::from_millis(700);

/// What happens to a keepalive.
enum IngestMode {
    /// No leader is known: it is kept.
    Holding,
    /// Another master leads: it is forwarded.
    Following(Forwarder),
    /// This master leads: the ensemble takes it.
    Leading(Box<Ensemble>),
    /// This process stops: it is refused, so that the client tries another master.
    Stopping,
}

struct IngestState {
    mode: IngestMode,
    pending: PendingPings,
}

/// Takes the keepalives of one master.
pub(crate) struct Ingest {
    clock: Clock,
    metrics: IngestMetrics,
    policy: AddressPolicy,
    state: Mutex<IngestState>,
    /// There are changes to persist, or an earlier expiry than before.
    pub(super) dirty: Notify,
    /// A known pod's content has changed: it is to be persisted, and may wait for more.
    pub(super) changed: Notify,
    /// Counts the changes that a snapshot shows; the callback and the gate wait for them.
    revisions: watch::Sender<u64>,
    /// A batch of changes is stored or has failed, or this master no longer leads.
    batches: watch::Sender<()>,
    /// The masters' addresses, which alone may forward.
    pub(super) members: watch::Sender<Vec<Ipv4Addr>>,
    refusals: Refusals,
    turns: AtomicU64,
}

impl Ingest {
    pub(crate) fn new(clock: Clock, alarms: Alarms, metrics: IngestMetrics, policy: AddressPolicy) -> Self {
        Self {
            clock,
            refusals: Refusals::new(clock, alarms, metrics.clone()),
            metrics,
            policy,
            state: Mutex::new(IngestState { mode: IngestMode::Holding, pending: PendingPings::default() }),
            dirty: Notify::new(),
            changed: Notify::new(),
            revisions: watch::Sender::new(0),
            batches: watch::Sender::new(()),
            members: watch::Sender::new(Vec::new()),
            turns: AtomicU64::new(0),
        }
    }

    /// A keepalive from a client. A leader answers a `down` when it is stored ([`STORED_WITHIN`]): nobody sends it again.
    pub(crate) fn ping(self: &Arc<Self>, peer: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>> {
        let mut state = self.state.lock();
        match &mut state.mode {
            IngestMode::Leading(ensemble) => {
                let observed = self.observe(ensemble, self.policy.required(peer), peer, raw);
                drop(state);
                self.answer(observed, raw)
            }
            IngestMode::Following(forwarder) => {
                let forwarder = forwarder.clone();
                drop(state);
                match self.check(peer, raw) {
                    Ok(ping) => forwarder.forward(ping),
                    Err(refusal) => Answer::Now(Err(refusal)),
                }
            }
            IngestMode::Holding => {
                drop(state);
                Answer::Now(self.check(peer, raw).and_then(|ping| self.keep(ping)))
            }
            IngestMode::Stopping => Answer::Now(Err(stopping())),
        }
    }

    /// A keepalive that another master has checked.
    pub(crate) fn forwarded(self: &Arc<Self>, peer: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>> {
        if !self.members.borrow().iter().any(|member| peer.ip() == *member) {
            self.metrics.refused.of("not_a_member").inc();
            let message = "is no registered master of this ensemble: it may not forward";
            return Answer::Now(Err(RefusalKind::Forbidden.because(format!("{} {message}", peer.ip()))));
        }
        let mut state = self.state.lock();
        let observed = match &mut state.mode {
            IngestMode::Leading(ensemble) => self.observe(ensemble, None, peer, raw),
            IngestMode::Following(_) | IngestMode::Holding | IngestMode::Stopping => {
                let message = "this master does not lead; a keepalive is forwarded once only";
                Err(RefusalKind::Unavailable.because(message))
            }
        };
        drop(state);
        self.answer(observed, raw)
    }

    fn answer(
        self: &Arc<Self>,
        observed: Result<KeepaliveEffect, Refusal>,
        raw: &[u8],
    ) -> Answer<Result<(), Refusal>> {
        if let Ok(KeepaliveEffect::Left) = observed
            && let Ok(down) = Keepalive::parse(raw)
        {
            return self.when_stored(down.key());
        }
        Answer::Now(observed.map(|_| ()))
    }

    /// Answers when the latest state of the pod is stored, when this master leads no longer (then the next leader gets
    /// it), or after [`STORED_WITHIN`]: it is taken anyway.
    fn when_stored(self: &Arc<Self>, key: Key) -> Answer<Result<(), Refusal>> {
        let (ingest, mut batches) = (Arc::clone(self), self.batches.subscribe());
        Answer::Later(Box::pin(async move {
            let stored = async {
                while ingest.with_ensemble(|ensemble, _| ensemble.is_unconfirmed(key)).unwrap_or(false)
                    && batches.changed().await.is_ok()
                {}
            };
            _ = tokio::time::timeout(STORED_WITHIN, stored).await;
            Ok(())
        }))
    }

    /// The store has the batch of this ticket, or it is to be written again.
    pub(super) fn end_batch(&self, ticket: Ticket, stored: bool) {
        self.with_ensemble(
            |ensemble, _| if stored { ensemble.confirm(ticket) } else { ensemble.fail(ticket) },
        );
        self.batches.send_replace(());
    }

    /// Keeps a keepalive until there is a leader; a later one of the same pod replaces it.
    pub(crate) fn keep(&self, ping: PendingPing) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        match &mut state.mode {
            // This master has become leader since the keepalive arrived, and has taken what was pending.
            IngestMode::Leading(ensemble) => {
                return self
                    .observe(ensemble, self.policy.required(ping.peer), ping.peer, &ping.raw)
                    .map(|_| ());
            }
            IngestMode::Stopping => return Err(stopping()),
            IngestMode::Following(_) | IngestMode::Holding => {}
        }
        self.metrics.taken.of("kept").inc();
        if state.pending.put(ping) {
            return Ok(());
        }
        Err(RefusalKind::TooMuch.because("no master leads, and too many keepalives wait already"))
    }

    /// This master leads: the ensemble takes what is pending, and every ping from now on.
    pub(crate) fn lead(&self, ensemble: Ensemble) {
        let mut state = self.state.lock();
        let mut ensemble = Box::new(ensemble);
        for ping in state.pending.take() {
            // A refusal is counted; the client has its answer already.
            let _answered =
                self.observe(&mut ensemble, self.policy.required(ping.peer), ping.peer, &ping.raw);
        }
        state.mode = IngestMode::Leading(ensemble);
        drop(state);
        self.revisions.send_modify(|count| *count += 1);
        self.dirty.notify_one();
    }

    /// Another master leads: forwards what is pending, and every ping from now on.
    pub(crate) fn follow(&self, forwarder: Forwarder) {
        self.state.lock().mode = IngestMode::Following(forwarder);
        self.forward_pending();
    }

    /// Forwards again what the leader has not taken.
    pub(crate) fn forward_pending(&self) {
        let mut state = self.state.lock();
        let IngestMode::Following(forwarder) = &state.mode else { return };
        let (forwarder, pings) = (forwarder.clone(), state.pending.take());
        drop(state);
        forwarder.forward_all(pings);
    }

    /// No leader is known: nothing expires, and what is not stored yet is kept for the next leader.
    pub(crate) fn hold(&self) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.mode, IngestMode::Holding);
        let IngestMode::Leading(mut ensemble) = before else { return };
        for (key, raw) in ensemble.unconfirmed(self.clock.now()) {
            let turn = self.turns.fetch_add(1, Ordering::Relaxed);
            // Checked on arrival, so that the pod's own address passes again.
            let peer = SocketAddr::new(key.address().into(), 0);
            state.pending.put(PendingPing { key, turn, peer, raw: raw.into() });
        }
        drop(state);
        self.batches.send_replace(());
    }

    /// This process stops: keepalives are refused, because they would be lost.
    pub(crate) fn stop(&self) {
        self.state.lock().mode = IngestMode::Stopping;
    }

    /// Clears the alarms of refused keepalives after `quiet` without another one.
    pub(crate) fn clear_old_refusals(&self, quiet: Duration) {
        self.refusals.clear_old(quiet);
    }

    /// Counts up with every change that a snapshot shows.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.revisions.subscribe()
    }

    /// Runs `work` on the ensemble if this master leads, and notifies [`Self::revisions`] of a change.
    pub(crate) fn with_ensemble<T>(&self, work: impl FnOnce(&mut Ensemble, Moment) -> T) -> Option<T> {
        match &mut self.state.lock().mode {
            IngestMode::Leading(ensemble) => Some(self.watched(ensemble, work)),
            IngestMode::Following(_) | IngestMode::Holding | IngestMode::Stopping => None,
        }
    }

    fn watched<T>(&self, ensemble: &mut Ensemble, work: impl FnOnce(&mut Ensemble, Moment) -> T) -> T {
        let (now, before) = (self.clock.now(), ensemble.revision());
        if let Some(pause) = ensemble.awake(now) {
            tracing::warn!(?pause, "this process was paused; each pod has a full TTL from now");
            self.metrics.pauses.inc();
        }
        let done = work(ensemble, now);
        if ensemble.revision() != before {
            self.revisions.send_modify(|count| *count += 1);
        }
        done
    }

    /// Checks a keepalive that this master does not take into an ensemble now.
    fn check(&self, peer: SocketAddr, raw: &[u8]) -> Result<PendingPing, Refusal> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let keepalive = Keepalive::parse(raw)
            .map_err(|error| self.refusals.refuse(&Rejection::from(error), peer, raw))?;
        let (key, claimed) = (keepalive.key(), keepalive.key().address());
        if let Some(sender) = self.policy.required(peer).filter(|address| *address != claimed) {
            return Err(self.refusals.refuse(&Rejection::ForgedAddress { claimed, sender }, peer, raw));
        }
        Ok(PendingPing { key, turn, peer, raw: Bytes::copy_from_slice(raw) })
    }

    fn observe(
        &self,
        ensemble: &mut Ensemble,
        required: Option<Ipv4Addr>,
        peer: SocketAddr,
        raw: &[u8],
    ) -> Result<KeepaliveEffect, Refusal> {
        let observed = self.watched(ensemble, |ensemble, now| ensemble.observe(now, raw, required));
        let observed = observed.map_err(|rejection| self.refusals.refuse(&rejection, peer, raw))?;
        self.metrics.taken(observed);
        match observed {
            KeepaliveEffect::Heartbeat => {}
            KeepaliveEffect::Changed => self.changed.notify_one(),
            _ => self.dirty.notify_one(),
        }
        Ok(observed)
    }
}

/// On this the client tries again at once, and reaches another master if there is one.
fn stopping() -> Refusal {
    RefusalKind::Unavailable.because("this master is stopping")
}

#[cfg(test)]
mod tests;
