//! `-w`: again after each change, until a condition is met.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::json;

use crate::{
    fixture::{PLUGIN, conditions, err, kubervisor, out, resource, two},
    plane::{self, Plane, User},
};

fn watching(plane: &Plane, arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(PLUGIN)
        .args(arguments)
        .env("KUBECONFIG", plane.kubeconfig(User::Admin))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

fn line(of: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    of.read_line(&mut line).unwrap();
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_prints_what_has_changed_and_ends_when_its_condition_is_met() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "watch").await;
    let arguments = ["list", "api", "-n", &namespace, "-w", "--until", "Ready", "--timeout", "60s"];
    let (mut child, mut lines) = watching(&plane, &arguments);
    assert!(line(&mut lines).starts_with("NAME"));
    assert!(line(&mut lines).contains("NotReady"));
    let ready = json!({"conditions": conditions(&[("Ready", "True", "Serving")]), "floor": 3});
    resource(&plane, &namespace, "api", &ready).await;
    let changed = line(&mut lines);
    assert!(changed.starts_with("api") && changed.contains("Ready"), "only the row that changed: {changed}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_condition_that_is_met_ends_at_once_and_one_that_is_not_is_a_time_out() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "until").await;
    let watch = |what: &[&str]| kubervisor(&plane, User::Admin, &[what, &["-n", &namespace, "-w"]].concat());
    for met in [
        ["list", "web", "--until", "Ready"],
        ["tree", "web", "--until", "status=Ready"],
        ["list", "web", "--until", "{.status.serving}=5"],
    ] {
        assert!(!out(&watch(&met)).is_empty(), "{met:?}");
    }
    for format in ["table", "json", "name"] {
        let late = watch(&["list", "api", "--until", "Ready", "--timeout", "1", "-o", format]);
        assert_eq!(late.status.code(), Some(124), "{format}: {}", err(&late));
        assert!(err(&late).contains("Ready is not met after 1 s"), "{}", err(&late));
    }
    let alone = kubervisor(&plane, User::Admin, &["list", "--until", "Ready"]);
    assert_eq!(alone.status.code(), Some(2), "{}", err(&alone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_when_nobody_reads_it() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "closed").await;
    let (mut child, mut lines) = watching(&plane, &["list", "web", "-n", &namespace, "-w", "-o", "json"]);
    assert!(line(&mut lines).starts_with('{'));
    drop(lines);
    let status = json!({"conditions": conditions(&[("Ready", "True", "Serving")]), "floor": 4});
    resource(&plane, &namespace, "web", &status).await;
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
