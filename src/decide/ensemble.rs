//! The ensemble: the pods that send keepalives to this leader, ordered by sequence number.
//!
//! - A repeated keepalive (same bytes as the last) only moves a deadline: no parsing, no allocation, no write.
//! - A new pod enters a snapshot only after its sequence number is stored, so that no two leaders assign one number.
//! - Restored from the store, or after a pause of this process itself, each pod has a full TTL.
//!
//! A pod is (key, id, nonce). The key encodes its IPv4 address; a nonce identifies one process, and a newer nonce
//! replaces an older one for good. After a keepalive with `down: true`, no other keepalive of that nonce is taken.

mod admission;
mod comebacks;
mod durability;
mod fingerprint;
mod known_pods;
mod pod_table;
mod rejection;
mod settings;
mod snapshot;
mod stored;

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use self::{
    comebacks::Comebacks,
    durability::Pending,
    fingerprint::{Fingerprint, Fingerprints},
    known_pods::{ExpiredPod, ExpiredPods},
    pod_table::{PodLiveness, PodTable, TableIndex, TrackedPod},
    snapshot::{PodText, SnapshotBuilder},
};
pub use self::{
    comebacks::SlowPods,
    durability::{BATCH_BYTES, BATCH_RECORDS, RecordChanges, Ticket},
    known_pods::{DEPARTED_LIMIT, DEPARTED_TTLS, KnownPod, LifeStatus},
    rejection::{EnsembleRestoreError, KeepaliveEffect, Rejection},
    settings::Settings,
    snapshot::{CanonicalPod, Pods, Snapshot},
    stored::{SCHEMA, StoredPod, StoredPodError},
};
use crate::decide::{
    keepalive::{Keepalive, KeepaliveError, MAX_SIZE, OddValue},
    key::Key,
    sequence::Sequence,
    time::Moment,
};

/// A pod whose last keepalive holds an odd value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OddPod {
    /// Its id.
    pub id: String,
    /// The first odd value.
    pub odd: OddValue,
}

/// The pods of one store prefix, kept by its leader.
///
/// Time is monotonic: a moment before the latest one seen counts as the latest.
#[derive(Debug)]
pub struct Ensemble {
    settings: Settings,
    prints: Fingerprints,
    table: PodTable,
    expired: ExpiredPods,
    comebacks: Comebacks,
    /// Live pods with an odd value in their last keepalive.
    odd: BTreeMap<Key, OddPod>,
    pending: Pending,
    sequence: Sequence,
    latest: Arc<Snapshot>,
    revision: u64,
    clock: Moment,
    /// No TTL starts before this moment.
    grace: Moment,
    /// The last call of [`Self::awake`].
    awake: Option<Moment>,
    /// Sum of all canonical texts, in bytes.
    bytes: usize,
}

