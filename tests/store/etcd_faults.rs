//! Etcd away, frozen, restarted, full.

use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_client::{AlarmAction, AlarmType};
use kubervisor::{
    adapters::store::{Batch, Leadership, RecordKey, StoreError},
    config::StoreConfig,
};

use crate::{
    etcd_server::{Etcd, Options},
    fixture::{LEASE, eventually, follows, leading, open, pod, put, until},
};

#[tokio::test]
async fn an_etcd_that_is_not_there_yet_is_waited_for() {
    let mut etcd = Etcd::prepare(Options::default());
    let store = open(&etcd.config(), "a").await.unwrap();
    assert_eq!(*store.leadership().borrow(), Leadership::Unknown);
    assert_eq!(store.load().await.unwrap_err().category(), "unavailable");
    etcd.launch().await;
    let term = leading(&*store).await;
    store.commit(term, put(RecordKey::State, "x")).await.unwrap();
}

#[tokio::test]
async fn a_frozen_etcd_makes_leadership_unknown_within_the_lease_and_a_thawed_one_gives_it_back() {
    let etcd = Etcd::start().await;
    let store = open(&etcd.config(), "a").await.unwrap();
    let other = open(&etcd.config(), "b").await.unwrap();
    let term = leading(&*store).await;
    store.commit(term, put(RecordKey::State, "kept")).await.unwrap();
    etcd.stop();
    let frozen = Instant::now();
    until(&*store, |now| *now == Leadership::Unknown).await;
    let took = frozen.elapsed();
    println!("etcd frozen to leadership unknown, lease {LEASE:?}: {took:?}");
    assert!(took < LEASE, "before the lease can have ended: {took:?}");
    until(&*other, |now| *now == Leadership::Unknown).await;
    let refused = store.commit(term, put(RecordKey::State, "lost")).await.unwrap_err();
    assert_eq!(refused.category(), "unavailable", "{refused}");
    etcd.resume();
    let leads = |store: &dyn kubervisor::adapters::store::Store| match *store.leadership().borrow() {
        Leadership::Leading { term } => Some(term),
        _ => None,
    };
    eventually("one leads again", || async { leads(&*store).xor(leads(&*other)).is_some() }).await;
    let (leader, newest) = match leads(&*store) {
        Some(term) => (&store, term),
        None => (&other, leading(&*other).await),
    };
    assert!(newest >= term);
    leader.commit(newest, put(RecordKey::Ledger, "goes on")).await.unwrap();
    for store in [&store, &other] {
        follows(&**store, RecordKey::Ledger, Some("goes on")).await;
        follows(&**store, RecordKey::State, Some("kept")).await;
    }
}

