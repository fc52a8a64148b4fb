//! Resources whose breakers judge keepalives: all of them belong to the replica whose master leads the ensemble.

use std::{collections::BTreeSet, process::Command};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, keepalive_ports},
    controller::Controller,
    plane::until,
    shop::Recipe,
};

/// So many that their hashes do not all name one replica.
const SERVICES: usize = 6;

/// Resources that judge keepalives, and two replicas that take them.
async fn start() -> (Cluster, [Controller; 2]) {
    let mut cluster = Cluster::start(0).await;
    for number in 0..SERVICES {
        let silent = json!({"name": "silent", "keepalive": {"silentAfter": 7}});
        let recipe = Recipe::of(&format!("web-{number}"), 1).raw_breaker(silent);
        cluster.shops.push(recipe.apply(&cluster.plane, &cluster.client, &cluster.namespace).await);
    }
    let ports = keepalive_ports();
    let replicas = [("one", ports[0]), ("two", ports[1])].map(|(pod, port)| {
        let recipe = cluster.recipe(pod).argument(format!("--keepalives={port}"));
        recipe.variable("KONTROL_TTL", "9").start()
    });
    for replica in &replicas {
        replica.ready().await;
    }
    (cluster, replicas)
}

/// The replica that works on all resources, and the other one.
async fn leader_and_other<'a>(
    cluster: &Cluster,
    [one, two]: &'a [Controller; 2],
) -> (&'a Controller, &'a Controller) {
    let leader = until("one replica works on all resources", || async {
        let work = cluster.work(&[one, two]).await;
        let (some, none) = (cluster.services(), BTreeSet::new());
        match (&work[0], &work[1]) {
            (first, second) if *first == some && *second == none => Some((one, two)),
            (first, second) if *first == none && *second == some => Some((two, one)),
            _ => None,
        }
    });
    leader.await.0
}

/// The members that `/services` of this replica names as owners of resources that it does not work on.
async fn owners_elsewhere(replica: &Controller) -> Vec<Value> {
    let page = replica.page("services").await;
    let rows = page["elsewhere"].as_array().into_iter().flatten();
    rows.map(|row| row["owner"]["member"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_names_the_leader_of_the_ensemble_as_their_owner() {
    let (cluster, replicas) = start().await;
    let (leader, other) = leader_and_other(&cluster, &replicas).await;
    until("all statuses have an owner", || async {
        (cluster.owners().await.len() == SERVICES).then_some(())
    })
    .await;
    let stored: Vec<Value> = cluster.owners().await.into_values().map(|(member, _)| json!(member)).collect();
    assert_eq!(owners_elsewhere(other).await, stored);
    assert_eq!(owners_elsewhere(leader).await, Vec::<Value>::new());
    for replica in &replicas {
        let page = replica.page("cluster").await;
        for row in page["members"].as_array().unwrap() {
            let listed = row["services"].as_array().unwrap().len();
            let all = row["id"] == stored[0];
            assert_eq!(listed, if all { SERVICES } else { 0 }, "{page}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_replica_gives_up_the_lead_of_the_ensemble_too() {
    let (cluster, replicas) = start().await;
    let (leader, other) = leader_and_other(&cluster, &replicas).await;
    let id = until("it is a member that has all resources", || async {
        let page = leader.page("cluster").await;
        let all = |row: &&Value| row["services"].as_array().is_some_and(|names| names.len() == SERVICES);
        page["members"].as_array()?.iter().find(all)?["id"].as_str().map(str::to_owned)
    });
    let id = id.await.0;
    let drained = Command::new(env!("CARGO_BIN_EXE_kubervisor"))
        .args(["cluster", "--admin-addr", &other.admin_address().to_string(), "drain", &id])
        .output()
        .unwrap();
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    until("the other one works on all resources", || async {
        (cluster.work(&[leader, other]).await == [BTreeSet::new(), cluster.services()]).then_some(())
    })
    .await;
}
