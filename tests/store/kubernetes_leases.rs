//! Leases that a person or another program has changed, names, and what coordination costs.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{ResourceExt, api::ListParams};
use kubervisor::adapters::store::{self, Leadership, Membership, Operation, RecordKey, Term};
use serde_json::json;

use crate::{
    fixture::{LEASE, Replica, eventually, follows, join, leading, membership, put, until},
    kubernetes::{Cluster, LEADER, ORIGINAL_KEY, copy, delete, edit},
    proxy::{Fault, Matching},
};

/// A lease long enough that nothing is renewed by chance while a test looks.
const LONG: Duration = Duration::from_secs(9);

fn with_lease(id: &str, lease: Duration) -> Membership {
    Membership { lease, ..membership(id) }
}

/// A leader and a follower.
async fn pair(cluster: &Cluster, lease: Duration) -> (Replica, Replica, Term) {
    let first = join(&cluster.config(), with_lease("a", lease)).await.unwrap();
    let term = leading(&*first).await;
    let second = join(&cluster.config(), with_lease("b", lease)).await.unwrap();
    until(&*second, |now| matches!(now, Leadership::Follower { leader: Some(_) })).await;
    (first, second, term)
}

fn spec(lease: &Lease) -> &LeaseSpec {
    lease.spec.as_ref().unwrap()
}

async fn newer(replica: &Replica, term: Term) -> Term {
    match until(&**replica, |now| matches!(now, Leadership::Leading { term: newer } if *newer > term)).await {
        Leadership::Leading { term } => term,
        other => panic!("{other:?}"),
    }
}

/// Waits until one of the two leads under a newer term.
async fn either(first: &Replica, second: &Replica, term: Term) -> Term {
    tokio::select! {
        term = newer(first, term) => term,
        term = newer(second, term) => term,
    }
}

#[tokio::test]
async fn a_lease_shows_its_holder_the_time_of_its_acquisition_and_each_change_of_holder() {
    let cluster = Cluster::start().await;
    let (first, second, _) = pair(&cluster, LEASE).await;
    let acquired = cluster.lease(LEADER).await;
    assert_eq!(spec(&acquired).holder_identity.as_deref(), Some("a"));
    assert_eq!(spec(&acquired).lease_duration_seconds, Some(2));
    for _ in 0..2 {
        let before = cluster.lease(LEADER).await;
        eventually("a renewal", || async {
            spec(&cluster.lease(LEADER).await).renew_time != spec(&before).renew_time
        })
        .await;
    }
    let renewed = cluster.lease(LEADER).await;
    assert_eq!(spec(&renewed).acquire_time, spec(&acquired).acquire_time);
    assert_eq!(spec(&renewed).lease_transitions, spec(&acquired).lease_transitions);
    first.hand_over().await.unwrap();
    leading(&*second).await;
    let next = cluster.lease(LEADER).await;
    assert_eq!(spec(&next).holder_identity.as_deref(), Some("b"));
    assert!(spec(&next).acquire_time > spec(&acquired).acquire_time);
    assert_eq!(spec(&next).lease_transitions, spec(&acquired).lease_transitions.map(|count| count + 1));
    assert_eq!(next.metadata.uid, acquired.metadata.uid, "nobody deletes the leader's Lease");
}

#[tokio::test]
async fn a_lease_that_a_person_edits_is_put_right_and_costs_no_leadership() {
    let cluster = Cluster::start().await;
    let (first, second, term) = pair(&cluster, LONG).await;
    let (led, followed) = (first.observe(), second.observe());
    let annotations = |name: &str| json!({"metadata": {"annotations": {name: null}}});
    for change in [
        json!({"spec": {"leaseDurationSeconds": 1}}),
        json!({"spec": {"renewTime": "2199-01-01T00:00:00.000000Z", "leaseDurationSeconds": 86_400}}),
        annotations("kubervisor.k8s.io/term"),
        annotations("kubervisor.k8s.io/member"),
        annotations(ORIGINAL_KEY),
        json!({"metadata": {"labels": {"kubervisor.k8s.io/role": null}}}),
    ] {
        for key in [LEADER, "members/a"] {
            let lease = cluster.lease(key).await;
            edit(&cluster.leases(), &lease, change.clone()).await;
            eventually(&format!("{key} is put right after {change}"), || async {
                let now = cluster.leases().get(&lease.name_any()).await.unwrap();
                let (was, is) = (spec(&lease), spec(&now));
                (&was.lease_duration_seconds, &was.holder_identity)
                    == (&is.lease_duration_seconds, &is.holder_identity)
                    && is.renew_time.as_ref().unwrap().0.as_second() < 4_000_000_000
                    && now.labels() == lease.labels()
                    && now.annotations() == lease.annotations()
            })
            .await;
        }
    }
    assert_eq!(led.all(), [Leadership::Leading { term }]);
    assert!(!followed.ever_led(), "{:?}", followed.all());
    first.commit(term, put(RecordKey::State, "x")).await.unwrap();
    follows(&*second, RecordKey::State, Some("x")).await;
}

