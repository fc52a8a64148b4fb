//! Where keepalives arrive: one desk, three postures.
//!
//! A leader takes them into its ensemble at once, a follower forwards them, and while nobody leads
//! the newest of each pod is kept and sent on later. The hot path holds one short lock and awaits nothing.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
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
    /// Anybody for any (no traffic follows from it).
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
    /// This process ends: whoever speaks to it is sent elsewhere.
    Leaving,
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

/// A keepalive that somebody else is to have: forwarded, or kept until there is a leader.
pub(crate) struct KeptPing {
    /// Whose it is.
    key: Key,
    /// When it came, compared with others: an earlier one never replaces a later one.
    turn: u64,
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
    /// A stranger has forwarded something: perhaps a member that we do not know yet.
    strangers: Notify,
    /// When somebody last claimed what another pod holds.
    collided: Mutex<Option<Moment>>,
    turns: AtomicU64,
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
            strangers: Notify::new(),
            collided: Mutex::default(),
            turns: AtomicU64::new(0),
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
                    Ok(ping) => forwarder.forward(ping),
                    Err(refusal) => Answer::Now(Err(refusal)),
                }
            }
            Posture::Waiting => {
                drop(inner);
                Answer::Now(self.checked(peer, raw).and_then(|ping| self.keep(ping)))
            }
            Posture::Leaving => Answer::Now(Err(leaving())),
        }
    }

    /// A keepalive that another master vouches for.
    pub(crate) fn forwarded(&self, peer: SocketAddr, raw: &[u8]) -> Result<(), Refusal> {
        if !self.members.borrow().iter().any(|member| peer.ip() == *member) {
            self.metrics.refused("not_a_member");
            self.strangers.notify_one();
            let message =
                format!("{} is no registered master of this ensemble: it may not forward", peer.ip());
            return Err(Refusal { kind: RefusalKind::Forbidden, message });
        }
        match &mut self.lock().posture {
            Posture::Leading(ensemble) => self.observe(ensemble, None, raw),
            Posture::Following(_) | Posture::Waiting | Posture::Leaving => {
                let message = "this master does not lead; a keepalive is forwarded once only".to_owned();
                Err(Refusal { kind: RefusalKind::Unavailable, message })
            }
        }
    }

    /// Keeps a keepalive until somebody leads; a later one of the same pod replaces it.
    pub(crate) fn keep(&self, ping: KeptPing) -> Result<(), Refusal> {
        let mut inner = self.lock();
        if let Posture::Leading(ensemble) = &mut inner.posture {
            // We have begun to lead since it came: nobody would look at what is kept.
            return self.observe(ensemble, self.speaker(ping.peer), &ping.raw);
        }
        if let Posture::Leaving = inner.posture {
            return Err(leaving());
        }
        self.metrics.kept();
        if inner.kept.put(ping) {
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

    /// Nobody leads that we know of: nothing expires, and what we took and could not store is kept for the next.
    pub(crate) fn wait(&self) {
        let mut inner = self.lock();
        let was = std::mem::replace(&mut inner.posture, Posture::Waiting);
        let Posture::Leading(mut ensemble) = was else { return };
        for (key, raw) in ensemble.unconfirmed(self.clock.now()) {
            let turn = self.turns.fetch_add(1, Ordering::Relaxed);
            // Checked when it came: it may say this of its own address.
            let peer = SocketAddr::new(key.address().into(), 0);
            inner.kept.put(KeptPing { key, turn, peer, raw: raw.into() });
        }
    }

    /// This process ends: what it took from now on would be lost.
    pub(crate) fn leave(&self) {
        self.lock().posture = Posture::Leaving;
    }

    /// The addresses that may forward.
    pub(crate) fn admit_members(&self, members: Vec<Ipv4Addr>) {
        self.members.send_replace(members);
    }

    /// Waits until somebody who is no member that we know has forwarded something.
    pub(crate) async fn strangers(&self) {
        self.strangers.notified().await;
    }

    /// Ends the alarm of a collision that nobody has seen for `quiet`.
    pub(crate) fn review_collisions(&self, quiet: Duration) {
        let mut collided = self.collided.lock().unwrap_or_else(PoisonError::into_inner);
        if collided.is_some_and(|at| self.clock.now().since(at) > quiet) {
            *collided = None;
            self.alarms.clear("key_collision");
        }
    }

    fn collided(&self, rejection: &Rejection) {
        let mut collided = self.collided.lock().unwrap_or_else(PoisonError::into_inner);
        *collided = Some(self.clock.now());
        self.alarms.raise("key_collision", rejection.to_string());
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
            Posture::Following(_) | Posture::Waiting | Posture::Leaving => None,
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
    fn checked(&self, peer: SocketAddr, raw: &[u8]) -> Result<KeptPing, Refusal> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let keepalive = Keepalive::parse(raw).map_err(|error| self.refuse(&Rejection::from(error)))?;
        if let Some(address) = self.speaker(peer).filter(|address| *address != keepalive.key().address()) {
            let claimed = keepalive.key().address();
            return Err(self.refuse(&Rejection::ForgedAddress { claimed, sender: address }));
        }
        Ok(KeptPing { key: keepalive.key(), turn, peer, raw: Bytes::copy_from_slice(raw) })
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
                self.collided(rejection);
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

/// A client that is told this tries again at once, and finds another master where there is one.
fn leaving() -> Refusal {
    Refusal { kind: RefusalKind::Unavailable, message: "this master is stopping".to_owned() }
}

impl Kept {
    /// `false` when there is no room.
    fn put(&mut self, ping: KeptPing) -> bool {
        let known = self.newest.get(&ping.key);
        if known.is_some_and(|known| known.turn > ping.turn) {
            return true;
        }
        let bytes = self.bytes - known.map_or(0, |known| known.raw.len()) + ping.raw.len();
        if bytes > KEPT_LIMIT {
            return false;
        }
        self.bytes = bytes;
        self.newest.insert(ping.key, ping);
        true
    }

    /// Everything, in the order in which it came: numbers are given in that order.
    fn take(&mut self) -> Vec<KeptPing> {
        self.bytes = 0;
        let mut pings: Vec<_> = std::mem::take(&mut self.newest).into_values().collect();
        pings.sort_unstable_by_key(|ping| ping.turn);
        pings
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decide::ensemble::Settings;

    const TTL: Duration = Duration::from_secs(20);

    fn desk() -> Desk {
        let clock = Clock::start();
        Desk::new(clock, Alarms::new(clock), DeskMetrics::default(), Speakers::Anyone)
    }

    fn peer() -> SocketAddr {
        "127.0.0.9:1".parse().unwrap()
    }

    fn ensemble() -> Ensemble {
        Ensemble::new(Settings::new(TTL, TTL / 3))
    }

    fn keepalive(payload: &str, down: bool) -> Vec<u8> {
        let ip = Ipv4Addr::new(10, 0, 0, 1);
        json!({"app": "shop", "id": "a", "ip": ip, "key": Key::of(ip), "nonce": "01", "payload": payload, "role": "web",
            "down": down})
        .to_string()
        .into_bytes()
    }

    /// What a leader on `desk` that stores everything shows.
    fn snapshot(desk: &Desk) -> String {
        let shown = desk.with_ensemble(|ensemble, _| {
            while let Some(changes) = ensemble.take_changes() {
                ensemble.confirm(changes.ticket);
            }
            String::from_utf8(ensemble.snapshot().pods().as_ref().to_vec()).unwrap()
        });
        shown.unwrap()
    }

    #[tokio::test]
    async fn a_keepalive_that_no_leader_took_is_ours_when_we_have_begun_to_lead_meanwhile() {
        let desk = desk();
        let ping = desk.checked(peer(), &keepalive("x", false)).unwrap();
        desk.lead(ensemble());
        desk.keep(ping).unwrap();
        assert!(snapshot(&desk).contains("\"id\":\"a\""));
    }

    #[tokio::test]
    async fn an_earlier_keepalive_that_comes_back_late_does_not_replace_a_goodbye() {
        let desk = desk();
        let earlier = desk.checked(peer(), &keepalive("x", false)).unwrap();
        let later = desk.checked(peer(), &keepalive("x", true)).unwrap();
        desk.keep(later).unwrap();
        desk.keep(earlier).unwrap();
        desk.lead(ensemble());
        assert_eq!(snapshot(&desk), "[]");
    }

    #[tokio::test]
    async fn what_could_not_be_stored_is_kept_for_the_next_reign() {
        let desk = desk();
        desk.lead(ensemble());
        let Answer::Now(Ok(())) = desk.ping(peer(), &keepalive("x", false)) else { panic!("taken") };
        assert!(snapshot(&desk).contains("\"seq\":0"));
        let stored = desk.with_ensemble(|ensemble, _| ensemble.snapshot()).unwrap();
        assert_eq!(stored.len(), 1);
        let Answer::Now(Ok(())) = desk.ping(peer(), &keepalive("x", true)) else { panic!("taken") };
        // The reign ends before its goodbye is stored; the next one begins with what is.
        desk.wait();
        desk.lead(ensemble());
        assert_eq!(snapshot(&desk), "[]", "it said down, and that is final");
        let Answer::Now(Err(refusal)) = desk.ping(peer(), &keepalive("x", false)) else { panic!("refused") };
        assert!(refusal.message.contains("down"), "{}", refusal.message);
    }

    #[tokio::test]
    async fn who_speaks_to_a_master_that_ends_is_told_so() {
        let desk = desk();
        let late = desk.checked(peer(), &keepalive("x", true)).unwrap();
        desk.leave();
        let Answer::Now(Err(refusal)) = desk.ping(peer(), &keepalive("x", true)) else { panic!("refused") };
        assert_eq!(refusal.kind, RefusalKind::Unavailable);
        assert_eq!(desk.keep(late).unwrap_err().kind, RefusalKind::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_collision_is_an_alarm_until_it_has_been_quiet_for_a_while() {
        let desk = desk();
        desk.lead(ensemble());
        desk.ping(peer(), &keepalive("x", false));
        let thief = String::from_utf8(keepalive("x", false)).unwrap().replace("\"a\"", "\"b\"");
        let Answer::Now(Err(_)) = desk.ping(peer(), thief.as_bytes()) else { panic!("refused") };
        tokio::time::advance(TTL / 2).await;
        desk.review_collisions(TTL);
        assert_eq!(desk.alarms.up().len(), 1);
        tokio::time::advance(TTL).await;
        desk.review_collisions(TTL);
        assert!(desk.alarms.up().is_empty());
        assert_eq!(desk.alarms.history().len(), 2);
    }
}
