//! Several members on one etcd or one API server: elections, hand-over, followed records.

use std::time::{Duration, Instant};

use kubervisor::adapters::store::{self, Leadership, MemberState, Operation, RecordKey};

use crate::{
    contract::Backend,
    etcd_server::Etcd,
    fixture::{LEASE, eventually, follows, join, leading, membership, open, put, until},
    kubernetes::Cluster,
};

macro_rules! elections {
    ($($test:ident)*) => {
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::Backend::Etcd(Box::new(super::Etcd::start().await))).await;
            })*
        }
        mod kubernetes {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::Backend::Kubernetes(super::Cluster::start().await)).await;
            })*
        }
    };
}

elections! {
    one_of_three_leads_and_the_others_know_its_address_and_term
    a_leader_that_resigns_is_followed_at_once_and_nothing_is_lost
    a_leader_that_dies_is_followed_after_its_lease
    followers_see_what_the_leader_commits_and_all_members
    a_leader_that_was_frozen_writes_nothing_when_it_wakes_and_rejoins_as_a_follower
    a_leader_at_rest_asks_for_nothing_but_its_lease
    two_ensembles_in_one_store_do_not_meet
    who_hands_over_is_followed_at_once_and_stays_a_member
    two_processes_of_one_pod_are_two_members
}

async fn one_of_three_leads_and_the_others_know_its_address_and_term(backend: Backend) {
    let first = open(&backend.config(), "a").await.unwrap();
    let term = leading(&*first).await;
    for id in ["b", "c"] {
        let store = open(&backend.config(), id).await.unwrap();
        let seen = until(&*store, |now| matches!(now, Leadership::Follower { leader: Some(_) })).await;
        let Leadership::Follower { leader: Some(leader) } = seen else { panic!("{seen:?}") };
        assert_eq!((leader.member.address.as_str(), leader.term), ("a:8000", term));
        let refused = store.commit(term, put(RecordKey::State, "not mine")).await.unwrap_err();
        assert_eq!(refused.category(), "deposed");
        store.resign().await;
    }
    assert!(first.load().await.unwrap().is_empty());
}

