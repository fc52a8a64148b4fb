//! Versions side by side during a rollout: what a newer schema has written is left alone, with an alarm.

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kubervisor::adapters::store::{Leadership, RecordKey, Term};
use serde_json::{Value, json};

use crate::{
    fixture::{LEASE, Replica, eventually, follows, join, leading, membership, open, put, until},
    kubernetes::{Cluster, HEAD, LEADER, SCHEMA, edit},
};

const MEMBER: &str = "kubervisor.k8s.io/member";
const TERM: &str = "kubervisor.k8s.io/term";

/// A leader of the next schema, whose Leases do not end while the test lasts.
struct NextVersion<'a> {
    cluster: &'a Cluster,
    member: Value,
}

impl<'a> NextVersion<'a> {
    /// Joins: the member's Lease is that of a process of today which has died, with a field that today's do not know.
    async fn join(cluster: &'a Cluster) -> Self {
        let today = join(&cluster.config(), membership("next")).await.unwrap();
        let lease = cluster.lease("members/next").await;
        drop(today);
        let mut member: Value = serde_json::from_str(&lease.annotations()[MEMBER]).unwrap();
        member["status"]["schema"] = json!(2);
        member["status"]["zone"] = json!("of the next version");
        let next = Self { cluster, member };
        next.write(&lease, "2", &json!({})).await;
        next
    }

    async fn write(&self, lease: &Lease, schema: &str, more: &Value) -> Lease {
        let mut annotations = json!({SCHEMA: schema, MEMBER: self.member.to_string()});
        annotations.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let change = json!({
            "metadata": {"annotations": annotations},
            "spec": {"holderIdentity": "next", "leaseDurationSeconds": 3600},
        });
        edit(&self.cluster.leases(), lease, change).await
    }

    /// Takes the lead, and writes a state and a record of its own.
    async fn lead(&self, term: Term, state: &str) {
        let term = json!({TERM: term.0.to_string()});
        self.write(&self.cluster.lease(LEADER).await, "2", &term).await;
        let mut annotations = term;
        annotations[SCHEMA] = json!("2");
        let change = json!({"metadata": {"annotations": annotations}, "data": {"state": state, "later": "of schema 2"}});
        edit(&self.cluster.maps(), &self.cluster.map(HEAD).await, change).await;
    }

    /// Writes its records as this version does, and leaves.
    async fn go_back(self) {
        let schema = json!({SCHEMA: "1"});
        let records = json!({"metadata": {"annotations": schema}, "data": {"later": null}});
        edit(&self.cluster.maps(), &self.cluster.map(HEAD).await, records).await;
        let free = json!({"metadata": {"annotations": schema}, "spec": {"holderIdentity": ""}});
        for key in [LEADER, "members/next"] {
            edit(&self.cluster.leases(), &self.cluster.lease(key).await, free.clone()).await;
        }
    }
}

async fn one_leads(replicas: [&Replica; 2]) -> (&Replica, Term) {
    tokio::select! {
        term = leading(&**replicas[0]) => (replicas[0], term),
        term = leading(&**replicas[1]) => (replicas[1], term),
    }
}