#[tokio::test]
async fn a_leaders_lease_that_a_person_deletes_begins_a_new_term_and_members_register_again() {
    let cluster = Cluster::start().await;
    let (first, second, term) = pair(&cluster, LONG).await;
    first.commit(term, put(RecordKey::State, "kept")).await.unwrap();
    for key in [LEADER, "members/a", "members/b"] {
        delete(&cluster.leases(), &cluster.lease(key).await).await;
    }
    let next = either(&first, &second, term).await;
    assert_eq!(first.commit(term, put(RecordKey::State, "old")).await.unwrap_err().category(), "deposed");
    for replica in [&first, &second] {
        eventually("two members again", || async { replica.membership().borrow().len() == 2 }).await;
        follows(&**replica, RecordKey::State, Some("kept")).await;
    }
    let leads = |replica: &Replica| *replica.leadership().borrow() == Leadership::Leading { term: next };
    eventually("one leads", || async { leads(&first) != leads(&second) }).await;
    // The members may not have seen yet that their own Leases are gone.
    let stored = || async { cluster.leases().list(&ListParams::default()).await.unwrap().items.len() };
    eventually("three Leases again", || async { stored().await == 3 }).await;
}

#[tokio::test]
async fn a_lease_that_a_person_gives_to_nobody_ends_the_term_and_one_leads_next() {
    let cluster = Cluster::start().await;
    let (first, second, mut term) = pair(&cluster, LONG).await;
    for holder in [json!(null), json!("")] {
        let lease = cluster.lease(LEADER).await;
        let began = Instant::now();
        edit(&cluster.leases(), &lease, json!({"spec": {"holderIdentity": holder}})).await;
        let next = either(&first, &second, term).await;
        println!("given to nobody to next term: {:?}", began.elapsed());
        assert!(began.elapsed() < LONG / 3, "{:?}", began.elapsed());
        for replica in [&first, &second] {
            assert_eq!(
                replica.commit(term, put(RecordKey::State, "old")).await.unwrap_err().category(),
                "deposed"
            );
        }
        term = next;
    }
}

#[tokio::test]
async fn a_lease_that_a_person_gives_to_a_stranger_is_left_until_it_ends() {
    let cluster = Cluster::start().await;
    let (first, second, term) = pair(&cluster, LEASE).await;
    let lease = cluster.lease(LEADER).await;
    edit(&cluster.leases(), &lease, json!({"spec": {"holderIdentity": "somebody"}})).await;
    let began = Instant::now();
    for replica in [&first, &second] {
        until(&**replica, |now| *now == Leadership::Follower { leader: None }).await;
    }
    assert!(began.elapsed() < LEASE / 2, "{:?}", began.elapsed());
    assert!(!first.may_act(term));
    let next = either(&first, &second, term).await;
    assert!(began.elapsed() > LEASE / 2 && began.elapsed() < LEASE * 3, "{:?}", began.elapsed());
    assert!(next > term);
}

#[tokio::test]
async fn a_dead_leader_whose_lease_was_renewed_in_the_future_is_followed_after_its_lease() {
    let cluster = Cluster::start().await;
    let (first, second, term) = pair(&cluster, LEASE).await;
    first.commit(term, put(RecordKey::Sequence, "9")).await.unwrap();
    drop(first);
    let future = json!({"spec": {"renewTime": "2199-01-01T00:00:00.000000Z", "acquireTime": "2199-01-01T00:00:00.000000Z"}});
    edit(&cluster.leases(), &cluster.lease(LEADER).await, future).await;
    let began = Instant::now();
    assert!(leading(&*second).await > term);
    assert!(began.elapsed() < LEASE + Duration::from_secs(2), "{:?}", began.elapsed());
    follows(&*second, RecordKey::Sequence, Some("9")).await;
}

