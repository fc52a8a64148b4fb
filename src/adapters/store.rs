//! Coordination: who leads, who is there, and the few records that must outlive a process.
//!
//! One trait, several real backends, one contract test suite (`tests/store.rs`). What is written is
//! always fenced by the leader's [`Term`]: a leader that was frozen and wakes up writes nothing.
//! Heartbeats never come here; only changes do, in batches. What each backend keeps where, and what an
//! operator sees when it is away, is in `docs/stores.md`.

mod embedded;
mod etcd;
mod layout;
mod lease;
mod metrics;
mod mirror;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use metrics::{Operation, StoreMetrics};

use crate::{clock::Clock, config::StoreConfig, decide::key::Key};

/// A leader's term: strictly greater than that of every leader before it on the same prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

/// What a store holds for one prefix (`/kontrol/<namespace>/<app>/`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// One pod of the ensemble: `pods/<key>`.
    Pod(Key),
    /// The next sequence number: `seq`.
    Sequence,
    /// The callback's persisted state, at most [`STATE_LIMIT`] bytes: `state`.
    State,
    /// The gate's ledger with the roster that the endpoints file projects: `ledger`.
    Ledger,
    /// The windows of detectors that run in process: `windows`.
    Windows,
}

/// The largest callback state that any backend takes, in bytes.
pub const STATE_LIMIT: usize = 1 << 20;

/// The largest value of any other record, in bytes.
pub const RECORD_LIMIT: usize = STATE_LIMIT;

/// Writes that happen together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Records to write.
    pub put: Vec<(RecordKey, Bytes)>,
    /// Records to remove; an absent one is fine.
    pub delete: Vec<RecordKey>,
}

/// All records of the prefix at one revision.
pub type Records = BTreeMap<RecordKey, Bytes>;

/// One process on the prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Pod id and a random part drawn at each start: two processes never share it.
    pub id: String,
    /// `host:port` of its keepalive listener, where followers forward pings to.
    pub address: String,
}

/// The elected member and its term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Who.
    pub member: Member,
    /// Since which term.
    pub term: Term,
}

/// Leadership as this process may rely on it right now, judged on its own monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// Not known (no answer yet, or the store is away for longer than the lease): freeze.
    Unknown,
    /// Somebody else leads, or nobody does at the moment.
    Follower {
        /// The leader, when there is one.
        leader: Option<Leader>,
    },
    /// This process leads; every write carries this term.
    Leading {
        /// The fence of our writes.
        term: Term,
    },
}

/// Why the store did not do it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another term has begun: this process is not the leader any more and must stop acting.
    #[error("term {ours:?} is over: another leader was elected")]
    LeadershipLost {
        /// The term that the write carried.
        ours: Term,
    },
    /// No answer in time, or a refusal that may pass; the write may or may not have happened.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// What was tried and what came back.
        reason: String,
    },
    /// The store is out of space (etcd's NOSPACE alarm, a full disk).
    #[error("the store is out of space: {reason}")]
    NoSpace {
        /// What came back.
        reason: String,
    },
    /// A record is larger than the store takes.
    #[error("{what} has {size} bytes; at most {limit} are stored")]
    TooLarge {
        /// Which record.
        what: String,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Stored bytes that this version cannot read, or a file that another process holds.
    #[error("the store cannot be used: {reason}")]
    Unusable {
        /// What, where, and what to do.
        reason: String,
    },
}

/// A coordination backend, opened for one prefix and one member; it runs for leader from the moment it is opened.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Leadership as it changes. A lost lease shows here before anybody else can be elected.
    ///
    /// It leaves [`Leadership::Unknown`] only after the followed records have been read, and it may come back
    /// from there to `Leading` with the *same* term: then nobody else led in between.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// Whether this process may act under `term` at this very moment, judged on its own clock: who was frozen
    /// and wakes up asks before it does what no store can refuse, such as starting a process.
    fn may_act(&self, term: Term) -> bool {
        *self.leadership().borrow() == Leadership::Leading { term }
    }

    /// The live members, this one included.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no answer in time.
    async fn members(&self) -> Result<Vec<Member>, StoreError>;

    /// Reads all records, linearizably.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], or [`StoreError::Unusable`] for bytes of an unknown layout.
    async fn load(&self) -> Result<Records, StoreError>;

    /// Writes `batch` in one transaction if `term` is still the newest. A record that is put and deleted is put.
    ///
    /// A batch that no single request of the backend can carry (etcd: 4096 records or 1.4 MB) is written as
    /// several transactions, each fenced, in the order sequence, pods, state, ledger, windows: a pod is never
    /// durable before the sequence number that it was given.
    ///
    /// # Errors
    /// [`StoreError::LeadershipLost`] when it is not; the others leave it unknown whether the write happened,
    /// except `TooLarge` and `NoSpace`, after which nothing was written.
    async fn commit(&self, term: Term, batch: Batch) -> Result<(), StoreError>;

    /// A record's committed value, now and as it changes, on leaders and followers alike; bursts may be
    /// coalesced, the last value wins. `None` is an absent record; before the first read of the store
    /// (leadership [`Leadership::Unknown`]; for a pod, shortly after this call) it is one that is not known yet.
    fn follow(&self, record: RecordKey) -> watch::Receiver<Option<Bytes>>;

    /// Leaves: hands the lead over at once (the next leader need not wait for the lease) and withdraws the membership.
    async fn resign(&self);
}

/// Where on a store a process sits, and as whom.
#[derive(Clone, Debug)]
pub struct Membership {
    /// What all keys begin with, as [`prefix`] makes it.
    pub prefix: String,
    /// This process.
    pub member: Member,
    /// How long a leader that is not heard from stays leader (`KONTROL_FOVER`).
    pub lease: Duration,
}

/// The storage prefix of an ensemble: `/kontrol/<namespace>/<app>/`.
#[must_use]
pub fn prefix(namespace: &str, app: &str) -> String {
    format!("/kontrol/{namespace}/{app}/")
}

/// Opens the configured store, joins its members and runs for leader.
///
/// An etcd that does not answer is no error: leadership stays [`Leadership::Unknown`] and the store keeps
/// trying, so that a fleet that starts all at once comes up in any order.
///
/// # Errors
/// [`StoreError::Unusable`] for what waiting cannot cure: a file that another process holds or that is
/// corrupt, a certificate that cannot be read, a password that is refused. [`StoreError::NoSpace`] for a full disk.
pub async fn open(
    config: &StoreConfig,
    membership: Membership,
    clock: Clock,
    metrics: StoreMetrics,
) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match config {
        StoreConfig::Embedded { path } => {
            Arc::new(embedded::EmbeddedStore::open(path, membership, metrics).await?)
        }
        StoreConfig::Etcd(config) => {
            Arc::new(etcd::EtcdStore::open(config, membership, clock, metrics).await?)
        }
    })
}

impl StoreError {
    /// What kind, as a metric's label.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::LeadershipLost { .. } => "deposed",
            Self::Unavailable { .. } => "unavailable",
            Self::NoSpace { .. } => "no_space",
            Self::TooLarge { .. } => "too_large",
            Self::Unusable { .. } => "unusable",
        }
    }
}