impl Ensemble {
    /// An empty ensemble, for a store without one.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            prints: Fingerprints::new(),
            table: PodTable::new(),
            expired: ExpiredPods::default(),
            comebacks: Comebacks::default(),
            odd: BTreeMap::new(),
            pending: Pending::default(),
            sequence: Sequence::default(),
            latest: Arc::new(SnapshotBuilder::with_room_for(0, 0).finish(0, None)),
            revision: 0,
            clock: Moment::ORIGIN,
            grace: Moment::ORIGIN,
            awake: None,
            bytes: 0,
        }
    }

    /// The ensemble as the last leader stored it; each pod has one full TTL from `now`.
    ///
    /// # Errors
    /// [`EnsembleRestoreError`] names the unreadable record; a process that gets it must not lead.
    pub fn restore<T: AsRef<[u8]>>(
        settings: Settings,
        now: Moment,
        stored: impl IntoIterator<Item = (Key, T)>,
        sequence: Sequence,
    ) -> Result<Self, EnsembleRestoreError> {
        let mut ensemble = Self { sequence, clock: now, grace: now, ..Self::new(settings) };
        for (key, record) in stored {
            let refuse = |source| EnsembleRestoreError::ReadPod(key, source);
            let pod = StoredPod::decode(record.as_ref()).map_err(refuse)?;
            ensemble.restore_pod(key, pod)?;
        }
        ensemble.revision += 1;
        Ok(ensemble)
    }

    fn restore_pod(&mut self, key: Key, stored: StoredPod) -> Result<(), EnsembleRestoreError> {
        let Some(member) = CanonicalPod::read(&stored.text).filter(|member| member.key == key) else {
            return Err(EnsembleRestoreError::WrongKey(key));
        };
        let pod = TrackedPod {
            key,
            liveness: if stored.down { PodLiveness::Down } else { PodLiveness::Live },
            durable: true,
            heard: false,
            seq: stored.seq,
            last_seen: self.clock,
            print: Fingerprint::default(),
            id_hash: self.prints.of_name(&member.id),
            text: PodText::Own(stored.text.into()),
            replaced: stored.replaced.into(),
        };
        self.sequence.skip_past(pod.seq);
        self.bytes += pod.text.len();
        self.table.insert(pod);
        Ok(())
    }

    /// Takes one keepalive. `sender` is the only address that it may claim; `None` allows any.
    ///
    /// # Errors
    /// [`Rejection`]; the ensemble is unchanged, except that a rejection as `IdMoved` refreshes the retired pod's TTL.
    pub fn observe(
        &mut self,
        now: Moment,
        raw: &[u8],
        sender: Option<Ipv4Addr>,
    ) -> Result<KeepaliveEffect, Rejection> {
        let now = self.tick(now);
        if raw.len() > MAX_SIZE {
            return Err(KeepaliveError::TooLarge(raw.len()).into());
        }
        let print = self.prints.of(raw);
        if let Some(at) = self.table.by_print(print) {
            check_sender(self.table.pod(at).key, sender)?;
            self.table.refresh(at, now);
            return Ok(KeepaliveEffect::Heartbeat);
        }
        let beat = Keepalive::parse(raw)?;
        check_sender(beat.key(), sender)?;
        let effect = self.admit(now, &beat, print)?;
        match beat.odd().filter(|_| !beat.is_down()) {
            Some(odd) => {
                _ = self.odd.insert(beat.key(), OddPod { id: beat.id().to_owned(), odd: odd.clone() })
            }
            None => _ = self.odd.remove(&beat.key()),
        }
        Ok(effect)
    }

    /// A live pod whose last keepalive holds a value that JSON has not or that is beyond a double, and the number of all.
    pub fn odd_pods(&self) -> Option<(&OddPod, usize)> {
        self.odd.values().next().map(|pod| (pod, self.odd.len()))
    }

    /// Removes every pod whose TTL is over and returns the keys of those that were live.
    pub fn expire(&mut self, now: Moment) -> Vec<Key> {
        let now = self.tick(now);
        let mut expired = Vec::new();
        while let Some(at) = self.table.oldest()
            && self.deadline(at) <= now
        {
            let pod = self.take_out(at);
            if pod.liveness == PodLiveness::Live {
                expired.push(pod.key);
                self.remember(now, &pod);
            }
        }
        let retention = self.settings.ttl.saturating_mul(DEPARTED_TTLS);
        self.expired.prune(Moment::after_origin(now.since(Moment::after_origin(retention))));
        expired
    }

    /// The earliest deadline; `None` when empty.
    pub fn next_wakeup(&self) -> Option<Moment> {
        self.table.oldest().map(|at| self.deadline(at))
    }

    /// Notes that this process runs at `now`; expected before every other call, and every
    /// [`Settings::awake_every`]. Returns the time since the last call if this one is late by more than a ping
    /// interval: then keepalives may have been missed because this process was paused (a stopped process, a stalled
    /// runtime, a suspended machine), so that each pod has a full TTL from `now`.
    pub fn awake(&mut self, now: Moment) -> Option<Duration> {
        let now = self.tick(now);
        let since = now.since(self.awake.replace(now)?);
        if since <= self.settings.awake_every() + self.settings.ping_every {
            return None;
        }
        self.grace = now;
        Some(since)
    }

    /// Increases with each change to the snapshot; the caller compares it to start the damper.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The next batch for the store; `None` while one is in flight or nothing changed.
    pub fn take_changes(&mut self) -> Option<RecordChanges> {
        if self.pending.is_blocked() {
            return None;
        }
        let (mut put, mut delete, mut seqs, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        while put.len() + delete.len() < BATCH_RECORDS
            && bytes < BATCH_BYTES
            && let Some(key) = self.pending.pop()
        {
            match self.table.by_key(key).map(|at| self.table.pod(at)).filter(|pod| pod.liveness.is_known()) {
                Some(pod) => {
                    let stored = self.encode(pod);
                    bytes += stored.len();
                    seqs.push((key, pod.seq));
                    put.push((key, stored));
                }
                None => delete.push(key),
            }
        }
        let ticket = self.pending.depart(seqs, delete.clone());
        Some(RecordChanges { ticket, put, delete, sequence: self.sequence })
    }

    /// The batch is stored: its new pods enter the next snapshot.
    pub fn confirm(&mut self, ticket: Ticket) {
        let Some(batch) = self.pending.arrive(ticket) else { return };
        for (key, seq) in batch.put {
            let Some(at) = self.table.by_key(key) else { continue };
            let pod = self.table.pod_mut(at);
            if pod.seq == seq && pod.liveness.is_known() && !pod.durable {
                pod.durable = true;
                self.revision += u64::from(pod.is_visible());
            }
        }
    }

    /// The batch is not stored, or its result is unknown: its records return to the queue.
    pub fn fail(&mut self, ticket: Ticket) {
        if let Some(batch) = self.pending.arrive(ticket) {
            self.pending.put_back(batch);
        }
    }

    /// Whether the latest state of this pod is not confirmed by the store.
    pub fn is_unconfirmed(&self, key: Key) -> bool {
        self.pending.is_unconfirmed(key)
    }

    /// Pods whose latest state is not confirmed by the store, as keepalives to forward to the next leader.
    ///
    /// Live pods only while not silent; pods that sent `down` always.
    pub fn unconfirmed(&mut self, now: Moment) -> Vec<(Key, Vec<u8>)> {
        let now = self.tick(now);
        let keepalive = |key| {
            let at = self.table.by_key(key)?;
            let pod = self.table.pod(at);
            let mut raw = pod.text.bytes(self.latest.pods()).to_vec();
            match pod.liveness {
                PodLiveness::Live if !self.is_silent(at, now) => {}
                PodLiveness::Down => {
                    raw.pop();
                    raw.extend_from_slice(b",\"down\":true}");
                }
                _ => return None,
            }
            Some((key, raw))
        };
        self.pending.keys().filter_map(keepalive).collect()
    }

    /// The visible pods, ordered by seq; the same `Arc` while the revision is unchanged.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        if self.latest.revision() != self.revision {
            self.latest = Arc::new(self.build_snapshot());
        }
        Arc::clone(&self.latest)
    }

    /// Every pod whose seq is stored, live and down, then those that expired within [`DEPARTED_TTLS`] TTLs.
    ///
    /// The texts are not parsed: the caller copies them under the ensemble's lock and parses them after.
    pub fn known_pods(&self, now: Moment) -> impl Iterator<Item = KnownPod<'_>> {
        let now = now.max(self.clock);
        let known = self.table.pods().filter(|pod| pod.durable && pod.liveness.is_known());
        let known = known.map(move |pod| {
            let status = if pod.liveness == PodLiveness::Live { LifeStatus::Live } else { LifeStatus::Down };
            let text = pod.text.bytes(self.latest.pods());
            let silence = now.since(pod.last_seen.max(self.grace));
            KnownPod { text, status, age: now.since(pod.last_seen), silence, heard: pod.heard }
        });
        let expired = self.expired.iter().filter(|pod| self.table.by_name(pod.id_hash).is_none());
        known.chain(expired.map(move |pod| KnownPod {
            text: &pod.text,
            status: LifeStatus::Expired,
            age: now.since(pod.last_seen),
            silence: now.since(pod.last_seen),
            heard: pod.heard,
        }))
    }
}