async fn a_leader_that_resigns_is_followed_at_once_and_nothing_is_lost(backend: Backend) {
    let mut holder = open(&backend.config(), "m0").await.unwrap();
    let mut last = leading(&*holder).await;
    let mut taken = Vec::new();
    for n in 1..=10 {
        let next = open(&backend.config(), &format!("m{n}")).await.unwrap();
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

async fn a_leader_that_dies_is_followed_after_its_lease(backend: Backend) {
    let first = open(&backend.config(), "a").await.unwrap();
    let term = leading(&*first).await;
    first.commit(term, put(RecordKey::Sequence, "41")).await.unwrap();
    let second = open(&backend.config(), "b").await.unwrap();
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

async fn followers_see_what_the_leader_commits_and_all_members(backend: Backend) {
    let first = open(&backend.config(), "a").await.unwrap();
    let term = leading(&*first).await;
    let second = open(&backend.config(), "b").await.unwrap();
    let ids = |members: &[MemberState]| -> Vec<String> {
        members.iter().map(|state| state.member.id.clone()).collect()
    };
    let mut membership = second.membership();
    let read = membership.wait_for(|members| !members.is_empty()).await.unwrap().clone();
    assert!(ids(&read).contains(&"a".to_owned()), "a new member never takes itself for the only one");
    first.commit(term, put(RecordKey::Ledger, "entries")).await.unwrap();
    follows(&*second, RecordKey::Ledger, Some("entries")).await;
    eventually("both are members", || async { ids(&second.membership().borrow()) == ["a", "b"] }).await;
}

/// A suspended process: its runtime's only thread is blocked for longer than the lease.
async fn a_leader_that_was_frozen_writes_nothing_when_it_wakes_and_rejoins_as_a_follower(backend: Backend) {
    let config = backend.config();
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
    let other = open(&backend.config(), "other").await.unwrap();
    let next = leading(&*other).await;
    assert!(next > term);
    other.commit(next, put(RecordKey::State, "after")).await.unwrap();
    backend.compact().await;
    thaw.send(()).unwrap();
    let late = tokio::task::spawn_blocking(|| frozen.join().unwrap()).await.unwrap();
    assert_eq!(late.category(), "deposed", "{late}");
    assert_eq!(other.load().await.unwrap()[&RecordKey::State].as_ref(), b"after");
    other.commit(next, put(RecordKey::State, "still mine")).await.unwrap();
}

/// An idle store makes no request except renewals; the master's tests count the requests of heartbeats.
async fn a_leader_at_rest_asks_for_nothing_but_its_lease(backend: Backend) {
    let store = join(&backend.config(), membership("a")).await.unwrap();
    leading(&*store).await;
    let others =
        [Operation::Load, Operation::Commit, Operation::Publish, Operation::Campaign, Operation::Follow];
    let count = || others.map(|operation| store.metrics.operations(operation));
    // The feeds begin to watch beside the first term.
    let renewals = store.metrics.operations(Operation::Lease);
    eventually("a renewal", || async { store.metrics.operations(Operation::Lease) > renewals + 1 }).await;
    let (before, leases) = (count(), store.metrics.operations(Operation::Lease));
    eventually("five renewals", || async { store.metrics.operations(Operation::Lease) >= leases + 5 }).await;
    assert_eq!(count(), before);
    assert_eq!(store.metrics.errors("unavailable"), 0);
}

async fn two_ensembles_in_one_store_do_not_meet(backend: Backend) {
    let first = open(&backend.config(), "a").await.unwrap();
    let term = leading(&*first).await;
    first.commit(term, put(RecordKey::State, "of test")).await.unwrap();
    let mut other = membership("b");
    other.prefix = store::prefix("default", "test2");
    let second = join(&backend.config(), other).await.unwrap();
    leading(&*second).await;
    assert!(second.load().await.unwrap().is_empty());
    assert_eq!(second.membership().borrow().len(), 1);
}

async fn who_hands_over_is_followed_at_once_and_stays_a_member(backend: Backend) {
    let first = open(&backend.config(), "a").await.unwrap();
    let term = leading(&*first).await;
    first.commit(term, put(RecordKey::Sequence, "7")).await.unwrap();
    let second = open(&backend.config(), "b").await.unwrap();
    until(&*second, |now| matches!(now, Leadership::Follower { leader: Some(_) })).await;
    let asked = Instant::now();
    first.hand_over().await.unwrap();
    let next = leading(&*second).await;
    let took = asked.elapsed();
    println!("handed over to next leader: {took:?}");
    assert!(next > term && took < Duration::from_secs(1), "{took:?}");
    until(&*first, |now| matches!(now, Leadership::Follower { leader: Some(leader) } if leader.term == next))
        .await;
    assert_eq!(first.commit(term, put(RecordKey::Sequence, "8")).await.unwrap_err().category(), "deposed");
    follows(&*second, RecordKey::Sequence, Some("7")).await;
    eventually("both are members", || async { second.membership().borrow().len() == 2 }).await;
}

/// A pod that a kubelet, cut off from the API server, still runs while another node has its successor.
async fn two_processes_of_one_pod_are_two_members(backend: Backend) {
    let of_one_pod = |nonce: &str| {
        let mut membership = membership(&format!("shop-0-{nonce}"));
        membership.member.pod = "shop-0".to_owned();
        membership
    };
    let first = join(&backend.config(), of_one_pod("1")).await.unwrap();
    let term = leading(&*first).await;
    let second = join(&backend.config(), of_one_pod("2")).await.unwrap();
    until(
        &*second,
        |now| matches!(now, Leadership::Follower { leader: Some(leader) } if leader.term == term),
    )
    .await;
    for replica in [&first, &second] {
        eventually("two members", || async { replica.membership().borrow().len() == 2 }).await;
    }
    let observed = first.observe();
    second.resign().await;
    eventually("one member", || async { first.membership().borrow().len() == 1 }).await;
    assert_eq!(observed.all(), [Leadership::Leading { term }], "the other one's end costs nothing");
}
