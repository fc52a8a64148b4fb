//! What goes wrong, and what is said of it.

use std::process::{Command, Output};

use serde_json::Value;

use crate::{
    fixture::{PLUGIN, err, install, kubervisor, two},
    plane::{self, User, until},
};

fn failed(output: &Output, words: &[&str]) {
    let said = err(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(said.lines().count(), 1, "{said}");
    for words in words {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_there_is_said_with_its_namespace() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "missing").await;
    let words = format!("no KubervisorService shop in namespace {namespace}");
    failed(
        &kubervisor(&plane, User::Admin, &["-n", &namespace, "-k", "shop"]),
        &[&words, "kubectl kubervisor -A"],
    );
}

#[tokio::test]
async fn without_the_definition_the_error_shows_how_to_install_it() {
    let plane = plane::alone().await;
    install(&plane);
    let name = "crd/kubervisorservices.kubervisor.k8s.io";
    let gone = plane.kubectl(User::Admin, &["delete", name, "--wait", "--timeout=60s"], "");
    assert!(gone.status.success(), "{}", err(&gone));
    // The API server forgets the path a moment after the definition is gone.
    until("the API server has dropped the kind", || async {
        let said = kubervisor(&plane, User::Admin, &["-n", "default"]);
        (!said.status.success()).then_some(())
    })
    .await;
    let words = ["has no KubervisorServices", "kubervisor crd | kubectl apply --server-side -f -"];
    for arguments in [["-n", "default"].as_slice(), &["-A"], &["-k", "web"], &["explain", "web-1"]] {
        failed(&kubervisor(&plane, User::Admin, arguments), &words);
    }
    install(&plane);
}

#[tokio::test]
async fn a_missing_right_is_named() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "forbidden").await;
    let what = format!("you may not read kubervisorservices in namespace {namespace}");
    failed(&kubervisor(&plane, User::Nobody, &["-n", &namespace]), &[&what, "get and list"]);
    failed(&kubervisor(&plane, User::Nobody, &["-A"]), &["kubervisorservices in any namespace"]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named() {
    let plane = plane::shared().await;
    let text = std::fs::read_to_string(plane.kubeconfig(User::Admin)).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    // Nobody listens on port 1.
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1".into();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config.to_string()).unwrap();
    let said = kubervisor(&plane, User::Admin, &["--kubeconfig", file.path().to_str().unwrap()]);
    failed(&said, &["cannot reach the API server https://127.0.0.1:1", "refused", "--context"]);
}

#[test]
fn without_a_kubeconfig_the_error_shows_how_to_name_one() {
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(PLUGIN);
        command.args(arguments).env("HOME", home.path()).env_remove("KUBECONFIG");
        command.env_remove("KUBERNETES_SERVICE_HOST").output().unwrap()
    };
    failed(&run(&[]), &["no cluster to ask", "--kubeconfig"]);
    failed(&run(&["--kubeconfig", "/nowhere"]), &["no cluster to ask", "/nowhere"]);
}

#[test]
fn wrong_usage_is_another_exit_code_than_failure() {
    for arguments in [["-k", "web", "-A"].as_slice(), &["-o", "xml"], &["explain"], &["-k", "svc/web"]] {
        let said = Command::new(PLUGIN).args(arguments).output().unwrap();
        assert_eq!(said.status.code(), Some(2), "{arguments:?}: {}", err(&said));
    }
    let help = Command::new(PLUGIN).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.starts_with("Lists") && help.contains("kubectl kubervisor [OPTIONS]"), "{help}");
    assert!(help.contains("kvs") && help.contains("rdc"), "{help}");
}
