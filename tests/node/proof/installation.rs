//! From nothing to a look at a bad pod.

use std::time::Instant;

use serde_json::json;

use crate::{
    application::Application,
    cluster::{Space, client, shell, until},
    figures,
    gate::{Detector, declare},
    load::Load,
    release,
};

pub(crate) async fn an_install_is_ready_and_reports_a_bad_pod_in_a_dry_run() {
    let client = client().await;
    let space = Space::create(&client, "look").await;
    let application = Application::start(&client, space.name, 3).await;
    let load = Load::start(application.address, 100);
    let detector = Detector::start(load.answers.clone()).await;
    let bad = application.pods().await.into_keys().next().unwrap();
    application.fail(&bad).await;
    release::namespace();
    let began = Instant::now();
    let ready = release::deploy("install", &["dryRun=true"]);
    figures::number("helm install -> both replicas Ready", ready.as_secs_f64(), "s", "<= 10 s");
    declare(space.name, &detector.breaker(), &json!({}));
    until("an Event tells about the bad pod", || async {
        let told = shell("kubectl -n look get events -o jsonpath='{.items[*].reason}'");
        told.contains("WouldWithhold").then_some(())
    })
    .await;
    let told = began.elapsed();
    figures::number("helm install -> first dry-run report of a bad pod", told.as_secs_f64(), "s", "<= 60 s");
    assert!(ready.as_secs() < 30 && told.as_secs() < 60, "{ready:?} {told:?}");
    assert_eq!(application.traffic(&bad).await.as_deref(), Some("yes"), "a dry run changes no pod");
    let answers = load.end().await;
    assert!(answers.failed_by_us().is_empty(), "{:?}", answers.failed_by_us());
    release::helm(&["test", "kubervisor", "--namespace", release::NAMESPACE, "--timeout", "60s"]);
    // From now on it acts.
    application.recover(&bad).await;
    release::deploy("upgrade", &[]);
    space.delete(&client).await;
}
