//! Replicas that die, freeze and lose their Lease.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};

use crate::{
    cluster::{Cluster, LEASE},
    plane::until,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_killed_replica_is_taken_over_after_its_lease() {
    let cluster = Cluster::start(6).await;
    let [first, second] = cluster.replicas(["one", "two"]).await;
    first.kill();
    let killed = Instant::now();
    cluster.until_shared_by(&[&second]).await;
    let took = killed.elapsed();
    println!("killed, all taken over after {took:?}, lease {LEASE} s");
    assert!(took < Duration::from_secs(LEASE + 10), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_replica_is_replaced_and_writes_nothing_when_it_wakes() {
    let cluster = Cluster::start(4).await;
    let [first, second] = cluster.replicas(["one", "two"]).await;
    let lost = cluster.work(&[&first]).await.remove(0);
    first.freeze();
    cluster.until_shared_by(&[&second]).await;
    let owners = cluster.owners().await;
    first.thaw();
    // It comes back as a member, and what it gets it claims with a higher generation.
    cluster.until_shared_by(&[&first, &second]).await;
    let after = cluster.owners().await;
    for name in &lost {
        let ((_, before), (_, now)) = (&owners[name], &after[name]);
        assert!(now >= before, "{name}: {before} {now}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_that_a_person_deletes_are_written_again_and_nothing_is_worked_on_twice() {
    let cluster = Cluster::start(4).await;
    let [first, second] = cluster.replicas(["one", "two"]).await;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let all = leases.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(all.len(), 3, "one for each replica and one for the leader");
    for lease in &all {
        leases.delete(lease.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await.unwrap();
    }
    until("the Leases are there again", || async {
        (leases.list(&ListParams::default()).await.ok()?.items.len() == 3).then_some(())
    })
    .await;
    cluster.until_shared_by(&[&first, &second]).await;
}