#[tokio::test]
async fn another_programs_lease_of_our_name_is_named_and_left_alone_until_it_is_removed() {
    let cluster = Cluster::start().await;
    let first = join(&cluster.config(), membership("a")).await.unwrap();
    let term = leading(&*first).await;
    first.resign().await;
    let ours = cluster.lease(LEADER).await;
    delete(&cluster.leases(), &ours).await;
    let mut theirs = Lease { spec: ours.spec.clone(), ..Lease::default() };
    theirs.metadata.name = Some(ours.name_any());
    theirs.spec.as_mut().unwrap().holder_identity = Some("their-pod".to_owned());
    let theirs = cluster.leases().create(&Default::default(), &theirs).await.unwrap();
    let replica = join(&cluster.config(), membership("b")).await.unwrap();
    let observed = replica.observe();
    let text = replica.complains("another program's").await;
    assert!(text.contains(&ours.name_any()) && text.contains("remove it"), "{text}");
    assert_eq!(cluster.leases().get(&ours.name_any()).await.unwrap(), theirs);
    assert!(!observed.ever_led());
    delete(&cluster.leases(), &theirs).await;
    let next = leading(&*replica).await;
    eventually("no alarm", || async { replica.complaint().is_none() }).await;
    assert!(next > term, "{next:?} after {term:?}: the records have the term");
}

#[tokio::test]
async fn leases_of_another_program_beside_ours_and_copies_of_ours_are_no_members_and_stay() {
    let cluster = Cluster::start().await;
    let (first, second, term) = pair(&cluster, LEASE).await;
    let ours = cluster.lease("members/b").await;
    let mut alien = ours.clone();
    (alien.metadata.labels, alien.metadata.annotations) = (None, None);
    let alien = copy(&cluster.leases(), &alien, "kubervisor-kontrol-default-test").await;
    let twin = copy(&cluster.leases(), &ours, "kubervisor-kontrol-default-test-copy").await;
    let leader = copy(&cluster.leases(), &cluster.lease(LEADER).await, "leader-copy").await;
    let observed = first.observe();
    first.commit(term, put(RecordKey::State, "seen")).await.unwrap();
    follows(&*second, RecordKey::State, Some("seen")).await;
    let before = spec(&cluster.lease(LEADER).await).renew_time.clone();
    eventually("a renewal", || async { spec(&cluster.lease(LEADER).await).renew_time != before }).await;
    assert_eq!(first.membership().borrow().len(), 2);
    assert_eq!(second.membership().borrow().len(), 2);
    assert_eq!(observed.all(), [Leadership::Leading { term }]);
    for one in [alien, twin, leader] {
        assert_eq!(cluster.leases().get(&one.name_any()).await.unwrap(), one);
    }
}

/// Names that an escape of `/` to `-`, a change of case, or a cut at 63 characters would merge.
#[tokio::test]
async fn no_two_names_share_an_object_and_each_key_is_read_back_from_its_lease() {
    let cluster = Cluster::start().await;
    let long = "x".repeat(300);
    let longer = format!("{long}y");
    let names = ["shop", "Shop", "a-b", "a/b", "a_b", "a--b", "a.b", "über", &long, &longer];
    let mut replicas = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let member = Membership { prefix: store::prefix("default", name), ..membership(&format!("m{n}")) };
        replicas.push((name, join(&cluster.config(), member).await.unwrap()));
    }
    for (name, replica) in &replicas {
        let term = leading(&**replica).await;
        replica.commit(term, put(RecordKey::State, name)).await.unwrap();
    }
    for (name, replica) in &replicas {
        let stored = replica.load().await.unwrap();
        assert_eq!(stored.into_iter().collect::<Vec<_>>(), put(RecordKey::State, name).put);
        assert_eq!(replica.membership().borrow().len(), 1);
    }
    let leases = cluster.leases().list(&ListParams::default()).await.unwrap().items;
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=kubervisor");
    let maps = cluster.maps().list(&ours).await.unwrap().items;
    assert_eq!((leases.len(), maps.len()), (2 * names.len(), names.len()));
    let keys: BTreeSet<&String> = leases.iter().map(|lease| &lease.annotations()[ORIGINAL_KEY]).collect();
    for (n, name) in names.iter().enumerate() {
        for rest in [LEADER.to_owned(), format!("members/m{n}")] {
            assert!(keys.contains(&format!("/kontrol/default/{name}/{rest}")), "{name} {rest}");
        }
    }
    let labels = leases.iter().flat_map(|lease| lease.labels().values());
    assert!(labels.into_iter().all(|value| value.len() <= 63));
}

