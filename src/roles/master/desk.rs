//! Where keepalives arrive: one desk, three postures.
//!
//! A leader takes them into its ensemble at once, a follower forwards them, and while nobody leads
//! the newest of each pod is kept and sent on later. The hot path holds one short lock and awaits nothing.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use ipnet::IpNet;
use tokio::sync::{Notify, watch};

use super::{forward::Forwarder, metrics::DeskMetrics};
use crate::{
    adapters::wire::{Answer, Refusal, RefusalKind},
    alarms::Alarms,
    clock::Clock,
    decide::{
        ensemble::{Ensemble, Observed, Rejection},
        keepalive::Keepalive,
        key::Key,
        time::Moment,
    },
};

/// The most bytes of keepalives that are kept while nobody leads.
const KEPT_LIMIT: usize = 64 << 20;

/// Who may speak for which address.
#[derive(Clone, Debug)]
pub(crate) enum Speakers {
    /// Anybody for any (there is no endpoints file that an address could get into).
    Anyone,
    /// A pod for itself, and these networks for others.
    Themselves {
        /// Peers that may relay.
        trusted: Vec<IpNet>,
    },
}

/// What the desk does with a keepalive.
enum Posture {
    /// Nobody leads, as far as we know.
    Waiting,
    /// Somebody else does.
    Following(Forwarder),
    /// We do.
    Leading(Box<Ensemble>),
}

struct Inner {
    posture: Posture,
    kept: Kept,
}

/// The newest keepalive of each pod that could not be handed to a leader yet.
#[derive(Default)]
struct Kept {
    newest: BTreeMap<Key, KeptPing>,
    bytes: usize,
}

/// A keepalive that waits for a leader.
pub(crate) struct KeptPing {
    /// Who sent it.
    pub(crate) peer: SocketAddr,
    /// As it came.
    pub(crate) raw: Bytes,
}

/// The desk of one master.
pub(crate) struct Desk {
    clock: Clock,
    alarms: Alarms,
    metrics: DeskMetrics,
    speakers: Speakers,
    inner: Mutex<Inner>,
    /// Something is to be persisted, or expires earlier than before.
    stirred: Notify,
    /// Counts what anybody can see change: the callback's and the gatekeeper's cue.
    visible: watch::Sender<u64>,
    /// The masters' addresses: only they may forward.
    members: watch::Sender<Vec<Ipv4Addr>>,
}

impl Desk {
    pub(crate) fn new(clock: Clock, alarms: Alarms, metrics: DeskMetrics, speakers: Speakers) -> Self {
        let inner = Inner { posture: Posture::Waiting, kept: Kept::default() };
        Self {
            clock,
            alarms,
            metrics,
            speakers,
            inner: Mutex::new(inner),
            stirred: Notify::new(),
            visible: watch::Sender::new(0),
            members: watch::Sender::new(Vec::new()),
        }
    }

