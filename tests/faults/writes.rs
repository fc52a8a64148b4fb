//! Writes that are refused or never answered (faults 2, 3 and 5).

use std::time::Duration;

use crate::{
    plane,
    proxy::{Asked, Fault, Matching, Proxy, Refusal},
    stage::{Stage, withdrawals, word},
};

/// All requests but watches and Events, which no backoff delays.
fn requests(proxy: &Proxy) -> Vec<Asked> {
    proxy.asked().into_iter().filter(|asked| asked.verb != "watch" && !asked.is_event()).collect()
}

#[tokio::test]
async fn who_is_told_to_come_back_in_three_seconds_asks_nothing_for_three_seconds() {
    let plane = plane::shared().await;
    let (stage, proxy) = Stage::proxied(&plane, "busy").await;
    let first = stage.pods[0].clone();
    stage.has_condition("Ready", &["True"]).await;
    proxy.forget();
    let patch = Matching::verb("patch").of("pods").named(&first).first(1);
    proxy.on(patch, Fault::Refuse(Refusal::too_many_requests(3)));
    stage.withhold(&first).await;
    let asked = requests(&proxy);
    let refused = asked.iter().position(|asked| asked.code == Some(429)).expect("it was refused once");
    let next = &asked[refused + 1];
    let waited = next.at - asked[refused].at;
    println!("429 -> {} {}: {waited:?}", next.verb, next.resource);
    assert!(waited >= Duration::from_secs(3), "{waited:?} until {next:?}");
    stage.recover().await;
}

#[tokio::test]
async fn a_watch_that_is_told_to_come_back_in_three_seconds_waits_that_long() {
    let plane = plane::shared().await;
    let (stage, proxy) = Stage::proxied(&plane, "patient").await;
    stage.has_condition("Ready", &["True"]).await;
    proxy.forget();
    proxy.on(Matching::verb("watch").of("services").first(1), Fault::Refuse(Refusal::too_many_requests(3)));
    proxy.cut_watches();
    let watches = || {
        let all =
            proxy.asked().into_iter().filter(|asked| asked.verb == "watch" && asked.resource == "services");
        all.collect::<Vec<_>>()
    };
    plane::until("it comes back", || async { (watches().len() >= 2).then_some(()) }).await;
    let waited = watches()[1].at - watches()[0].at;
    assert!(waited >= Duration::from_secs(3), "{waited:?}");
    stage.withhold(&stage.pods[0]).await;
    stage.recover().await;
}

#[tokio::test]
async fn a_withdrawal_that_landed_unanswered_is_owned_and_never_repeated() {
    let plane = plane::shared().await;
    let (mut stage, proxy) = Stage::proxied(&plane, "unheard").await;
    let first = stage.pods[0].clone();
    stage.has_condition("Ready", &["True"]).await;
    proxy.on(Matching::verb("patch").of("pods").named(&first).first(1), Fault::Hang);
    stage.withhold(&first).await;
    assert_eq!(stage.shop.entries().await, Some(1), "its entry is there before anybody knows");
    // Longer than any request's timeout.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(stage.shop.entries().await, Some(1));
    stage.recover().await;
    let history = stage.history(&first).await;
    assert!(withdrawals(&history) >= 1);
    let fences: Vec<_> = marks(&history).collect();
    assert!(fences.windows(2).all(|pair| pair[0] != pair[1]), "one fence, one withdrawal: {fences:?}");
    stage.judged(&plane, Vec::new()).await;
}

/// The fence of each withdrawal, as it was stored with it.
fn marks(history: &[crate::checker::Revision]) -> impl Iterator<Item = String> {
    let pairs = history.windows(2).filter(|pair| {
        let says = |at: usize| word(&pair[at], "labels", "kubervisor/traffic");
        says(0) == Some("yes") && says(1) == Some("no")
    });
    pairs.map(|pair| word(&pair[1], "annotations", "kubervisor/fence").unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_withdrawal_that_never_arrived_is_cancelled_under_a_new_fence_before_another_is_tried() {
    let plane = plane::shared().await;
    let (mut stage, proxy) = Stage::proxied(&plane, "lost").await;
    let first = stage.pods[0].clone();
    stage.has_condition("Ready", &["True"]).await;
    let claimed = stage.history(&first).await;
    let claimed = word(claimed.last().unwrap(), "annotations", "kubervisor/fence").unwrap().to_owned();
    // The connection is given up on before it gets through.
    let late = Fault::Delay(Duration::from_secs(30));
    proxy.on(Matching::verb("patch").of("pods").named(&first).first(1), late);
    stage.withhold(&first).await;
    let history = stage.history(&first).await;
    let cancelled = history.iter().any(|revision| {
        word(revision, "labels", "kubervisor/traffic") == Some("yes")
            && word(revision, "annotations", "kubervisor/fence").is_some_and(|fence| fence != claimed)
            && revision.number > 0
            && word(revision, "annotations", "breaker/breakAt").is_none()
    });
    assert!(cancelled, "it was taken back first");
    assert!(!marks(&history).any(|fence| fence == claimed), "the old fence is of no use any more");
    stage.recover().await;
    stage.judged(&plane, Vec::new()).await;
}

#[tokio::test]
async fn a_pod_that_refuses_twice_is_asked_and_the_log_says_why() {
    let plane = plane::shared().await;
    let (stage, proxy) = Stage::proxied(&plane, "refusing").await;
    let first = stage.pods[0].clone();
    stage.has_condition("Ready", &["True"]).await;
    proxy.forget();
    proxy.on(Matching::verb("patch").of("pods").named(&first).first(2), Fault::Refuse(Refusal::invalid()));
    stage.withhold(&first).await;
    assert_eq!(proxy.count().get("get", "pods"), 1, "{}", proxy.count());
    let log = stage.controller.log();
    let line = log.lines().find(|line| line.contains("refused twice")).expect("a line about it");
    assert!(line.contains("the pod is as we saw it"), "{line}");
    stage.recover().await;
}

/// First the write that takes the finalizer off, by then without any mark on a pod, then one that takes marks off a pod.
#[tokio::test]
async fn a_release_that_is_refused_once_is_tried_again_within_seconds() {
    let plane = plane::shared().await;
    for (resource, refusal) in [("kubervisorservices", Refusal::conflict()), ("pods", Refusal::internal())] {
        let (stage, proxy) = Stage::proxied(&plane, "release").await;
        stage.withhold(&stage.pods[0]).await;
        let name = stage.shop.name.as_str();
        let patch = Matching::verb("patch").of(resource).first(1);
        proxy.on(patch, Fault::Refuse(refusal));
        stage.shop.resources().delete(name, &kube::api::DeleteParams::default()).await.unwrap();
        let gone = || async { stage.shop.resources().get_opt(name).await.ok()?.is_none().then_some(()) };
        let ((), took) = plane::until("it is gone", gone).await;
        println!("{resource}: {took:?}");
        assert!(took < Duration::from_secs(20), "{resource}: {took:?}");
    }
}
