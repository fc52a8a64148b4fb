//! Helpers that open stores and wait for their state.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use kubervisor::{
    adapters::store::{
        self, Batch, Leadership, Member, Membership, RecordKey, Store, StoreError, StoreMetrics, Term,
    },
    alarms::Alarms,
    clock::Clock,
    config::StoreConfig,
    decide::key::Key,
};

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

pub async fn open(config: &StoreConfig, id: &str) -> Result<Arc<dyn Store>, StoreError> {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    let _ = rustls::crypto::ring::default_provider().install_default();
    store::open(
        config,
        membership(id),
        &Alarms::new(Clock::start()),
        StoreMetrics::register(&mut prometheus_client::registry::Registry::default()),
    )
    .await
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
