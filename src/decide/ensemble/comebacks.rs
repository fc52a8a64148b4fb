//! Pods that keep expiring and coming back: the same process, whose keepalives are further apart than the TTL.
//!
//! Agents of the original ping after 0.75 of *their* TTL and up to 2.75 s late; with a shorter TTL at the master they
//! flap for ever, and neither side sees why.

use std::{collections::HashMap, time::Duration};

use super::{
    CanonicalPod, Ensemble,
    known_pods::{DEPARTED_TTLS, ExpiredPod},
};
use crate::decide::{keepalive::Keepalive, time::Moment};

/// Comebacks from which on it is no accident.
const ENOUGH: u32 = 3;

/// The pod that came back most often, and how many others keep coming back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowPods {
    /// Its id.
    pub id: String,
    /// The mean time between the keepalives around its expiries.
    pub interval: Duration,
    /// The others.
    pub others: usize,
}

#[derive(Debug)]
struct Comeback {
    id: String,
    count: u32,
    /// Sum of the silences that ended with a comeback.
    silent: Duration,
    last: Moment,
}

/// Comebacks by the hash of the pod's id; an entry is dropped [`DEPARTED_TTLS`] TTLs after its last one.
#[derive(Debug, Default)]
pub(super) struct Comebacks {
    by_name: HashMap<u64, Comeback>,
}

impl Comebacks {
    /// The pod of `beat` is back; `expired` is what was known of it. Another process does not count.
    pub(super) fn note(&mut self, now: Moment, beat: &Keepalive<'_>, id_hash: u64, expired: &ExpiredPod) {
        let same = |known: CanonicalPod<'_>| known.id == beat.id() && known.nonce.as_deref() == beat.nonce();
        if !CanonicalPod::read(&expired.text).is_some_and(same) {
            return;
        }
        let first = || Comeback { id: beat.id().to_owned(), count: 0, silent: Duration::ZERO, last: now };
        let comeback = self.by_name.entry(id_hash).or_insert_with(first);
        comeback.count = comeback.count.saturating_add(1);
        comeback.silent += now.since(expired.last_seen);
        comeback.last = now;
    }
}

impl Ensemble {
    /// The pods that have expired and come back at least three times, each time within ten TTLs.
    pub fn slow_pods(&mut self, now: Moment) -> Option<SlowPods> {
        let retention = self.settings.ttl.saturating_mul(DEPARTED_TTLS);
        self.comebacks.by_name.retain(|_, comeback| now.since(comeback.last) <= retention);
        let slow = self.comebacks.by_name.values().filter(|comeback| comeback.count >= ENOUGH);
        let others = slow.clone().count().saturating_sub(1);
        let most = slow.max_by(|a, b| (a.count, &b.id).cmp(&(b.count, &a.id)))?;
        Some(SlowPods { id: most.id.clone(), interval: most.silent / most.count, others })
    }
}