#[tokio::test]
async fn a_roll_to_the_next_schema_and_back_loses_nothing_and_this_version_changes_no_record_of_it() {
    let cluster = Cluster::start().await;
    let first = join(&cluster.config(), membership("a")).await.unwrap();
    let term = leading(&*first).await;
    let second = join(&cluster.config(), membership("b")).await.unwrap();
    first.commit(term, put(RecordKey::State, "of this version")).await.unwrap();

    let next = NextVersion::join(&cluster).await;
    for replica in [&first, &second] {
        eventually("three members", || async { replica.membership().borrow().len() == 3 }).await;
    }
    assert_eq!(leading(&*first).await, term, "a member of the next schema costs no leadership");
    next.lead(Term(term.0 + 1), "of the next version").await;
    let (lease, written) = (cluster.lease(LEADER).await, cluster.versions().await);
    let observed = [first.observe(), second.observe()];
    for replica in [&first, &second] {
        let text = replica.complains("schema 2").await;
        assert!(text.contains("update this replica"), "{text}");
        let leader = until(&**replica, |now| matches!(now, Leadership::Follower { leader: Some(_) })).await;
        let Leadership::Follower { leader: Some(leader) } = leader else { panic!("{leader:?}") };
        assert_eq!((leader.member.id.as_str(), leader.term), ("next", Term(term.0 + 1)));
        let refused = replica.set_cordoned("next", true).await.unwrap_err();
        assert!(refused.to_string().contains("schema 2"), "{refused}");
        let late = replica.commit(term, put(RecordKey::State, "late")).await.unwrap_err();
        assert_eq!(late.category(), "deposed");
    }
    second.set_cordoned("a", true).await.unwrap();
    second.set_cordoned("a", false).await.unwrap();
    tokio::time::sleep(LEASE * 2).await;
    assert!(!observed[0].ever_led() && !observed[1].ever_led());
    assert_eq!((cluster.lease(LEADER).await, cluster.versions().await), (lease, written));

    next.go_back().await;
    let (leader, newest) = one_leads([&first, &second]).await;
    assert!(newest > Term(term.0 + 1));
    assert_eq!(
        leader.load().await.unwrap(),
        put(RecordKey::State, "of the next version").put.into_iter().collect()
    );
    leader.commit(newest, put(RecordKey::Ledger, "of this version again")).await.unwrap();
    for replica in [&first, &second] {
        follows(&**replica, RecordKey::Ledger, Some("of this version again")).await;
        eventually("no alarm", || async { replica.complaint().is_none() }).await;
        eventually("two members", || async { replica.membership().borrow().len() == 2 }).await;
    }
}

#[tokio::test]
async fn records_of_a_newer_schema_are_left_alone_with_an_alarm_until_they_are_of_ours_again() {
    let cluster = Cluster::start().await;
    let store = open(&cluster.config(), "a").await.unwrap();
    let term = leading(&*store).await;
    store.commit(term, put(RecordKey::State, "of today")).await.unwrap();
    store.resign().await;
    let head = cluster.map(HEAD).await;
    let schema = |schema: &str| json!({"metadata": {"annotations": {SCHEMA: schema}}});
    edit(&cluster.maps(), &head, schema("2")).await;
    let before = cluster.versions().await;
    let (first, second) = (
        join(&cluster.config(), membership("b")).await.unwrap(),
        join(&cluster.config(), membership("c")).await.unwrap(),
    );
    let observed = [first.observe(), second.observe()];
    for replica in [&first, &second] {
        let text = replica.complains("schema 2").await;
        assert!(text.contains(&head.name_any()) && text.contains("update this replica"), "{text}");
    }
    assert_eq!(cluster.versions().await, before);
    assert!(!observed[0].ever_led() && !observed[1].ever_led());
    edit(&cluster.maps(), &head, schema("1")).await;
    for replica in [&first, &second] {
        until(&**replica, |now| {
            matches!(now, Leadership::Leading { .. } | Leadership::Follower { leader: Some(_) })
        })
        .await;
        eventually("no alarm", || async { replica.complaint().is_none() }).await;
        follows(&**replica, RecordKey::State, Some("of today")).await;
    }
}

#[tokio::test]
async fn a_leaders_lease_of_a_newer_schema_is_not_taken_over() {
    let cluster = Cluster::start().await;
    let store = open(&cluster.config(), "a").await.unwrap();
    leading(&*store).await;
    store.resign().await;
    let lease = cluster.lease(LEADER).await;
    let schema = |schema: &str| json!({"metadata": {"annotations": {SCHEMA: schema}}});
    let newer = edit(&cluster.leases(), &lease, schema("2")).await;
    let replica = join(&cluster.config(), membership("b")).await.unwrap();
    let text = replica.complains("schema 2").await;
    assert!(text.contains(&lease.name_any()), "{text}");
    assert_eq!(cluster.leases().get(&lease.name_any()).await.unwrap(), newer);
    edit(&cluster.leases(), &lease, schema("1")).await;
    leading(&*replica).await;
}
