//! The API server away, slow, busy, put back to a backup; answers that are lost, watches that show nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use k8s_openapi::api::coordination::v1::Lease;
use kubervisor::adapters::store::{Batch, Leadership, Membership, RecordKey};

use crate::{
    fixture::{LEASE, Replica, eventually, follows, join, leading, membership, pod, put, until},
    kubernetes::Cluster,
    plane::Component,
    proxy::{Asked, Fault, Matching, Proxy, Refusal},
};

async fn through(cluster: &Cluster, proxy: &Proxy, id: &str) -> Replica {
    join(&cluster.config_of(proxy.kubeconfig()), membership(id)).await.unwrap()
}

async fn knows_the_leader(replica: &Replica) {
    until(&**replica, |now| matches!(now, Leadership::Follower { leader: Some(_) })).await;
}

/// Nothing gets through to the API server any more.
fn cut_off(proxy: &Proxy) {
    proxy.on(Matching::all(), Fault::Before(Arc::new(|| {})));
    proxy.cut_watches();
}

async fn one_of(replicas: [&Replica; 2]) -> &Replica {
    let leads = |replica: &Replica| matches!(*replica.leadership().borrow(), Leadership::Leading { .. });
    eventually("exactly one leads", || async { leads(replicas[0]) != leads(replicas[1]) }).await;
    if leads(replicas[0]) { replicas[0] } else { replicas[1] }
}

#[tokio::test]
async fn an_api_server_that_is_away_for_less_than_the_lease_costs_nothing_and_for_longer_one_leads_after_it()
{
    const LEASE: Duration = Duration::from_secs(6);
    let cluster = Cluster::alone().await;
    let with_lease = |id| Membership { lease: LEASE, ..membership(id) };
    let first = join(&cluster.config(), with_lease("a")).await.unwrap();
    let term = leading(&*first).await;
    let second = join(&cluster.config(), with_lease("b")).await.unwrap();
    knows_the_leader(&second).await;
    first.commit(term, put(RecordKey::State, "kept")).await.unwrap();

    let observed = first.observe();
    cluster.plane().freeze(Component::ApiServer);
    tokio::time::sleep(LEASE / 3).await;
    cluster.plane().thaw(Component::ApiServer);
    eventually("written again", || async {
        first.commit(term, put(RecordKey::State, "later")).await.is_ok()
    })
    .await;
    follows(&*second, RecordKey::State, Some("later")).await;
    assert_eq!(observed.all(), [Leadership::Leading { term }]);

    let frozen = Instant::now();
    cluster.plane().freeze(Component::ApiServer);
    until(&*first, |now| *now == Leadership::Unknown).await;
    println!("API server frozen to leadership unknown, lease {LEASE:?}: {:?}", frozen.elapsed());
    assert!(frozen.elapsed() < LEASE && !first.may_act(term));
    until(&*second, |now| *now == Leadership::Unknown).await;
    tokio::time::sleep(LEASE.saturating_sub(frozen.elapsed())).await;
    let refused = first.commit(term, put(RecordKey::State, "lost")).await.unwrap_err();
    assert_eq!(refused.category(), "unavailable", "{refused}");
    cluster.plane().thaw(Component::ApiServer);
    let leader = one_of([&first, &second]).await;
    let newest = leading(&**leader).await;
    assert!(newest >= term);
    leader.commit(newest, put(RecordKey::Ledger, "goes on")).await.unwrap();
    for replica in [&first, &second] {
        follows(&**replica, RecordKey::Ledger, Some("goes on")).await;
        eventually("both are members", || async { replica.membership().borrow().len() == 2 }).await;
    }

    cluster.plane().kill(Component::ApiServer);
    cluster.plane().restart(Component::ApiServer);
    let leader = one_of([&first, &second]).await;
    let newest = leading(&**leader).await;
    leader.commit(newest, put(RecordKey::Ledger, "after a restart")).await.unwrap();
    for replica in [&first, &second] {
        follows(&**replica, RecordKey::Ledger, Some("after a restart")).await;
    }
}

