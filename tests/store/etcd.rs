//! Several members on one etcd: elections, hand-over, followed records.

use std::time::{Duration, Instant};

use kubervisor::{
    adapters::store::{self, Leadership, Operation, RecordKey, StoreMetrics},
    alarms::Alarms,
    clock::Clock,
    config::StoreConfig,
};

use crate::{
    etcd_server::Etcd,
    fixture::{LEASE, eventually, follows, leading, membership, open, put, until},
};

#[tokio::test]
async fn one_of_three_leads_and_the_others_know_its_address_and_term() {
    let etcd = Etcd::start().await;
    let first = open(&etcd.config(), "a").await.unwrap();
    let term = leading(&*first).await;
    for id in ["b", "c"] {
        let store = open(&etcd.config(), id).await.unwrap();
        let seen = until(&*store, |now| matches!(now, Leadership::Follower { leader: Some(_) })).await;
        let Leadership::Follower { leader: Some(leader) } = seen else { panic!("{seen:?}") };
        assert_eq!((leader.member.address.as_str(), leader.term), ("a:8000", term));
        let refused = store.commit(term, put(RecordKey::State, "not mine")).await.unwrap_err();
        assert_eq!(refused.category(), "deposed");
        store.resign().await;
    }
    assert!(first.load().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_leader_that_resigns_is_followed_at_once_and_nothing_is_lost() {
    let etcd = Etcd::start().await;
    let mut holder = open(&etcd.config(), "m0").await.unwrap();
    let mut last = leading(&*holder).await;
    let mut taken = Vec::new();
    for n in 1..=10 {
        let next = open(&etcd.config(), &format!("m{n}")).await.unwrap();
        holder.commit(last, put(RecordKey::State, &format!("state {n}"))).await.unwrap();
        let left = Instant::now();
        holder.resign().await;
        let term = leading(&*next).await;
        taken.push(left.elapsed());
        assert!(term > last);
        follows(&*next, RecordKey::State, Some(&format!("state {n}"))).await;
        (holder, last) = (next, term);
    }
    println!("resign to next leader, 10 times: {taken:?}");
    assert!(taken.iter().all(|took| *took < Duration::from_secs(1)), "{taken:?}");
}

#[tokio::test]
async fn a_leader_that_dies_is_followed_after_its_lease() {
    let etcd = Etcd::start().await;
    let first = open(&etcd.config(), "a").await.unwrap();
    let term = leading(&*first).await;
    first.commit(term, put(RecordKey::Sequence, "41")).await.unwrap();
    let second = open(&etcd.config(), "b").await.unwrap();
    until(&*second, |now| matches!(now, Leadership::Follower { leader: Some(_) })).await;
    drop(first);
    let died = Instant::now();
    let next = leading(&*second).await;
    let took = died.elapsed();
    println!("death to next leader, lease {LEASE:?}: {took:?}");
    assert!(next > term);
    assert!(took > LEASE / 4 && took < LEASE + Duration::from_secs(2), "{took:?}");
    follows(&*second, RecordKey::Sequence, Some("41")).await;
    eventually("only the living are members", || async { second.membership().borrow().len() == 1 }).await;
}

#[tokio::test]
async fn followers_see_what_the_leader_commits_and_all_members() {
    let etcd = Etcd::start().await;
    let first = open(&etcd.config(), "a").await.unwrap();
    let term = leading(&*first).await;
    let second = open(&etcd.config(), "b").await.unwrap();
    first.commit(term, put(RecordKey::Ledger, "entries")).await.unwrap();
    follows(&*second, RecordKey::Ledger, Some("entries")).await;
    let ids: Vec<String> = second.membership().borrow().iter().map(|state| state.member.id.clone()).collect();
    assert_eq!(ids, ["a", "b"]);
}

/// A suspended process: its runtime's only thread is blocked for longer than the lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_writes_nothing_when_it_wakes_and_rejoins_as_a_follower() {
    let etcd = Etcd::start().await;
    let config = etcd.config();
    let (led, has_led) = tokio::sync::oneshot::channel();
    let (thaw, thawed) = std::sync::mpsc::channel::<()>();
    let frozen = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let store = open(&config, "frozen").await.unwrap();
            let term = leading(&*store).await;
            store.commit(term, put(RecordKey::State, "before")).await.unwrap();
            led.send(term).unwrap();
            thawed.recv().unwrap();
            let late = store.commit(term, put(RecordKey::State, "late")).await.unwrap_err();
            until(&*store, |now| matches!(now, Leadership::Follower { leader: Some(_) })).await;
            follows(&*store, RecordKey::State, Some("after")).await;
            eventually("registered again", || async {
                store.membership().borrow().iter().any(|state| state.member.id == "frozen")
            })
            .await;
            late
        })
    });
    let term = has_led.await.unwrap();
    let other = open(&etcd.config(), "other").await.unwrap();
    let next = leading(&*other).await;
    assert!(next > term);
    other.commit(next, put(RecordKey::State, "after")).await.unwrap();
    let mut admin = etcd.connect().await.unwrap();
    let revision = admin.get("x", None).await.unwrap().header().unwrap().revision();
    admin.compact(revision, None).await.unwrap();
    thaw.send(()).unwrap();
    let late = tokio::task::spawn_blocking(|| frozen.join().unwrap()).await.unwrap();
    assert_eq!(late.category(), "deposed", "{late}");
    assert_eq!(other.load().await.unwrap()[&RecordKey::State].as_ref(), b"after");
    other.commit(next, put(RecordKey::State, "still mine")).await.unwrap();
}

/// An idle store makes no request except renewals; the master's tests count the requests of heartbeats.
#[tokio::test]
async fn a_leader_at_rest_asks_for_nothing_but_its_lease() {
    let etcd = Etcd::start().await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let metrics = StoreMetrics::register(&mut prometheus_client::registry::Registry::default());
    let store = store::open(&etcd.config(), membership("a"), &Alarms::new(Clock::start()), metrics.clone())
        .await
        .unwrap();
    leading(&*store).await;
    let others =
        [Operation::Load, Operation::Commit, Operation::Publish, Operation::Campaign, Operation::Follow];
    let count = || others.map(|operation| metrics.operations(operation));
    let (before, leases) = (count(), metrics.operations(Operation::Lease));
    eventually("five renewals", || async { metrics.operations(Operation::Lease) >= leases + 5 }).await;
    assert_eq!(count(), before);
    assert_eq!(metrics.errors("unavailable"), 0);
}

#[tokio::test]
async fn two_ensembles_on_one_etcd_do_not_meet() {
    let etcd = Etcd::start().await;
    let first = open(&etcd.config(), "a").await.unwrap();
    let term = leading(&*first).await;
    first.commit(term, put(RecordKey::State, "of test")).await.unwrap();
    let mut other = membership("b");
    other.prefix = store::prefix("default", "test2");
    let metrics = StoreMetrics::register(&mut prometheus_client::registry::Registry::default());
    let second = store::open(&etcd.config(), other, &Alarms::new(Clock::start()), metrics).await.unwrap();
    leading(&*second).await;
    assert!(second.load().await.unwrap().is_empty());
    assert_eq!(second.membership().borrow().len(), 1);
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
