//! The fault proxy's own proof, with a plain client and a real API server behind it; and that the recorder hears of
//! every revision.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use crate::{
    history::Recorder,
    plane::{self, Plane, User},
    proxy::{Fault, Matching, Proxy, Refusal},
};

/// A client that comes through the proxy and never asks twice.
async fn through(proxy: &Proxy) -> Client {
    let kubeconfig = Kubeconfig::read_from(proxy.kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

async fn maps(plane: &Plane, hint: &str) -> (Proxy, Api<ConfigMap>, Api<ConfigMap>) {
    let direct = plane.client(User::Admin).await;
    let namespace = plane.namespace(&direct, hint).await;
    let proxy = Proxy::start(&plane.kubeconfig(User::Admin));
    let through = Api::namespaced(through(&proxy).await, &namespace);
    (proxy, through, Api::namespaced(direct, &namespace))
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

#[tokio::test]
async fn requests_go_through_and_are_counted_by_verb_and_resource() {
    let plane = plane::shared().await;
    let (proxy, maps, _) = maps(&plane, "counted").await;
    maps.create(&PostParams::default(), &map("one")).await.unwrap();
    maps.get("one").await.unwrap();
    maps.list(&ListParams::default()).await.unwrap();
    maps.list(&ListParams::default().match_any()).await.unwrap();
    maps.delete("one", &DeleteParams::default()).await.unwrap();
    let count = proxy.count().to_string();
    assert_eq!(count, "1 CREATE configmaps + 1 DELETE configmaps + 1 GET configmaps + 2 LIST configmaps");
    let quorum: Vec<_> = proxy.asked().into_iter().filter(|asked| asked.is_quorum_list()).collect();
    assert_eq!((quorum.len(), quorum[0].code), (1, Some(200)));
}

#[tokio::test]
async fn a_refusal_reads_as_an_api_servers() {
    let plane = plane::shared().await;
    let (proxy, maps, _) = maps(&plane, "refused").await;
    for refusal in [
        Refusal::too_many_requests(1),
        Refusal::conflict(),
        Refusal::invalid(),
        Refusal::internal(),
        Refusal::gone(),
        Refusal::forbidden("get", "configmaps"),
    ] {
        let expected = refusal.code;
        proxy.on(Matching::verb("get").of("configmaps").first(1), Fault::Refuse(refusal));
        assert_eq!(code(&maps.get("none").await.unwrap_err()), Some(expected));
    }
    assert_eq!(code(&maps.get("none").await.unwrap_err()), Some(404), "and then the server's own");
}

#[tokio::test]
async fn the_nth_write_meets_its_hook_before_or_after_the_server() {
    let plane = plane::shared().await;
    let (proxy, maps, direct) = maps(&plane, "hooks").await;
    let hooked = Arc::new(AtomicUsize::new(0));
    let hook = || {
        let hooked = Arc::clone(&hooked);
        Arc::new(move || {
            hooked.fetch_add(1, Ordering::Relaxed);
        })
    };
    proxy.on(Matching::writes().nth(2), Fault::Before(hook()));
    proxy.on(Matching::writes().nth(3), Fault::After(hook()));
    maps.create(&PostParams::default(), &map("first")).await.unwrap();
    maps.create(&PostParams::default(), &map("before")).await.unwrap_err();
    maps.create(&PostParams::default(), &map("after")).await.unwrap_err();
    maps.create(&PostParams::default(), &map("last")).await.unwrap();
    let mut stored: Vec<_> = direct
        .list(&ListParams::default())
        .await
        .unwrap()
        .into_iter()
        .filter_map(|map| map.metadata.name)
        .collect();
    stored.retain(|name| name != "kube-root-ca.crt");
    assert_eq!(
        (hooked.load(Ordering::Relaxed), stored),
        (2, vec!["after".into(), "first".into(), "last".into()])
    );
}

#[tokio::test]
async fn an_answer_is_lost_or_never_comes_and_the_write_is_done() {
    let plane = plane::shared().await;
    let (proxy, maps, direct) = maps(&plane, "lost").await;
    proxy.on(Matching::writes().nth(1), Fault::LoseAnswer);
    proxy.on(Matching::writes().nth(2), Fault::Hang);
    proxy.on(Matching::writes().nth(3), Fault::Delay(Duration::from_millis(300)));
    maps.create(&PostParams::default(), &map("lost")).await.unwrap_err();
    let short = Duration::from_secs(2);
    let patience = tokio::time::timeout(short, maps.create(&PostParams::default(), &map("silent"))).await;
    assert!(patience.is_err(), "no answer");
    let began = std::time::Instant::now();
    maps.create(&PostParams::default(), &map("late")).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    for name in ["lost", "silent", "late"] {
        direct.get(name).await.unwrap();
    }
}

#[tokio::test]
async fn a_watch_streams_is_cut_expires_and_may_have_only_bookmarks() {
    let plane = plane::shared().await;
    let (proxy, maps, direct) = maps(&plane, "watched").await;
    let mut watch = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    direct.create(&PostParams::default(), &map("told")).await.unwrap();
    while let Some(event) = watch.try_next().await.unwrap() {
        if matches!(event, WatchEvent::Added(map) if map.metadata.name.as_deref() == Some("told")) {
            break;
        }
    }
    proxy.cut_watches();
    let end = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.expect("it ends");
    assert!(matches!(end, None | Some(Err(_))), "{end:?}");

    proxy.on(Matching::verb("watch").first(1), Fault::Expire);
    let mut watch = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let first = watch.try_next().await.unwrap();
    assert!(matches!(&first, Some(WatchEvent::Error(status)) if status.code == 410), "{first:?}");

    let version = direct.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    proxy.bookmarks_only(true);
    let mut watch = maps.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    direct.create(&PostParams::default(), &map("untold")).await.unwrap();
    let told = tokio::time::timeout(Duration::from_millis(700), watch.try_next()).await;
    assert!(told.is_err() || matches!(told, Ok(Ok(Some(WatchEvent::Bookmark(_))))), "{told:?}");
}

#[tokio::test]
async fn the_recorder_hears_of_every_revision_of_a_pod_in_order() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let mut recorder = Recorder::start(plane.etcd());
    let namespace = plane.namespace(&client, "recorded").await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    for arguments in [["apply", "-f", "-", "-n", &namespace], ["delete", "-f", "-", "-n", &namespace]] {
        let done = plane.kubectl(User::Admin, &arguments, &pod.to_string());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let history = recorder.until_now().await;
    let key = format!("/registry/pods/{namespace}/one");
    let of_pod: Vec<_> = history.iter().filter(|revision| revision.key == key).collect();
    assert!(of_pod.len() >= 3 && of_pod[0].object.is_some(), "created, bound or deleted: {of_pod:?}");
    assert!(of_pod.last().unwrap().object.is_none(), "and gone");
    assert!(history.is_sorted_by_key(|revision| (revision.number, revision.at)));
}
