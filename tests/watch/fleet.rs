//! A fleet in the cache.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use kubervisor::{
    adapters::kubernetes::{
        cluster::{Cluster, Origin},
        objects::{Kind, PodRecord},
    },
    decide::fleet::Traffic,
};
use serde_json::json;

use crate::{
    apply, define, fleet,
    plane::{self, User, until},
    synced, web,
};

/// The pods of `web` that its EndpointSlices list.
fn listed(cluster: &Cluster, namespace: &str) -> usize {
    let endpoints = cluster.ready_endpoints(namespace, "web");
    cluster.pods(namespace, &fleet()).iter().filter(|pod| endpoints.lists(pod)).count()
}

/// Waits until `count` pods of `web` serve, by their labels and by the EndpointSlices.
async fn serving(cluster: &Cluster, namespace: &str, count: usize) {
    until(&format!("{count} pods serve"), || async {
        let pods = cluster.pods(namespace, &fleet());
        let serving = pods.iter().filter(|pod| pod.serving()).count();
        (serving == count && listed(cluster, namespace) == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_pods_of_a_deployment_appear_with_their_owner_and_the_desired_number() {
    let plane = plane::shared().await;
    define(&plane);
    let admin = plane.client(User::Admin).await;
    let (namespace, other) = (plane.namespace(&admin, "fleet").await, plane.namespace(&admin, "other").await);
    let watched = synced(&plane, &[&namespace]).await;
    let cluster = &watched.cluster;
    apply(&plane, &other, &web(1));
    apply(&plane, &namespace, &web(3));
    serving(cluster, &namespace, 3).await;
    let pods = cluster.pods(&namespace, &fleet());
    let desired = cluster.desired(&namespace, &pods, None);
    assert_eq!((desired.count, desired.unknown, desired.owners.len()), (3, None, 1));
    assert_eq!((&*desired.owners[0].owner.kind, &*desired.owners[0].owner.name), ("Deployment", "web"));
    assert!(cluster.service(&namespace, "web").unwrap().selector.as_ref().unwrap().traffic_word().is_some());
    assert!(cluster.pods(&other, &fleet()).is_empty(), "a namespace that is not watched");

    let listed = cluster.list_pods(&namespace, &fleet()).await.unwrap();
    assert_eq!(listed.pods, cluster.pods(&namespace, &fleet()));
    assert!(listed.pods.iter().all(|pod| pod.version <= listed.version));

    // Lists are in protobuf, everything else in JSON: both decode to the same pods.
    let fields = Patch::Merge(
        json!({"metadata": {"annotations": {"kubervisor/fence": "00000000000000aa.7", "x": "y"}}}),
    );
    let stored =
        Api::<DynamicObject>::namespaced_with(admin.clone(), &namespace, &ApiResource::erase::<Pod>(&()));
    stored.patch(&pods[0].name, &PatchParams::default(), &fields).await.unwrap();
    // The finalizer keeps the deleted pod terminating.
    let held = Patch::Merge(json!({"metadata": {"finalizers": ["kubervisor.test/held"]}}));
    stored.patch(&pods[1].name, &PatchParams::default(), &held).await.unwrap();
    stored.delete(&pods[1].name, &DeleteParams::default()).await.unwrap();
    let (_, _) = until("every pod is alike in both", || async {
        let listed = cluster.list_pods(&namespace, &fleet()).await.unwrap().pods;
        let whole = stored.list(&ListParams::default().labels("app=web")).await.unwrap().items;
        let whole = whole.into_iter().map(|pod| {
            let record = serde_json::from_value::<PodRecord>(serde_json::to_value(pod).unwrap()).unwrap();
            (record.uid.clone(), record)
        });
        let whole: BTreeMap<_, _> = whole.collect();
        let marked =
            listed.iter().any(|pod| pod.fence_text.is_some()) && listed.iter().any(|pod| pod.terminating);
        (marked && listed.iter().map(|pod| (pod.uid.clone(), (**pod).clone())).eq(whole)).then_some(())
    })
    .await;

    apply(&plane, &namespace, &web(5));
    cluster.refresh_owners(&desired.owners).await.unwrap();
    assert_eq!(cluster.desired(&namespace, &pods, None).count, 5, "read, whatever the watch has shown");
    assert_eq!((cluster.suspect(&namespace), cluster.rewinds()), (None, 0));
}

#[tokio::test]
async fn a_change_is_published_and_a_pod_that_leaves_service_is_a_departure() {
    let plane = plane::shared().await;
    define(&plane);
    let admin = plane.client(User::Admin).await;
    let namespace = plane.namespace(&admin, "changes").await;
    let watched = synced(&plane, &[&namespace]).await;
    let cluster = &watched.cluster;
    apply(&plane, &namespace, &web(2));
    serving(cluster, &namespace, 2).await;
    let (mut changes, before) = (cluster.changes(), cluster.departures(&namespace));
    let chosen = cluster.pods(&namespace, &fleet())[0].clone();
    let pods = Api::<Pod>::namespaced(admin, &namespace);
    let no = Patch::Merge(json!({"metadata": {"labels": {"kubervisor/traffic": "no"}}}));
    let answer = pods.patch(&chosen.name, &PatchParams::default(), &no).await.unwrap();
    let change = loop {
        let change = changes.recv().await.unwrap();
        if change.kind == Kind::Pods && change.name == chosen.name {
            break change;
        }
    };
    assert_eq!((change.origin, &*change.namespace), (Origin::Watch, namespace.as_str()));
    assert_eq!(change.before.unwrap().traffic(), Traffic::Yes);
    assert_eq!(change.after.unwrap().traffic(), Traffic::No);
    assert_eq!(cluster.departures(&namespace), before + 1);
    until("the slice is without it", || async {
        (!cluster.ready_endpoints(&namespace, "web").lists(&chosen)).then_some(())
    })
    .await;

    pods.delete(&chosen.name, &DeleteParams::default()).await.unwrap();
    until("it is gone", || async { cluster.pod(&chosen.uid).is_none().then_some(()) }).await;
    let late = serde_json::from_value::<PodRecord>(serde_json::to_value(&answer).unwrap()).unwrap();
    cluster.merge_pod(late);
    assert!(cluster.pod(&chosen.uid).is_none(), "a late response does not restore a deleted pod");
    serving(cluster, &namespace, 2).await;
}

#[tokio::test]
async fn a_kubervisor_service_is_cached_whole() {
    let plane = plane::shared().await;
    define(&plane);
    let admin = plane.client(User::Admin).await;
    let namespace = plane.namespace(&admin, "resource").await;
    let watched = synced(&plane, &[&namespace]).await;
    let resource = "apiVersion: kubervisor.k8s.io/v1alpha1\nkind: KubervisorService\nmetadata: {name: web}\n\
                    spec: {service: web, breakers: [{name: it, keepalive: {silentAfter: 9}}]}\n";
    apply(&plane, &namespace, resource);
    let (found, _) = until("it is seen", || async { watched.cluster.resource(&namespace, "web") }).await;
    assert_eq!((found.generation, found.deleting, found.created.is_some()), (1, false, true));
    assert_eq!(found.object["spec"]["service"], "web");
    assert_eq!(watched.cluster.resources().len(), 1);
}
