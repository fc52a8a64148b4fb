//! The ensemble: who is alive, in which order, as the keepalives tell it.
//!
//! Three things shape it. The same bytes as last time are by far the most frequent input, so they
//! only move a deadline: no parsing, no allocation, nothing written. A pod that is new stands in a
//! snapshot only after its sequence number is durable, so that no leader ever gives it a second
//! one. And silence is judged only while this process can act: frozen, nothing expires, and after
//! that everybody gets a full TTL.
//!
//! A pod is (key, id, nonce). The key is its address; a nonce names one process, and a newer one
//! replaces it for good. `down` is the last word of its nonce.

mod admission;
mod durability;
mod fingerprint;
mod known_pods;
mod pod_table;
mod rejection;
mod settings;
mod snapshot;
mod stored;

use std::{net::Ipv4Addr, sync::Arc};

use self::{
    durability::Pending,
    fingerprint::{Fingerprint, Fingerprints},
    known_pods::{DepartedPod, ExpiredPods},
    pod_table::{PodLiveness, PodTable, TableIndex, TrackedPod},
    snapshot::{Join, PodText},
};
pub use self::{
    durability::{BATCH_BYTES, BATCH_RECORDS, RecordChanges, Ticket},
    known_pods::{DEPARTED_LIMIT, DEPARTED_TTLS, Known, Status, Unread},
    rejection::{EnsembleRestoreError, KeepaliveEffect, Rejection},
    settings::Settings,
    snapshot::{Pods, Snapshot, SnapshotPod},
    stored::{SCHEMA, StoredPod, StoredPodError},
};
use crate::decide::{
    keepalive::{Keepalive, KeepaliveError, MAX_SIZE},
    key::Key,
    sequence::Sequence,
    time::Moment,
};

/// How many pods there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodCounts {
    /// Those that snapshots show.
    pub live: usize,
    /// Those that said `down` and are remembered.
    pub down: usize,
    /// Those whose seq is not stored yet.
    pub joining: usize,
}

/// The pods of one prefix, on their leader.
///
/// Time never runs backwards in here: a moment before the latest one counts as the latest.
#[derive(Debug)]
pub struct Ensemble {
    settings: Settings,
    prints: Fingerprints,
    table: PodTable,
    departed: ExpiredPods,
    pending: Pending,
    sequence: Sequence,
    latest: Arc<Snapshot>,
    revision: u64,
    clock: Moment,
    /// Nobody's TTL began before this.
    grace: Moment,
    frozen: bool,
    /// Bytes of all canonical texts together.
    bytes: usize,
}