#[tokio::test]
async fn after_a_restore_from_a_backup_the_term_rises_and_all_that_the_backup_had_is_there() {
    let cluster = Cluster::alone().await;
    let first = join(&cluster.config(), membership("a")).await.unwrap();
    let term = leading(&*first).await;
    first.commit(term, put(RecordKey::State, "in the backup")).await.unwrap();
    first.commit(term, put(pod(1), "in the backup")).await.unwrap();
    cluster.plane().back_up();
    let second = join(&cluster.config(), membership("b")).await.unwrap();
    let leader = one_of([&first, &second]).await;
    let term = leading(&**leader).await;
    for n in 2..40 {
        leader.commit(term, put(pod(n), "later")).await.unwrap();
    }
    leader.commit(term, put(RecordKey::State, "later")).await.unwrap();
    cluster.plane().restore();
    let newer = tokio::select! {
        now = until(&*first, |now| matches!(now, Leadership::Leading { term: newer } if *newer > term)) => now,
        now = until(&*second, |now| matches!(now, Leadership::Leading { term: newer } if *newer > term)) => now,
    };
    let Leadership::Leading { term: newer } = newer else { panic!("{newer:?}") };
    let leader = one_of([&first, &second]).await;
    let records = leader.load().await.unwrap();
    assert_eq!(records[&RecordKey::State].as_ref(), b"in the backup");
    assert_eq!(records[&pod(1)].as_ref(), b"in the backup");
    assert_eq!(records.len(), 2, "what came after the backup is gone: {:?}", records.keys());
    assert_eq!(leading(&**leader).await, newer);
    leader.commit(newer, put(pod(50), "after it")).await.unwrap();
    leader.commit(newer, put(RecordKey::Ledger, "after it")).await.unwrap();
    for replica in [&first, &second] {
        follows(&**replica, RecordKey::Ledger, Some("after it")).await;
        eventually("both are members", || async { replica.membership().borrow().len() == 2 }).await;
        let old = replica.commit(term, put(pod(60), "old")).await.unwrap_err();
        assert_eq!(old.category(), "deposed");
    }
}

#[tokio::test]
async fn a_busy_api_server_that_refuses_for_less_than_the_lease_costs_no_leadership() {
    const LEASE: Duration = Duration::from_secs(6);
    let cluster = Cluster::start().await;
    let proxy = cluster.proxy();
    let with_lease = |id| Membership { lease: LEASE, ..membership(id) };
    let leader = join(&cluster.config_of(proxy.kubeconfig()), with_lease("a")).await.unwrap();
    let term = leading(&*leader).await;
    let follower = join(&cluster.config(), with_lease("b")).await.unwrap();
    knows_the_leader(&follower).await;
    let observed = [leader.observe(), follower.observe()];
    proxy.on(Matching::all(), Fault::Refuse(Refusal::too_many_requests(1)));
    proxy.cut_watches();
    let (refused, began) = (leader.metrics.errors("unavailable"), Instant::now());
    eventually("several renewals are refused", || async {
        leader.metrics.errors("unavailable") > refused + 3 && began.elapsed() > LEASE / 2
    })
    .await;
    proxy.clear();
    eventually("written again", || async { leader.commit(term, put(RecordKey::State, "x")).await.is_ok() })
        .await;
    follows(&*follower, RecordKey::State, Some("x")).await;
    assert_eq!(observed[0].all(), [Leadership::Leading { term }], "after {:?}", began.elapsed());
    assert!(!observed[1].ever_led());
}

/// Every third write is refused; both Leases are written three times in a lease.
#[tokio::test]
async fn an_api_server_that_refuses_now_and_then_costs_no_leadership() {
    let cluster = Cluster::start().await;
    let proxy = cluster.proxy();
    let leader = through(&cluster, &proxy, "a").await;
    let term = leading(&*leader).await;
    let observed = leader.observe();
    for _ in 0..6 {
        let (refused, began) = (leader.metrics.errors("unavailable"), Instant::now());
        proxy.on(Matching::writes().of("leases").nth(3), Fault::Refuse(Refusal::too_many_requests(1)));
        eventually("a renewal is refused", || async { leader.metrics.errors("unavailable") > refused }).await;
        assert!(began.elapsed() < LEASE);
    }
    assert_eq!(observed.all(), [Leadership::Leading { term }]);
}

#[tokio::test]
async fn an_answer_that_is_lost_costs_no_leadership_and_makes_no_second_leader() {
    let cluster = Cluster::start().await;
    let proxy = cluster.proxy();
    for _ in 0..2 {
        proxy.on(Matching::verb("create").of("leases").first(1), Fault::LoseAnswer);
    }
    proxy.on(Matching::verb("create").of("configmaps").first(1), Fault::LoseAnswer);
    let leader = through(&cluster, &proxy, "a").await;
    let term = leading(&*leader).await;
    let observed = leader.observe();
    for _ in 0..3 {
        let lost = leader.metrics.errors("unavailable");
        proxy.on(Matching::verb("update").of("leases").first(1), Fault::LoseAnswer);
        eventually("an answer is lost", || async { leader.metrics.errors("unavailable") > lost }).await;
    }
    proxy.on(Matching::verb("patch").of("configmaps").first(1), Fault::LoseAnswer);
    let lost = leader.commit(term, put(RecordKey::State, "1")).await.unwrap_err();
    assert_eq!(lost.category(), "unavailable");
    leader.commit(term, put(RecordKey::State, "2")).await.unwrap();
    assert_eq!(leader.load().await.unwrap()[&RecordKey::State].as_ref(), b"2");
    assert_eq!(observed.all(), [Leadership::Leading { term }]);
}

