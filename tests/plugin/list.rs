//! What it lists, in each form.

use serde_json::{Value, json};

use crate::{
    fixture::{err, kubervisor, out, two},
    plane::{self, User},
};

/// The fields of each line: two spaces or more stand between columns.
fn rows(table: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        line.split("  ").filter(|cell| !cell.trim().is_empty()).map(|c| c.trim().to_owned()).collect()
    };
    table.lines().map(cells).collect()
}

#[tokio::test]
async fn all_of_a_namespace_are_listed_in_the_columns_of_the_original() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "list").await;
    let table = out(&kubervisor(&plane, User::Admin, &["-n", &namespace]));
    assert_eq!(
        rows(&table),
        [
            vec!["NAME", "NAMESPACE", "STATUS", "MANAGED", "BREAKED", "PAUSED", "SERVING"],
            vec!["api", &namespace, "NotReady: ServiceNotAvailable", "<none>", "<none>", "<none>", "<none>"],
            vec!["web", &namespace, "Ready", "8", "2", "1", "5"],
        ]
    );
    assert!(!table.contains('\u{1b}') && !table.contains('|'), "plain columns: {table}");
    let wide = rows(&out(&kubervisor(&plane, User::Admin, &["-n", &namespace, "-o", "wide"])));
    assert_eq!(wide[0][7..], ["UNKNOWN", "FLOOR", "SERVICE", "GATING", "DATA", "PANIC", "DRYRUN", "AGE"]);
    assert_eq!(wide[2][7..14], ["0", "5", "front", "True", "True", "False", "False"]);
    assert!(wide[2][14].ends_with('s'), "{wide:?}");
}

#[tokio::test]
async fn one_is_shown_by_any_of_its_names() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "one").await;
    for name in [["-k", "web"], ["-k", "kvs/web"], ["--kubervisorservice", "rdc/web"]] {
        let table = rows(&out(&kubervisor(&plane, User::Admin, &[name[0], name[1], "-n", &namespace])));
        assert_eq!(table.len(), 2, "{table:?}");
        assert_eq!(table[1][..3], ["web", &namespace, "Ready"]);
    }
}

#[tokio::test]
async fn json_and_yaml_are_what_the_server_has() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "forms").await;
    let n = namespace.as_str();
    let list: Value =
        serde_json::from_str(&out(&kubervisor(&plane, User::Admin, &["-n", n, "-o", "json"]))).unwrap();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("List"), &json!("v1")));
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let theirs = out(&plane.kubectl(User::Admin, &["get", "kvs/web", "-n", n, "-o", "json"], ""));
    let theirs: Value = serde_json::from_str(&theirs).unwrap();
    assert_eq!(list["items"][1], theirs, "as kubectl shows it");
    let one = out(&kubervisor(&plane, User::Admin, &["-n", n, "-k", "web", "-o", "yaml"]));
    assert_eq!(serde_saphyr::from_str::<Value>(&one).unwrap(), theirs);
    // What it writes is a manifest that kubectl takes.
    out(&plane.kubectl(User::Admin, &["apply", "--dry-run=server", "-n", n, "-f", "-"], &one));
}

#[tokio::test]
async fn names_are_for_another_kubectl() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "names").await;
    let names = out(&kubervisor(&plane, User::Admin, &["-n", &namespace, "-o", "name"]));
    assert_eq!(names, "kubervisorservice.kubervisor.k8s.io/api\nkubervisorservice.kubervisor.k8s.io/web\n");
    for name in names.lines() {
        out(&plane.kubectl(User::Admin, &["get", name, "-n", &namespace], ""));
        out(&kubervisor(&plane, User::Admin, &["-k", name, "-n", &namespace]));
    }
}

#[tokio::test]
async fn all_namespaces_are_listed_when_asked_for() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let (one, other) = (two(&plane, &client, "here").await, two(&plane, &client, "there").await);
    let table = out(&kubervisor(&plane, User::Admin, &["-A"]));
    let listed = rows(&table);
    for namespace in [&one, &other] {
        assert_eq!(listed.iter().filter(|row| &row[1] == namespace).count(), 2, "{table}");
    }
}

#[tokio::test]
async fn an_empty_namespace_is_said_on_stderr_and_is_no_failure() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    two(&plane, &client, "full").await;
    let namespace = plane.namespace(&client, "empty").await;
    let said = kubervisor(&plane, User::Admin, &["-n", &namespace]);
    assert_eq!(
        (out(&said), err(&said)),
        (String::new(), format!("No KubervisorServices in namespace {namespace}\n"))
    );
    let json = kubervisor(&plane, User::Admin, &["-n", &namespace, "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&out(&json)).unwrap()["items"], json!([]));
    assert_eq!(err(&json), "");
}

#[tokio::test]
async fn the_namespace_is_that_of_the_context_and_the_kubeconfig_may_be_named() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "context").await;
    let text = std::fs::read_to_string(plane.kubeconfig(User::Admin)).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    let mut context = config["contexts"][0].clone();
    context["name"] = json!("mine");
    context["context"]["namespace"] = json!(namespace);
    config["contexts"].as_array_mut().unwrap().push(context);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config.to_string()).unwrap();
    let kubeconfig = file.path().to_str().unwrap();
    let there = ["--kubeconfig", kubeconfig, "--context", "mine"];
    let table = out(&kubervisor(&plane, User::Nobody, &there));
    assert_eq!(rows(&table).len(), 3, "{table}");
    let elsewhere = kubervisor(&plane, User::Nobody, &["--kubeconfig", kubeconfig, "--context", "none"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(err(&elsewhere).contains("--context"), "{}", err(&elsewhere));
}
