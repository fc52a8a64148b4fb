//! Coordination: leader election, membership, and the records that must outlive a process.
//!
//! One trait, several backends, one contract test suite (`tests/store.rs`). Every write is fenced by the leader's
//! [`Term`], so that a leader that was suspended writes nothing after it resumes. Only changes are written, in
//! batches; plain heartbeats never are. Keys, guarantees and failures of each backend: `docs/stores.md`.

mod background;
mod embedded;
mod etcd;
mod kubernetes;
mod layout;
mod lease;
mod membership;
mod metrics;
mod mirror;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use kubernetes::KubernetesStore;
pub use membership::{Member, MemberState, MemberStatus, SCHEMA};
pub use metrics::{Operation, StoreMetrics};

use super::kubernetes::connect::{self, ConnectOptions};
use crate::{alarms::Alarms, config::StoreConfig, decide::key::Key, exit::chain};

/// A leader's term: strictly greater than every earlier leader's on the same prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

/// The records below one prefix (`/kontrol/<namespace>/<app>/`), in the order in which a batch becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// The next sequence number: `seq`.
    Sequence,
    /// One pod of the ensemble: `pods/<key>`.
    Pod(Key),
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

/// Writes of one transaction.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Records to write.
    pub put: Vec<(RecordKey, Bytes)>,
    /// Records to remove; an absent one is no error.
    pub delete: Vec<RecordKey>,
}

/// All records of the prefix at one revision.
pub type Records = BTreeMap<RecordKey, Bytes>;

/// The elected member and its term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The elected process.
    pub member: Member,
    /// Its term.
    pub term: Term,
}

/// This process's leadership, judged on its own monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// No answer yet, or the store has not answered for longer than the lease: nothing may be decided.
    Unknown,
    /// Another process leads, or none does at the moment.
    Follower {
        /// The leader, if any.
        leader: Option<Leader>,
    },
    /// This process leads; every write carries this term.
    Leading {
        /// The fence of our writes.
        term: Term,
    },
}

/// Why a request to the store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A newer term has begun: this process no longer leads and must stop acting.
    #[error("term {0:?} is over: another leader was elected")]
    LeadershipLost(Term),
    /// No answer in time, or a transient refusal; whether a write happened is unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Out of space: etcd's NOSPACE alarm, a full disk.
    #[error("the store is out of space: {0}")]
    NoSpace(String),
    /// A record exceeds the size limit.
    #[error("{what} has {size} bytes; at most {limit} are stored")]
    TooLarge {
        /// Which record.
        what: String,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A permanent failure: bytes of an unknown layout, a file in use, a refused login.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
}

/// A coordination backend, opened for one prefix and one member; it campaigns from the moment it is opened.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Leadership as it changes. A lost lease is published before another process can be elected.
    ///
    /// It leaves [`Leadership::Unknown`] only after the followed records have been read, and it may come back
    /// from there to `Leading` with the *same* term: then nobody else led in between.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// Whether `term` is still valid at this moment, judged on our own clock. To be checked before actions that no
    /// store can refuse, such as starting a process, because this process may have been suspended in between.
    fn may_act(&self, term: Term) -> bool {
        *self.leadership().borrow() == Leadership::Leading { term }
    }

    /// The live members, this one included, as they come, go and publish; empty before the first read of the store.
    fn membership(&self) -> watch::Receiver<Arc<Vec<MemberState>>>;

    /// How often this process's lease has ended on its own clock and was renewed after that. The others may have counted it
    /// as gone each time.
    fn lapses(&self) -> u64 {
        0
    }

    /// Publishes what the others read about this process; returns when it is stored.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; the status is stored as soon as the store answers again.
    async fn publish(&self, status: MemberStatus) -> Result<(), StoreError>;

    /// Sets whether a member is cordoned, in its record; that member keeps it until it ends.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] for a member that is not there, or [`StoreError::Unavailable`].
    async fn set_cordoned(&self, member: &str, cordoned: bool) -> Result<(), StoreError>;

    /// Gives up leadership and stays a member; somebody else leads next, if anybody is there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn hand_over(&self) -> Result<(), StoreError>;

    /// Reads all records, linearizably.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], or [`StoreError::Unusable`] for bytes of an unknown layout.
    async fn load(&self) -> Result<Records, StoreError>;

    /// Writes `batch` in one transaction if `term` is still the newest. A record that is put and deleted is put.
    ///
    /// A batch that no single request of the backend can carry (etcd: 4096 records or 1.4 MB; Kubernetes: one object)
    /// is written as several transactions, each fenced, in the order sequence, pods, state, ledger, windows: a pod is never
    /// durable before the sequence number that it was given.
    ///
    /// # Errors
    /// [`StoreError::LeadershipLost`] when it is not; the others leave it unknown whether the write happened,
    /// except `TooLarge` and `NoSpace`, after which nothing was written.
    async fn commit(&self, term: Term, batch: Batch) -> Result<(), StoreError>;

    /// A record's committed value, now and as it changes, on leaders and followers; bursts may be coalesced to
    /// the last value. `None` is an absent record, or, before the first read of the store (leadership
    /// [`Leadership::Unknown`]), one that has not been read yet. Pods are not followed: only a leader has them.
    fn follow(&self, record: RecordKey) -> watch::Receiver<Option<Bytes>>;

    /// Gives up leadership and membership at once, so that the next leader need not wait for the lease to end.
    async fn resign(&self);
}

/// The prefix, member record and lease that a process opens a store with.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Start of all keys; see [`prefix`].
    pub prefix: String,
    /// This process.
    pub member: Member,
    /// How long a leader stays elected without a renewal (`KONTROL_FOVER`).
    pub lease: Duration,
}

/// The storage prefix of an ensemble: `/kontrol/<namespace>/<app>/`.
pub fn prefix(namespace: &str, app: &str) -> String {
    format!("/kontrol/{namespace}/{app}/")
}

/// Opens the configured store, registers as a member and campaigns.
///
/// An etcd or an API server that does not answer is no error: leadership stays [`Leadership::Unknown`] and the store
/// retries, so that masters and their store may start in any order.
///
/// # Errors
/// [`StoreError::Unusable`] for permanent failures: a file that is in use or corrupt, a certificate that cannot be
/// read, a refused password. [`StoreError::NoSpace`] for a full disk.
pub async fn open(
    config: &StoreConfig,
    membership: Membership,
    alarms: &Alarms,
    metrics: StoreMetrics,
) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match config {
        StoreConfig::Embedded(path) => {
            Arc::new(embedded::EmbeddedStore::open(path, membership, alarms, metrics).await?)
        }
        StoreConfig::Etcd(config) => {
            Arc::new(etcd::EtcdStore::open(config, membership, alarms, metrics).await?)
        }
        StoreConfig::Kubernetes(config) => {
            let options = ConnectOptions {
                kubeconfig: config.kubeconfig.clone(),
                server: config.server.clone(),
                ..ConnectOptions::default()
            };
            let client =
                connect::client(&options).await.map_err(|error| StoreError::Unusable(chain(&error)))?;
            Arc::new(KubernetesStore::start(client, &config.namespace, membership, alarms, metrics))
        }
    })
}

impl StoreError {
    /// There is no member `id`.
    fn no_member(id: &str) -> Self {
        Self::Unusable(format!("there is no member {id:?}"))
    }

    /// The kind, as a metric's label.
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
