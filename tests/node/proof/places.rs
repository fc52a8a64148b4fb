//! The release under other users than its own, and without its namespace.

use std::time::Instant;

use serde_json::json;

use crate::{
    application::Application,
    cluster::{Space, client, shell},
    gate::{Detector, gate},
    load::Load,
    release,
};

pub(crate) async fn a_controller_works_as_root_as_any_user_and_with_a_root_that_can_be_written() {
    release::installed();
    let enforce = |level: &str| {
        let label = format!("pod-security.kubernetes.io/enforce={level}");
        shell(&format!("kubectl label --overwrite namespace kubervisor {label}"));
    };
    enforce("privileged");
    for values in [
        &[
            "podSecurityContext.runAsNonRoot=false",
            "podSecurityContext.runAsUser=0",
            "podSecurityContext.runAsGroup=0",
        ][..],
        &["podSecurityContext.runAsUser=12345", "podSecurityContext.runAsGroup=54321"],
        &["securityContext.readOnlyRootFilesystem=false"],
    ] {
        release::deploy("upgrade", values);
        release::helm(&["test", "kubervisor", "--namespace", release::NAMESPACE, "--timeout", "60s"]);
    }
    enforce("restricted");
    release::deploy("upgrade", &[]);
}

pub(crate) async fn a_deleted_namespace_of_the_release_moves_no_traffic_and_a_new_install_goes_on() {
    release::installed();
    let client = client().await;
    let space = Space::create(&client, "orphaned").await;
    let application = Application::start(&client, space.name, 3).await;
    let load = Load::start(application.address, 100);
    let detector = Detector::start(load.answers.clone()).await;
    gate(space.name, &detector.breaker(), &json!({"defaultActivator": {"mode": "periodic", "period": 3600}}));
    let bad = application.pods().await.into_keys().next().unwrap();
    detector.name(&[&bad]);
    application.has_traffic(&bad, "no").await;
    let withheld = load.leaves(&bad, Instant::now()).await;

    shell("kubectl delete namespace kubervisor --wait --timeout=60s");
    assert_eq!(application.traffic(&bad).await.as_deref(), Some("no"), "nobody gives it back");
    release::namespace();
    release::deploy("install", &[]);
    shell("kubectl -n orphaned wait --for=condition=Ready kvs/shop --timeout=30s");
    assert_eq!(application.traffic(&bad).await.as_deref(), Some("no"), "its time is not over");
    assert_eq!(load.so_far().since(&bad, withheld), 0, "the withheld pod got traffic");

    release::on_release("uninstall");
    load.returns(&bad, Instant::now()).await;
    let answers = load.end().await;
    assert!(answers.failed().is_empty(), "{:?}", answers.failed());
    space.delete(&client).await;
}
