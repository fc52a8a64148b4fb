//! `kubectl kubervisor check` beside a real controller.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::{
    plane::User,
    scene::{Scene, Stage},
    shop,
};

fn check(stage: &Stage, user: User, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-kubervisor"))
        .args(["check", "-n", &stage.namespace, "--controller", &format!("{}/controller", stage.namespace)])
        .args(arguments)
        .env("KUBECONFIG", stage.plane.kubeconfig(user))
        .output()
        .unwrap()
}

/// Code and outcome of each check that did not pass.
fn found(output: &Output) -> Vec<(String, String)> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let results =
        report["checks"].as_array().unwrap().iter().map(|c| (text(&c["code"]), text(&c["outcome"])));
    results.filter(|(_, outcome)| outcome != "passed").collect()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// The account whose rights are checked gets those of the controller's role.
fn grant(stage: &Stage) {
    let rights = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("check-{}", stage.namespace)},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "controller", "namespace": stage.namespace}],
    });
    stage.kubectl(&["apply", "-f", "-"], &rights);
}

#[tokio::test]
async fn a_healthy_installation_has_no_finding_and_a_broken_one_has_the_same_in_every_format() {
    let scene = Scene::simple("checked", 3, 50).await;
    let stage = &scene.stage;
    let without = check(stage, User::Admin, &["-o", "json"]);
    assert!(found(&without).contains(&("KV103".into(), "failed".into())), "{}", said(&without));
    grant(stage);
    let healthy = check(stage, User::Admin, &["--wait", "--timeout", "60s", "-o", "json"]);
    assert_eq!(healthy.status.code(), Some(0), "{}", said(&healthy));
    assert_eq!(found(&healthy), []);
    stage.kubectl(&["delete", "service", "web"], &Value::Null);
    scene.until_condition("Ready", "False").await;
    for format in ["table", "wide", "json", "yaml", "name", "junit", "jsonpath={.failed}"] {
        let broken = check(stage, User::Admin, &["-o", format]);
        assert_eq!(broken.status.code(), Some(3), "{format}: {}", said(&broken));
    }
    let broken = check(stage, User::Admin, &["-o", "json"]);
    let failed = |code: &str| found(&broken).contains(&(code.to_owned(), "failed".to_owned()));
    assert!(failed("KV203") && failed("KV204"), "{}", said(&broken));
    let text = said(&check(stage, User::Admin, &[]));
    assert!(
        text.contains("service/web does not exist") && text.contains("see docs/checks.md#kv203"),
        "{text}"
    );
    let junit = said(&check(stage, User::Admin, &["-o", "junit"]));
    assert!(junit.contains("<failure type=\"KV203\""), "{junit}");
    let late = check(stage, User::Admin, &["--wait", "--timeout", "1s"]);
    assert_eq!(late.status.code(), Some(124), "{}", said(&late));
}

#[tokio::test]
async fn what_earlier_resources_have_left_behind_is_found() {
    let stage = Stage::set("leftover").await;
    grant(&stage);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "old-1", "labels": {"kubervisor/name": "gone", "kubervisor/traffic": "no"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "old"},
        "spec": {"selector": {"app": "old", "kubervisor/traffic": "yes"}, "ports": [{"port": 80}]},
    });
    stage.kubectl(&["apply", "-f", "-"], &pod);
    stage.kubectl(&["apply", "-f", "-"], &service);
    // The API server sets up the definition that was just applied.
    let mut output = check(&stage, User::Admin, &[]);
    while said(&output).contains("(re)initializing") {
        output = check(&stage, User::Admin, &[]);
    }
    let text = said(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("old-1 (of kvs/gone)") && text.contains("service/old in"), "{text}");
}

#[tokio::test]
async fn a_source_that_the_controller_does_not_reach_and_a_resource_that_nobody_sees_are_found() {
    let stage = Stage::set("unseen").await;
    grant(&stage);
    let recipe = shop::Recipe::of("web", 3).breaker("slow", "127.0.0.1:1", 50);
    stage.fleet(&recipe).await;
    let codes = |output: &Output| found(output).into_iter().map(|(code, _)| code).collect::<Vec<_>>();
    let unseen = check(&stage, User::Admin, &["-o", "json"]);
    assert!(codes(&unseen).contains(&"KV201".to_owned()), "{}", said(&unseen));
    let scene = stage.play(&recipe).await;
    scene.until_condition("DataAvailable", "False").await;
    let reached = async || {
        let output = check(&scene.stage, User::Admin, &["-o", "json"]);
        found(&output).contains(&("KV206".into(), "failed".into()))
            && !codes(&output).contains(&"KV201".to_owned())
    };
    scene.until("the source is named", reached).await;
}

#[tokio::test]
async fn what_may_not_be_read_is_skipped_and_before_an_installation_rights_are_checked() {
    let stage = Stage::set("unread").await;
    let pre = check(&stage, User::Admin, &["--pre"]);
    assert_eq!(pre.status.code(), Some(0), "{}", said(&pre));
    let nobody = check(&stage, User::Nobody, &["--pre", "-o", "json"]);
    assert_eq!(nobody.status.code(), Some(3), "{}", said(&nobody));
    let found = found(&nobody);
    assert!(found.contains(&("KV002".into(), "failed".into())), "{found:?}");
    assert!(found.contains(&("KV003".into(), "skipped".into())), "{found:?}");
}
