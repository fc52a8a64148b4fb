//! The API server refuses, is unreachable, and is restored from a backup.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use kubervisor::adapters::kubernetes::{
    cluster::{Cluster, WatchScope},
    objects::Kind,
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    apply, define, fleet,
    plane::{self, Component, User, until},
    start, synced, web,
};

#[tokio::test]
async fn a_right_that_is_missing_is_named_by_its_verb_and_resource() {
    let plane = plane::shared().await;
    define(&plane);
    let watched = start(&plane, User::Nobody, &WatchScope::All).await;
    let (failures, _) = until("every watch was refused", || async {
        let failures = watched.cluster.synced().err()?;
        failures.iter().all(|failure| failure.message.contains("forbidden")).then_some(failures)
    })
    .await;
    assert_eq!(failures.len(), Kind::ALL.len());
    for (failure, kind) in failures.iter().zip(Kind::ALL) {
        assert_eq!((failure.verb, failure.resource), ("watch", kind.resource()));
    }
    assert!(failures[0].to_string().starts_with("cannot watch pods: "), "{}", failures[0]);
    let error = watched.cluster.list_pods("default", &fleet()).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot list pods");
    assert!(watched.cluster.suspect("default").is_some());
}

#[tokio::test]
async fn after_an_outage_the_watches_resume_and_no_change_is_lost() {
    let plane = plane::alone().await;
    define(&plane);
    let admin = plane.client(User::Admin).await;
    let namespace = plane.namespace(&admin, "away").await;
    let watched = synced(&plane, &[&namespace]).await;
    let cluster = &watched.cluster;
    apply(&plane, &namespace, &web(2));
    until("2 pods", || async { (cluster.pods(&namespace, &fleet()).len() == 2).then_some(()) }).await;
    plane.kill(Component::ApiServer);
    until("it is noticed", || async { cluster.suspect(&namespace) }).await;
    assert_eq!(cluster.pods(&namespace, &fleet()).len(), 2, "the cache keeps its pods");
    cluster.list_pods(&namespace, &fleet()).await.unwrap_err();
    plane.restart(Component::ApiServer);
    apply(&plane, &namespace, &web(3));
    until("the third pod", || async { (cluster.pods(&namespace, &fleet()).len() == 3).then_some(()) }).await;
    let (_, took) =
        until("all is well", || async { cluster.suspect(&namespace).is_none().then_some(()) }).await;
    println!("API server back, third pod seen -> every watch in order: {} ms", took.as_millis());
    assert_eq!(cluster.rewinds(), 0);
    let listed = cluster.list_pods(&namespace, &fleet()).await.unwrap();
    assert_eq!(listed.pods.len(), 3);
}

#[tokio::test]
async fn a_frozen_api_server_fails_a_list_in_time_and_the_watches_resume() {
    let plane = plane::alone().await;
    define(&plane);
    let admin = plane.client(User::Admin).await;
    let namespace = plane.namespace(&admin, "frozen").await;
    let watched = synced(&plane, &[&namespace]).await;
    plane.freeze(Component::ApiServer);
    let refused = timeout(Duration::from_secs(20), watched.cluster.list_pods(&namespace, &fleet())).await;
    plane.thaw(Component::ApiServer);
    refused.expect("the list has a timeout").expect_err("the API server is frozen");
    apply(&plane, &namespace, &web(1));
    until("the pod", || async { watched.cluster.pods(&namespace, &fleet()).pop() }).await;
}

#[tokio::test]
async fn after_a_restore_from_a_backup_everything_is_listed_again() {
    let plane = plane::alone().await;
    define(&plane);
    let admin = plane.client(User::Admin).await;
    let namespace = plane.namespace(&admin, "restored").await;
    apply(&plane, &namespace, &web(0));
    plane.back_up();
    let watched = synced(&plane, &[&namespace]).await;
    let cluster = &watched.cluster;
    let services = Api::<Service>::namespaced(plane.client(User::Admin).await, &namespace);
    for n in 0..50 {
        let patch = Patch::Merge(json!({"spec": {"selector": {"round": n.to_string()}}}));
        until("a write", || async { services.patch("web", &PatchParams::default(), &patch).await.ok() })
            .await;
    }
    let round = |cluster: &Cluster| {
        let service = cluster.service(&namespace, "web")?;
        let round = service.selector.as_ref()?.iter().find(|(key, _)| *key == "round")?.1.to_owned();
        Some(round)
    };
    until("the last write is seen", || async { (round(cluster)? == "49").then_some(()) }).await;
    assert_eq!(cluster.rewinds(), 0);

    plane.restore();
    let (_, took) = until("time ran backwards", || async { (cluster.rewinds() > 0).then_some(()) }).await;
    println!("API server restored -> noticed: {} ms", took.as_millis());
    until("all is well", || async { cluster.suspect(&namespace).is_none().then_some(()) }).await;
    assert_eq!((cluster.rewinds(), round(cluster)), (1, None), "what was never written is forgotten");
}
