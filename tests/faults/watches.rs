//! Watches that expire or deliver nothing (faults 6, 7 and 8).

use std::time::Duration;

use serde_json::json;

use crate::{
    plane::{self, User, until},
    proxy::{Fault, Matching},
    stage::Stage,
};

#[tokio::test]
async fn while_its_watches_expire_a_controller_withholds_nothing_and_relists() {
    let plane = plane::shared().await;
    let (mut stage, proxy) = Stage::proxied(&plane, "expired").await;
    let first = stage.pods[0].clone();
    stage.has_condition("Ready", &["True"]).await;
    proxy.on(Matching::verb("watch"), Fault::Expire);
    proxy.cut_watches();
    until("it is noticed", || async { (stage.controller.get("/ready").await.ok()?.0 == 503).then_some(()) })
        .await;
    stage.bad(&[&first]);
    stage.nothing_is_withheld_for(Duration::from_secs(3)).await;
    proxy.clear();
    stage.says(&first, "no").await;
    stage.controller.ready().await;
    stage.recover().await;
    stage.judged(&plane, Vec::new()).await;
}

#[tokio::test]
async fn bookmarks_alone_are_no_word_on_any_pod_and_the_floor_holds() {
    let plane = plane::shared().await;
    let (mut stage, proxy) = Stage::proxied(&plane, "bookmarks").await;
    stage.has_condition("Ready", &["True"]).await;
    let [first, second, third] = [0, 1, 2].map(|pod| stage.pods[pod].clone());
    proxy.bookmarks_only(true);
    // Two of four leave without us, and no watch says so: there is no room for a cut any more.
    for pod in [&second, &third] {
        stage
            .shop
            .patch_pod(pod, &json!({"metadata": {"labels": {"kubervisor/traffic": "no"}}}))
            .await
            .unwrap();
    }
    stage.bad(&[&first]);
    stage.nothing_is_withheld_for(Duration::from_secs(4)).await;
    for pod in [&second, &third] {
        stage
            .shop
            .patch_pod(pod, &json!({"metadata": {"labels": {"kubervisor/traffic": "yes"}}}))
            .await
            .unwrap();
    }
    proxy.clear();
    // Only a LIST finds the missed changes.
    proxy.on(Matching::verb("watch").first(8), Fault::Expire);
    proxy.cut_watches();
    stage.says(&first, "no").await;
    stage.recover().await;
    stage.judged(&plane, Vec::new()).await;
}

#[tokio::test]
async fn a_spec_that_no_watch_has_shown_yet_counts_for_what_is_reserved() {
    let plane = plane::shared().await;
    let (stage, proxy) = Stage::proxied(&plane, "unseen").await;
    stage.has_condition("Ready", &["True"]).await;
    proxy.bookmarks_only(true);
    let dry_run = async |on: bool| {
        let patch = kube::api::Patch::Merge(json!({"spec": {"dryRun": on}}));
        let resources = stage.shop.resources();
        resources.patch(&stage.shop.name, &kube::api::PatchParams::default(), &patch).await.unwrap();
    };
    dry_run(true).await;
    // The ledger's write meets the change and reads the resource anew; the plan must not rest on the spec of before.
    stage.bad(&[&stage.pods[0]]);
    stage.nothing_is_withheld_for(Duration::from_secs(4)).await;
    proxy.clear();
    proxy.on(Matching::verb("watch").first(8), Fault::Expire);
    proxy.cut_watches();
    dry_run(false).await;
    stage.says(&stage.pods[0], "no").await;
    stage.recover().await;
}

#[tokio::test]
async fn events_that_were_skipped_lead_to_the_same_end() {
    let plane = plane::shared().await;
    let (stage, proxy) = Stage::proxied(&plane, "skipped").await;
    stage.has_condition("Ready", &["True"]).await;
    proxy.bookmarks_only(true);
    let scale = |replicas: &str| {
        let arguments = ["scale", "deployment/web", "-n", &stage.namespace, "--replicas", replicas];
        assert!(plane.kubectl(User::Admin, &arguments, "").status.success());
    };
    scale("1");
    until("one is left", || async { (stage.shop.pods().await.ok()?.len() == 1).then_some(()) }).await;
    scale("6");
    until("six are there", || async { (stage.shop.endpoints().await.ok()?.len() == 6).then_some(()) }).await;
    proxy.clear();
    proxy.on(Matching::verb("watch").first(8), Fault::Expire);
    proxy.cut_watches();
    let names = stage.shop.names().await.unwrap();
    let bad = [names[0].as_str(), names[1].as_str(), names[2].as_str(), names[3].as_str()];
    stage.bad(&bad);
    // Three of six: missed changes count as well.
    until("three are withheld", || async { (stage.saying("no").await.len() == 3).then_some(()) }).await;
    stage.nothing_is_withheld_for(Duration::from_secs(1)).await;
    stage.recover().await;
}