/// Five replicas, six Leases: one renewal of each in a third of the lease, and nothing else.
#[tokio::test]
async fn five_replicas_make_no_more_requests_than_six_renewals_in_each_period() {
    const LEASE: Duration = Duration::from_secs(3);
    let cluster = Cluster::start().await;
    let mut replicas = Vec::new();
    for id in ["a", "b", "c", "d", "e"] {
        replicas.push(join(&cluster.config(), with_lease(id, LEASE)).await.unwrap());
    }
    for replica in &replicas {
        eventually("five members", || async { replica.membership().borrow().len() == 5 }).await;
        until(&**replica, |now| !matches!(now, Leadership::Unknown | Leadership::Follower { leader: None }))
            .await;
    }
    let all = [
        Operation::Load,
        Operation::Commit,
        Operation::Publish,
        Operation::Campaign,
        Operation::Lease,
        Operation::Follow,
    ];
    let requests = || -> u64 {
        let each = replicas.iter().map(|replica| all.map(|kind| replica.metrics.operations(kind)));
        each.map(|counts| counts.iter().sum::<u64>()).sum()
    };
    let (began, before) = (Instant::now(), requests());
    let period = LEASE / 3;
    tokio::time::sleep(period * 15).await;
    let (made, periods) = (requests() - before, began.elapsed().as_secs_f64() / period.as_secs_f64());
    let goal = 6.0 * periods * 1.1;
    println!("5 replicas, lease {LEASE:?}: {made} requests in {periods:.1} periods, goal {goal:.0}");
    #[allow(clippy::cast_precision_loss, reason = "small")]
    let made = made as f64;
    assert!(made <= goal && made > 4.0 * periods, "{made} requests in {periods} periods");
    let audited = cluster.plane().audit(&cluster.namespace);
    assert!(audited.iter().all(|event| event["responseStatus"]["code"].as_u64() < Some(500)));
}

#[tokio::test]
async fn the_lease_of_a_dead_member_is_removed_by_the_leader_alone_and_only_as_it_was_seen() {
    let cluster = Cluster::start().await;
    let (leaders, followers) = (cluster.proxy(), cluster.proxy());
    let leader = join(&cluster.config_of(leaders.kubeconfig()), membership("a")).await.unwrap();
    let term = leading(&*leader).await;
    let follower = join(&cluster.config_of(followers.kubeconfig()), membership("b")).await.unwrap();
    let dead = join(&cluster.config(), membership("c")).await.unwrap();
    let another = join(&cluster.config(), membership("d")).await.unwrap();
    for replica in [&leader, &follower] {
        eventually("four members", || async { replica.membership().borrow().len() == 4 }).await;
    }
    drop((dead, another));
    let observed = leader.observe();
    for key in ["members/c", "members/d"] {
        edit(&cluster.leases(), &cluster.lease(key).await, json!({"spec": {"leaseDurationSeconds": 1}}))
            .await;
    }
    let (c, d) = (cluster.lease("members/c").await, cluster.lease("members/d").await);
    // The member comes back while the request is on its way.
    leaders.on(
        Matching::verb("delete").of("leases").named(&c.name_any()).first(1),
        Fault::Delay(Duration::from_millis(300)),
    );
    let asked = |name: &str| {
        let deletes = leaders.asked().into_iter().filter(|asked| asked.verb == "delete");
        deletes.filter(|asked| asked.name.as_deref() == Some(name)).count()
    };
    let began = Instant::now();
    let hold = async {
        while asked(&c.name_any()) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(began.elapsed() > Duration::from_secs(10), "{:?}", began.elapsed());
        edit(
            &cluster.leases(),
            &c,
            json!({"spec": {"holderIdentity": "c"}, "metadata": {"annotations": {"back": "yes"}}}),
        )
        .await;
    };
    tokio::time::timeout(Duration::from_secs(60), hold).await.unwrap();
    eventually("the other one is removed", || async {
        cluster.leases().get_opt(&d.name_any()).await.unwrap().is_none()
    })
    .await;
    let kept = cluster.leases().get(&c.name_any()).await.unwrap();
    assert_eq!(kept.annotations()["back"], "yes");
    assert_eq!(followers.count().get("delete", "leases"), 0);
    assert_eq!(observed.all(), [Leadership::Leading { term }]);
}