impl Ensemble {
    /// An empty ensemble, for a store that holds none.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            prints: Fingerprints::new(),
            table: PodTable::new(),
            departed: ExpiredPods::default(),
            pending: Pending::default(),
            sequence: Sequence::default(),
            latest: Arc::new(Join::with_room_for(0, 0).finish(0)),
            revision: 0,
            clock: Moment::ORIGIN,
            grace: Moment::ORIGIN,
            frozen: false,
            bytes: 0,
        }
    }

    /// The ensemble as the last leader stored it; each pod gets one full TTL from `now`.
    ///
    /// # Errors
    /// [`EnsembleRestoreError`] names the record that cannot be read: then this version must not lead.
    pub fn restore<T: AsRef<[u8]>>(
        settings: Settings,
        now: Moment,
        stored: impl IntoIterator<Item = (Key, T)>,
        sequence: Sequence,
    ) -> Result<Self, EnsembleRestoreError> {
        let mut ensemble = Self { sequence, clock: now, grace: now, ..Self::new(settings) };
        for (key, record) in stored {
            let refuse = |source| EnsembleRestoreError::ReadPod { key, source };
            let pod = StoredPod::decode(record.as_ref()).map_err(refuse)?;
            ensemble.restore_pod(key, pod)?;
        }
        ensemble.revision += 1;
        Ok(ensemble)
    }

    fn restore_pod(&mut self, key: Key, stored: StoredPod) -> Result<(), EnsembleRestoreError> {
        let Some(member) = SnapshotPod::read(&stored.text).filter(|member| member.key == key) else {
            return Err(EnsembleRestoreError::WrongKey { key });
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

    /// A keepalive arrived. `sender` is the only address that it may speak for; `None`: any.
    ///
    /// # Errors
    /// [`Rejection`]: nothing has changed.
    pub fn observe(
        &mut self,
        now: Moment,
        raw: &[u8],
        sender: Option<Ipv4Addr>,
    ) -> Result<KeepaliveEffect, Rejection> {
        let now = self.tick(now);
        if raw.len() > MAX_SIZE {
            return Err(KeepaliveError::TooLarge { size: raw.len() }.into());
        }
        let print = self.prints.of(raw);
        if let Some(at) = self.table.by_print(print) {
            check_sender(self.table.pod(at).key, sender)?;
            self.table.refresh(at, now);
            return Ok(KeepaliveEffect::Heartbeat);
        }
        let beat = Keepalive::parse(raw)?;
        check_sender(beat.key(), sender)?;
        self.admit(now, &beat, print)
    }

    /// Takes out every pod whose TTL is over, and returns the keys of those that were live.
    pub fn expire(&mut self, now: Moment) -> Vec<Key> {
        let now = self.tick(now);
        let mut expired = Vec::new();
        while let Some(at) = self.table.oldest()
            && self.deadline(at) <= now
            && !self.frozen
        {
            let pod = self.take_out(at);
            if pod.liveness == PodLiveness::Live {
                expired.push(pod.key);
                self.remember(now, &pod);
            }
        }
        let memory = self.settings.ttl.saturating_mul(DEPARTED_TTLS);
        self.departed.prune(Moment::after_origin(now.since(Moment::after_origin(memory))));
        expired
    }

    /// When the next pod expires if nothing is heard of it.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Moment> {
        self.table.oldest().filter(|_| !self.frozen).map(|at| self.deadline(at))
    }

    /// From now on nothing expires: there is no leader, or no store.
    pub fn freeze(&mut self) {
        self.frozen = true;
    }

    /// The end of a freeze: everybody gets a full TTL.
    pub fn thaw(&mut self, now: Moment) {
        if self.frozen {
            self.frozen = false;
            self.grace = self.tick(now);
        }
    }

    /// Whether nothing expires.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Counts the changes to what a snapshot shows: compare it before and after, and tell the damper.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many pods there are, by how they stand; walks over all of them.
    #[must_use]
    pub fn pod_counts(&self) -> PodCounts {
        let count = |wanted: fn(&TrackedPod) -> bool| self.table.pods().filter(|pod| wanted(pod)).count();
        PodCounts {
            live: count(TrackedPod::is_visible),
            down: count(|pod| pod.liveness == PodLiveness::Down),
            joining: count(|pod| pod.liveness == PodLiveness::Live && !pod.durable),
        }
    }

    /// The next batch for the store, unless one is on its way or nothing changed.
    pub fn take_changes(&mut self) -> Option<RecordChanges> {
        if self.pending.is_idle() {
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

    /// The batch is stored: new pods in it may be seen from now on.
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

    /// The batch is not stored, or nobody knows: it will be offered again.
    pub fn fail(&mut self, ticket: Ticket) {
        if let Some(batch) = self.pending.arrive(ticket) {
            self.pending.put_back(batch);
        }
    }

    /// What the store is not known to hold, as keepalives that say it again: for whoever leads next.
    ///
    /// Of live pods only those that are heard; a goodbye is one however long ago it was.
    pub fn unconfirmed(&mut self, now: Moment) -> Vec<(Key, Vec<u8>)> {
        let now = self.tick(now);
        let say = |key| {
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
        self.pending.keys().filter_map(say).collect()
    }

    /// The visible pods, ordered by seq; the same one again as long as the revision is the same.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        if self.latest.revision() != self.revision {
            self.latest = Arc::new(self.join());
        }
        Arc::clone(&self.latest)
    }

    /// Every pod whose seq is stored, live and down, then those that expired of late.
    pub fn roster(&self, now: Moment) -> impl Iterator<Item = Known<'_>> {
        self.records(now).filter_map(Unread::read)
    }

    /// The roster unread: for those who keep others from the ensemble meanwhile, and copy now and read later.
    pub fn records(&self, now: Moment) -> impl Iterator<Item = Unread<'_>> {
        let now = now.max(self.clock);
        let known = self.table.pods().filter(|pod| pod.durable && pod.liveness.is_known());
        let known = known.map(move |pod| {
            let status = if pod.liveness == PodLiveness::Live { Status::Live } else { Status::Down };
            let text = pod.text.bytes(self.latest.pods());
            Unread { text, status, age: now.since(pod.last_seen), heard: pod.heard }
        });
        let departed = self.departed.iter().filter(|gone| self.table.by_name(gone.id_hash).is_none());
        known.chain(departed.map(move |gone| Unread {
            text: &gone.text,
            status: Status::Expired,
            age: now.since(gone.last_seen),
            heard: gone.heard,
        }))
    }
}

/// What the public part is made of.
impl Ensemble {
    /// Removes a pod from everything but the memory of the departed.
    fn take_out(&mut self, at: TableIndex) -> TrackedPod {
        let pod = self.table.remove(at);
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
        self.departed.remember(pod.key, DepartedPod { at: now, last_seen, heard, id_hash, text });
    }

    fn tick(&mut self, now: Moment) -> Moment {
        self.clock = self.clock.max(now);
        self.clock
    }

    fn deadline(&self, at: TableIndex) -> Moment {
        self.table.pod(at).last_seen.max(self.grace) + self.settings.ttl
    }

    fn member<'s>(&'s self, pod: &'s TrackedPod) -> Option<SnapshotPod<'s>> {
        SnapshotPod::read(pod.text.bytes(self.latest.pods()))
    }

    fn encode(&self, pod: &TrackedPod) -> Vec<u8> {
        let text = pod.text.bytes(self.latest.pods());
        stored::encode(pod.seq, pod.liveness == PodLiveness::Down, &pod.replaced, text)
    }

    /// Joins the visible pods, and lets their texts point into the join.
    fn join(&mut self) -> Snapshot {
        let old = Arc::clone(&self.latest);
        let mut visible: Vec<_> = self.table.pods_mut().filter(|pod| pod.is_visible()).collect();
        visible.sort_unstable_by_key(|pod| pod.seq);
        let bytes = visible.iter().map(|pod| pod.text.len()).sum();
        let mut join = Join::with_room_for(visible.len(), bytes);
        for pod in visible {
            pod.text = join.push(pod.text.bytes(old.pods()));
        }
        for pod in self.table.pods_mut().filter(|pod| !pod.is_visible()) {
            if let PodText::Shared(..) = pod.text {
                pod.text = PodText::Own(pod.text.bytes(old.pods()).into());
            }
        }
        join.finish(self.revision)
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