    /// A keepalive from a client.
    pub(crate) fn ping(&self, peer: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>> {
        let mut inner = self.lock();
        match &mut inner.posture {
            Posture::Leading(ensemble) => Answer::Now(self.observe(ensemble, self.speaker(peer), raw)),
            Posture::Following(forwarder) => {
                let forwarder = forwarder.clone();
                drop(inner);
                match self.checked(peer, raw) {
                    Ok(_) => forwarder.forward(peer, Bytes::copy_from_slice(raw)),
                    Err(refusal) => Answer::Now(Err(refusal)),
                }
            }
            Posture::Waiting => {
                drop(inner);
                let kept = self.checked(peer, raw);
                Answer::Now(kept.and_then(|key| self.keep(key, peer, Bytes::copy_from_slice(raw))))
            }
        }
    }

    /// A keepalive that another master vouches for.
    pub(crate) fn forwarded(&self, peer: SocketAddr, raw: &[u8]) -> Result<(), Refusal> {
        if !self.members.borrow().iter().any(|member| peer.ip() == *member) {
            self.metrics.refused("not_a_member");
            let message =
                format!("{} is no registered master of this ensemble: it may not forward", peer.ip());
            return Err(Refusal { kind: RefusalKind::Forbidden, message });
        }
        match &mut self.lock().posture {
            Posture::Leading(ensemble) => self.observe(ensemble, None, raw),
            Posture::Following(_) | Posture::Waiting => {
                let message = "this master does not lead; a keepalive is forwarded once only".to_owned();
                Err(Refusal { kind: RefusalKind::Unavailable, message })
            }
        }
    }

    /// Keeps a keepalive until somebody leads; a newer one of the same pod replaces it.
    pub(crate) fn keep(&self, key: Key, peer: SocketAddr, raw: Bytes) -> Result<(), Refusal> {
        self.metrics.kept();
        if self.lock().kept.put(key, peer, raw) {
            return Ok(());
        }
        let message = "no master leads, and too many keepalives wait already".to_owned();
        Err(Refusal { kind: RefusalKind::TooMuch, message })
    }

    /// We lead: the ensemble takes what was kept, and every ping from now on.
    pub(crate) fn lead(&self, ensemble: Ensemble) {
        let mut inner = self.lock();
        let mut ensemble = Box::new(ensemble);
        for ping in inner.kept.take() {
            // A refusal was counted; nobody waits for this answer.
            let _answered_already = self.observe(&mut ensemble, self.speaker(ping.peer), &ping.raw);
        }
        inner.posture = Posture::Leading(ensemble);
        drop(inner);
        self.visible.send_modify(|count| *count += 1);
        self.stirred.notify_one();
    }

    /// Somebody else leads; returns what was kept, to be sent on.
    pub(crate) fn follow(&self, forwarder: Forwarder) -> Vec<KeptPing> {
        let mut inner = self.lock();
        inner.posture = Posture::Following(forwarder);
        inner.kept.take()
    }

    /// What a leader has not taken although there is one: to be sent on again.
    pub(crate) fn overdue(&self) -> Option<(Forwarder, Vec<KeptPing>)> {
        let mut inner = self.lock();
        let Posture::Following(forwarder) = &inner.posture else { return None };
        Some((forwarder.clone(), inner.kept.take()))
    }

    /// Nobody leads that we know of: nothing expires, nothing is lost.
    pub(crate) fn wait(&self) {
        self.lock().posture = Posture::Waiting;
    }

    /// The addresses that may forward.
    pub(crate) fn admit_members(&self, members: Vec<Ipv4Addr>) {
        self.members.send_replace(members);
    }

    /// Waits until there may be something to persist or an earlier expiry.
    pub(crate) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// Counts up with everything that a snapshot would show.
    pub(crate) fn visible(&self) -> watch::Receiver<u64> {
        self.visible.subscribe()
    }

    /// Runs `work` on the ensemble if we lead, and tells those who watch when a snapshot would show a change.
    pub(crate) fn with_ensemble<T>(&self, work: impl FnOnce(&mut Ensemble, Moment) -> T) -> Option<T> {
        match &mut self.lock().posture {
            Posture::Leading(ensemble) => Some(self.watched(ensemble, work)),
            Posture::Following(_) | Posture::Waiting => None,
        }
    }

    fn watched<T>(&self, ensemble: &mut Ensemble, work: impl FnOnce(&mut Ensemble, Moment) -> T) -> T {
        let before = ensemble.revision();
        let done = work(ensemble, self.clock.now());
        if ensemble.revision() != before {
            self.visible.send_modify(|count| *count += 1);
        }
        done
    }

    /// The address that a keepalive from `peer` must carry, if it must.
    fn speaker(&self, peer: SocketAddr) -> Option<Ipv4Addr> {
        let Speakers::Themselves { trusted } = &self.speakers else { return None };
        let std::net::IpAddr::V4(address) = peer.ip().to_canonical() else {
            return Some(Ipv4Addr::UNSPECIFIED);
        };
        (!trusted.iter().any(|net| net.contains(&peer.ip().to_canonical()))).then_some(address)
    }

    /// Checks a keepalive that goes to somebody else.
    fn checked(&self, peer: SocketAddr, raw: &[u8]) -> Result<Key, Refusal> {
        let keepalive = Keepalive::parse(raw).map_err(|error| self.refuse(&Rejection::from(error)))?;
        if let Some(address) = self.speaker(peer).filter(|address| *address != keepalive.key().address()) {
            let claimed = keepalive.key().address();
            return Err(self.refuse(&Rejection::ForgedAddress { claimed, sender: address }));
        }
        Ok(keepalive.key())
    }

    fn observe(&self, ensemble: &mut Ensemble, speaker: Option<Ipv4Addr>, raw: &[u8]) -> Result<(), Refusal> {
        match self.watched(ensemble, |ensemble, now| ensemble.observe(now, raw, speaker)) {
            Ok(observed) => {
                self.metrics.taken(observed);
                if observed != Observed::Heartbeat {
                    self.stirred.notify_one();
                }
                Ok(())
            }
            Err(rejection) => Err(self.refuse(&rejection)),
        }
    }

    fn refuse(&self, rejection: &Rejection) -> Refusal {
        self.metrics.refused(rejection.category());
        let kind = match rejection {
            Rejection::KeyTaken { .. } | Rejection::IdMoved { .. } => {
                self.alarms.note("key_collision", rejection.to_string());
                RefusalKind::Conflict
            }
            Rejection::Stale { .. } | Rejection::SaidDown { .. } => RefusalKind::Conflict,
            Rejection::ForgedAddress { .. } => RefusalKind::Forbidden,
            Rejection::Full { .. } => RefusalKind::TooMuch,
            _ => RefusalKind::Malformed,
        };
        Refusal { kind, message: rejection.to_string() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// `false` when there is no room.
    fn put(&mut self, key: Key, peer: SocketAddr, raw: Bytes) -> bool {
        let before = self.newest.get(&key).map_or(0, |ping| ping.raw.len());
        if self.bytes - before + raw.len() > KEPT_LIMIT {
            return false;
        }
        self.bytes = self.bytes - before + raw.len();
        self.newest.insert(key, KeptPing { peer, raw });
        true
    }

    fn take(&mut self) -> Vec<KeptPing> {
        self.bytes = 0;
        std::mem::take(&mut self.newest).into_values().collect()
    }
}