impl Ensemble {
    /// Removes a pod from all but the expired pods.
    fn take_out(&mut self, at: TableIndex) -> TrackedPod {
        let pod = self.table.remove(at);
        self.odd.remove(&pod.key);
        self.bytes -= pod.text.len();
        self.revision += u64::from(pod.is_visible());
        if pod.liveness.is_known() {
            self.pending.push(pod.key);
        }
        pod
    }

    fn remember(&mut self, now: Moment, pod: &TrackedPod) {
        if !pod.durable {
            return;
        }
        let text = pod.text.bytes(self.latest.pods()).into();
        let TrackedPod { last_seen, heard, id_hash, .. } = *pod;
        self.expired.insert(pod.key, ExpiredPod { at: now, last_seen, heard, id_hash, text });
    }

    fn tick(&mut self, now: Moment) -> Moment {
        self.clock = self.clock.max(now);
        self.clock
    }

    fn deadline(&self, at: TableIndex) -> Moment {
        self.table.pod(at).last_seen.max(self.grace) + self.settings.ttl
    }

    fn member<'s>(&'s self, pod: &'s TrackedPod) -> Option<CanonicalPod<'s>> {
        CanonicalPod::read(pod.text.bytes(self.latest.pods()))
    }

    fn encode(&self, pod: &TrackedPod) -> Vec<u8> {
        let text = pod.text.bytes(self.latest.pods());
        stored::encode(pod.seq, pod.liveness == PodLiveness::Down, &pod.replaced, text)
    }

    /// Builds a snapshot of the visible pods; their texts then are spans of it.
    fn build_snapshot(&mut self) -> Snapshot {
        let old = Arc::clone(&self.latest);
        let mut visible: Vec<_> = self.table.pods_mut().filter(|pod| pod.is_visible()).collect();
        visible.sort_unstable_by_key(|pod| pod.seq);
        let bytes = visible.iter().map(|pod| pod.text.len()).sum();
        let mut builder = SnapshotBuilder::with_room_for(visible.len(), bytes);
        for pod in visible {
            pod.text = builder.push(&pod.text, &old);
        }
        for pod in self.table.pods_mut().filter(|pod| !pod.is_visible()) {
            if let PodText::Shared(..) = pod.text {
                pod.text = PodText::Own(pod.text.bytes(old.pods()).into());
            }
        }
        builder.finish(self.revision, Some(&old))
    }
}

fn check_sender(key: Key, sender: Option<Ipv4Addr>) -> Result<(), Rejection> {
    match sender {
        Some(sender) if sender != key.address() => {
            Err(Rejection::ForgedAddress { claimed: key.address(), sender })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
