//! A store in memory, shared by several gates, with faults that a real store shows only by chance.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use kubervisor::adapters::store::{
    Batch, Leadership, MemberState, MemberStatus, RecordKey, Records, Store, StoreError, Term,
};
use tokio::sync::watch;

pub(crate) struct MemoryStore {
    inner: Mutex<Inner>,
    leadership: watch::Sender<Leadership>,
}

#[derive(Default)]
struct Inner {
    records: Records,
    followers: BTreeMap<RecordKey, watch::Sender<Option<Bytes>>>,
    term: u64,
    away: bool,
    /// Commits that are applied and return `Unavailable`.
    lost_answers: usize,
    commits: usize,
}

impl MemoryStore {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::default(), leadership: watch::Sender::new(Leadership::Unknown) }
    }

    /// A new term begins; commits of older ones are refused from now on.
    pub(crate) fn elect(&self) -> Term {
        let mut inner = self.lock();
        inner.term += 1;
        Term(inner.term)
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    pub(crate) fn lose_answers(&self, count: usize) {
        self.lock().lost_answers = count;
    }

    pub(crate) fn commits(&self) -> usize {
        self.lock().commits
    }

    pub(crate) fn roster(&self) -> Option<serde_json::Value> {
        self.lock().records.get(&RecordKey::Ledger).map(|bytes| serde_json::from_slice(bytes).unwrap())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("set by the test".into())
}

#[async_trait]
impl Store for MemoryStore {
    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn membership(&self) -> watch::Receiver<Arc<Vec<MemberState>>> {
        watch::Sender::default().subscribe()
    }

    async fn publish(&self, _status: MemberStatus) -> Result<(), StoreError> {
        Ok(())
    }

    async fn set_cordoned(&self, _member: &str, _cordoned: bool) -> Result<(), StoreError> {
        Ok(())
    }

    async fn hand_over(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn load(&self) -> Result<Records, StoreError> {
        let inner = self.lock();
        if inner.away { Err(unavailable()) } else { Ok(inner.records.clone()) }
    }

    async fn commit(&self, term: Term, batch: Batch) -> Result<(), StoreError> {
        let mut inner = self.lock();
        if inner.away {
            return Err(unavailable());
        }
        if term.0 != inner.term {
            return Err(StoreError::LeadershipLost(term));
        }
        inner.commits += 1;
        for (key, bytes) in batch.put {
            if let Some(follower) = inner.followers.get(&key) {
                follower.send_replace(Some(bytes.clone()));
            }
            inner.records.insert(key, bytes);
        }
        if inner.lost_answers > 0 {
            inner.lost_answers -= 1;
            return Err(unavailable());
        }
        Ok(())
    }

    fn follow(&self, record: RecordKey) -> watch::Receiver<Option<Bytes>> {
        let mut inner = self.lock();
        let now = inner.records.get(&record).cloned();
        inner.followers.entry(record).or_insert_with(|| watch::Sender::new(now)).subscribe()
    }

    async fn resign(&self) {}
}
