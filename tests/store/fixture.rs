//! Helpers that open stores and wait for their state.

use std::{net::Ipv4Addr, ops::Deref, sync::Arc, time::Duration};

use bytes::Bytes;
use kubervisor::{
    adapters::store::{
        self, Batch, Leadership, Member, Membership, RecordKey, Store, StoreError, StoreMetrics, Term,
    },
    alarms::Alarms,
    clock::Clock,
    config::StoreConfig,
    decide::{alarm_reason::AlarmReason, key::Key},
};
use parking_lot::Mutex;

/// Limit of every wait.
pub const CAP: Duration = Duration::from_secs(20);

/// The shortest lease that etcd grants with its defaults.
pub const LEASE: Duration = Duration::from_secs(2);

pub fn membership(id: &str) -> Membership {
    Membership {
        prefix: store::prefix("default", "test"),
        member: Member { id: id.to_owned(), address: format!("{id}:8000"), pod: id.to_owned() },
        lease: LEASE,
    }
}

/// A member of a store, with its counters and alarms.
pub struct Replica {
    store: Arc<dyn Store>,
    pub metrics: StoreMetrics,
    pub alarms: Alarms,
}

impl Deref for Replica {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

impl Replica {
    /// The text of the alarm about the store's records or rights, if it is up.
    pub fn complaint(&self) -> Option<String> {
        let mut up = self.alarms.up().into_iter();
        up.find(|alarm| alarm.reason == AlarmReason::StoreUnreadable).map(|alarm| alarm.message)
    }

    /// Waits for that alarm, with this in its text.
    pub async fn complains(&self, part: &str) -> String {
        eventually(&format!("an alarm with {part:?}"), || async {
            self.complaint().is_some_and(|text| text.contains(part))
        })
        .await;
        self.complaint().unwrap_or_default()
    }

    /// What the leadership is from now on, as it changes.
    pub fn observe(&self) -> Observed {
        let (seen, mut leadership) = (Arc::new(Mutex::new(Vec::new())), self.leadership());
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let now = leadership.borrow_and_update().clone();
                kept.lock().push(now);
                if leadership.changed().await.is_err() {
                    return;
                }
            }
        });
        Observed { seen, _task: tokio_util::task::AbortOnDropHandle::new(task) }
    }
}

/// The values that a leadership has had.
pub struct Observed {
    seen: Arc<Mutex<Vec<Leadership>>>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Observed {
    pub fn all(&self) -> Vec<Leadership> {
        self.seen.lock().clone()
    }

    pub fn ever_led(&self) -> bool {
        self.all().iter().any(|now| matches!(now, Leadership::Leading { .. }))
    }
}

pub async fn join(config: &StoreConfig, membership: Membership) -> Result<Replica, StoreError> {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let alarms = Alarms::new(Clock::start());
    let metrics = StoreMetrics::register(&mut prometheus_client::registry::Registry::default());
    let store = store::open(config, membership, &alarms, metrics.clone()).await?;
    Ok(Replica { store, metrics, alarms })
}

pub async fn open(config: &StoreConfig, id: &str) -> Result<Arc<dyn Store>, StoreError> {
    join(config, membership(id)).await.map(|replica| replica.store)
}

/// Waits until the store leads.
pub async fn leading(store: &dyn Store) -> Term {
    match until(store, |now| matches!(now, Leadership::Leading { .. })).await {
        Leadership::Leading { term } => term,
        other => panic!("{other:?}"),
    }
}

/// Waits until leadership is as wanted.
pub async fn until(store: &dyn Store, wanted: impl FnMut(&Leadership) -> bool) -> Leadership {
    let mut leadership = store.leadership();
    let waited = tokio::time::timeout(CAP, leadership.wait_for(wanted)).await;
    match waited {
        Ok(now) => now.unwrap().clone(),
        Err(_) => panic!("still {:?} after {CAP:?}", *store.leadership().borrow()),
    }
}

/// Waits until the record is as wanted.
pub async fn follows(store: &dyn Store, record: RecordKey, wanted: Option<&str>) {
    let mut feed = store.follow(record);
    let wanted = wanted.map(|text| Bytes::copy_from_slice(text.as_bytes()));
    let waited = tokio::time::timeout(CAP, feed.wait_for(|value| *value == wanted)).await;
    assert!(waited.is_ok(), "{record} is {:?} and not {wanted:?}", store.follow(record).borrow().clone());
}

/// Waits until the condition holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let hold = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(CAP, hold).await.is_ok(), "not within {CAP:?}: {what}");
}

pub fn pod(n: u32) -> RecordKey {
    RecordKey::Pod(Key::of(Ipv4Addr::from_bits(0x0a00_0000 + n)))
}

pub fn put(record: RecordKey, value: &str) -> Batch {
    Batch { put: vec![(record, Bytes::copy_from_slice(value.as_bytes()))], delete: vec![] }
}