#[tokio::test]
async fn an_etcd_that_restarts_is_joined_again_and_the_term_goes_on() {
    let mut etcd = Etcd::start().await;
    let store = open(&etcd.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    store.commit(term, put(RecordKey::State, "kept")).await.unwrap();
    etcd.kill();
    eventually("noticed", || async { store.load().await.is_err() }).await;
    etcd.launch().await;
    let began = Instant::now();
    eventually("written again", || async {
        let now = store.leadership().borrow().clone();
        let Leadership::Leading { term } = now else { return false };
        store.commit(term, put(RecordKey::Ledger, "new")).await.is_ok()
    })
    .await;
    println!("etcd restarted to first commit: {:?}", began.elapsed());
    assert!(leading(&*store).await >= term);
    follows(&*store, RecordKey::Ledger, Some("new")).await;
    assert_eq!(store.load().await.unwrap()[&RecordKey::State].as_ref(), b"kept");
}

/// The outage is longer than the lease, what was missed is compacted, and somebody else wrote meanwhile.
#[tokio::test]
async fn after_a_long_outage_with_a_compaction_everything_is_read_anew() {
    let mut etcd = Etcd::start().await;
    let store = open(&etcd.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    store.commit(term, put(pod(1), "old")).await.unwrap();
    follows(&*store, pod(1), Some("old")).await;
    etcd.kill();
    until(&*store, |now| *now == Leadership::Unknown).await;
    etcd.launch().await;
    let mut admin = etcd.connect().await.unwrap();
    let written = admin.put("/kontrol/default/test/state", "by hand", None).await.unwrap();
    admin.compact(written.header().unwrap().revision(), None).await.unwrap();
    follows(&*store, RecordKey::State, Some("by hand")).await;
    let newest = leading(&*store).await;
    assert!(newest >= term);
    store.commit(newest, put(pod(1), "new")).await.unwrap();
    follows(&*store, pod(1), Some("new")).await;
}

#[tokio::test]
async fn a_full_etcd_is_a_typed_error_and_the_leader_stays_leader() {
    let etcd = Etcd::start_with(Options { quota: Some(4 << 20), ..Options::default() }).await;
    let store = open(&etcd.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    store.commit(term, put(RecordKey::Sequence, "7")).await.unwrap();
    let filler = Bytes::from(vec![b'x'; 500_000]);
    let mut written = 0;
    let error = loop {
        let batch = Batch { put: vec![(RecordKey::State, filler.clone())], delete: vec![] };
        match store.commit(term, batch).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "the quota was not noticed");
    };
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    assert!(error.to_string().contains("NOSPACE"), "{error}");
    assert_eq!(leading(&*store).await, term);
    assert_eq!(store.load().await.unwrap()[&RecordKey::Sequence].as_ref(), b"7");

    let mut admin = etcd.connect().await.unwrap();
    let revision = admin.get("x", None).await.unwrap().header().unwrap().revision();
    let options = etcd_client::CompactionOptions::new().with_physical();
    admin.compact(revision, Some(options)).await.unwrap();
    admin.defragment().await.unwrap();
    let alarms = admin.alarm(AlarmAction::Get, AlarmType::None, None).await.unwrap();
    let mut member = etcd_client::AlarmOptions::new();
    member.with_member(alarms.alarms()[0].member_id());
    admin.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(member)).await.unwrap();
    eventually("written again", || async {
        let Leadership::Leading { term } = *store.leadership().borrow() else { return false };
        store.commit(term, put(RecordKey::State, "small")).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_was_revoked_by_hand_ends_the_term_and_the_process_rejoins() {
    let etcd = Etcd::start().await;
    let store = open(&etcd.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    let mut admin = etcd.connect().await.unwrap();
    let key = "/kontrol/default/test/election/leader";
    let lease = admin.get(key, None).await.unwrap().kvs()[0].lease();
    admin.lease_revoke(lease).await.unwrap();
    let newer =
        until(&*store, |now| matches!(now, Leadership::Leading { term: newer } if *newer > term)).await;
    let Leadership::Leading { term: newer } = newer else { panic!("{newer:?}") };
    let refused = store.commit(term, put(RecordKey::State, "old term")).await.unwrap_err();
    assert_eq!(refused.category(), "deposed");
    store.commit(newer, put(RecordKey::State, "new term")).await.unwrap();
    eventually("a member again", || async { store.membership().borrow().len() == 1 }).await;
}

/// Endpoints that refuse or do not answer must not keep a store from opening.
#[tokio::test]
async fn a_dead_endpoint_among_several_delays_little() {
    let etcd = Etcd::start().await;
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}", refusing.local_addr().unwrap());
    drop(refusing);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = etcd.etcd_config();
    config.endpoints.splice(0..0, [gone, format!("http://{}", silent.local_addr().unwrap())]);
    let began = Instant::now();
    let store = open(&StoreConfig::Etcd(config), "a").await.unwrap();
    let term = leading(&*store).await;
    let took = began.elapsed();
    println!("to lead with one refusing and one silent endpoint before the good one: {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    store.commit(term, put(RecordKey::State, "x")).await.unwrap();
}