/// What it asks for is done, and it hears of nothing: it does no work, so its renewals must not keep it the leader.
#[tokio::test]
async fn a_leader_whose_answers_are_all_lost_is_followed_after_its_lease() {
    let cluster = Cluster::start().await;
    let proxy = cluster.proxy();
    let first = through(&cluster, &proxy, "a").await;
    let term = leading(&*first).await;
    let second = join(&cluster.config(), membership("b")).await.unwrap();
    knows_the_leader(&second).await;
    proxy.on(Matching::all(), Fault::LoseAnswer);
    proxy.cut_watches();
    let lost = Instant::now();
    assert!(leading(&*second).await > term);
    println!("first lost answer to next leader, lease {LEASE:?}: {:?}", lost.elapsed());
    assert!(!first.may_act(term) && lost.elapsed() < LEASE * 3, "{:?}", lost.elapsed());
}

/// Of a member alone the first Lease that it creates is its own, the second the leader's, which it renews first.
#[tokio::test]
async fn a_lease_that_is_being_written_when_its_member_stops_is_given_up_too() {
    for (verb, nth) in [("create", 1), ("create", 2), ("update", 1), ("update", 2)] {
        let cluster = Cluster::start().await;
        let proxy = cluster.proxy();
        // The watch must not tell what the answer would have told.
        proxy.bookmarks_only(true);
        proxy.on(Matching::verb(verb).of("leases").nth(nth), Fault::Hang);
        let replica = through(&cluster, &proxy, "a").await;
        let written =
            |asked: &Asked| asked.verb == verb && asked.resource == "leases" && asked.code.is_some();
        eventually("it is stored", || async {
            proxy.asked().iter().filter(|one| written(one)).count() >= nth
        })
        .await;
        replica.resign().await;
        let held = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        for (key, lease) in Cluster::stored(&cluster.leases()).await {
            assert_eq!(held(&lease).as_deref(), Some(""), "{verb} {nth}: {key}");
            assert_eq!(key, "election/leader", "{verb} {nth}");
        }
    }
}

#[tokio::test]
async fn a_leader_that_is_cut_off_stops_before_the_next_one_leads_and_writes_nothing_when_it_is_back() {
    let cluster = Cluster::start().await;
    let proxy = cluster.proxy();
    let first = through(&cluster, &proxy, "a").await;
    let term = leading(&*first).await;
    first.commit(term, put(RecordKey::State, "before")).await.unwrap();
    let second = join(&cluster.config(), membership("b")).await.unwrap();
    knows_the_leader(&second).await;
    cut_off(&proxy);
    let next = leading(&*second).await;
    assert!(!first.may_act(term), "it stopped on its own clock");
    assert!(next > term);
    second.commit(next, put(RecordKey::State, "after")).await.unwrap();
    proxy.clear();
    let late = first.commit(term, put(RecordKey::State, "late")).await.unwrap_err();
    assert_eq!(late.category(), "deposed", "{late}");
    until(&*first, |now| matches!(now, Leadership::Follower { leader: Some(leader) } if leader.term == next))
        .await;
    follows(&*first, RecordKey::State, Some("after")).await;
    assert_eq!(leading(&*second).await, next);
}

/// A connection that died without a word: nothing comes, and nothing ends.
#[tokio::test]
async fn a_watch_that_shows_nothing_is_replaced_so_that_the_death_of_the_leader_is_seen() {
    let cluster = Cluster::start().await;
    let proxy = cluster.proxy();
    let first = join(&cluster.config(), membership("a")).await.unwrap();
    let term = leading(&*first).await;
    let second = through(&cluster, &proxy, "b").await;
    knows_the_leader(&second).await;
    proxy.bookmarks_only(true);
    let observed = second.observe();
    tokio::time::sleep(LEASE * 3).await;
    assert!(!observed.ever_led(), "the leader lives: {:?}", observed.all());
    drop(first);
    let died = Instant::now();
    assert!(leading(&*second).await > term);
    println!("death to next leader behind a dead watch, lease {LEASE:?}: {:?}", died.elapsed());
    assert!(died.elapsed() < LEASE * 3, "{:?}", died.elapsed());
}

#[tokio::test]
async fn a_take_over_that_lasts_longer_than_the_lease_ends_with_one_leader() {
    let cluster = Cluster::start().await;
    let filler = join(&cluster.config(), membership("filler")).await.unwrap();
    let term = leading(&*filler).await;
    let large = Bytes::from(vec![b'x'; 200_000]);
    let pods = (0..10).map(|n| (pod(n), large.clone())).collect();
    filler.commit(term, Batch { put: pods, delete: vec![] }).await.unwrap();
    filler.resign().await;
    let proxy = cluster.proxy();
    proxy.on(Matching::verb("patch").of("configmaps"), Fault::Delay(LEASE / 2));
    let (first, second) = (through(&cluster, &proxy, "a").await, through(&cluster, &proxy, "b").await);
    let began = Instant::now();
    let leader = one_of([&first, &second]).await;
    println!("ten chunks at {:?} for each write, lease {LEASE:?}: {:?}", LEASE / 2, began.elapsed());
    assert!(began.elapsed() > LEASE && leading(&**leader).await > term);
    let observed = leader.observe();
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(observed.all().len(), 1, "{:?}", observed.all());
    assert_eq!(leader.load().await.unwrap().len(), 10);
}
