//! Completion through a real kubectl.

use std::{
    env,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    fixture::{PLUGIN, apply, err, out, two},
    plane::{self, Plane, User},
};

/// What kubectl answers the shell's question about these words.
fn asked(plane: &Plane, words: &[&str]) -> Output {
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/kubectl-kubervisor");
    let folders = [Path::new(PLUGIN).parent().unwrap().to_owned(), shim];
    let path = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    Command::new(plane.directory().join("bin/kubectl"))
        .args(["__complete", "kubervisor"])
        .args(words)
        .env("PATH", env::join_paths(folders.into_iter().chain(path)).unwrap())
        .env("KUBECONFIG", plane.kubeconfig(User::Admin))
        .env("HOME", plane.directory())
        .output()
        .unwrap()
}

/// The candidates for the last of these words.
fn candidates(answer: &Output) -> Vec<String> {
    let lines = out(answer);
    let words = lines.lines().filter(|line| !line.starts_with(['-', ':']));
    words.map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn kubectl_completes_commands_flags_and_values_of_the_plugin() {
    let plane = plane::shared().await;
    for (words, expected) in [
        (&["expl"][..], "explain\tShows why a pod"),
        (&["tree", "--all-n"], "--all-namespaces\t"),
        (&["list", "--color", "nev"], "never"),
    ] {
        let answer = out(&asked(&plane, words));
        assert!(answer.lines().any(|line| line.starts_with(expected)), "{words:?}: {answer}");
        assert!(answer.lines().any(|line| line == ":4"), "names of files are no candidates: {answer}");
    }
}

#[tokio::test]
async fn names_of_the_cluster_complete_what_names_an_object() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "completed").await;
    for name in ["web-1", "web-2"] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [{"name": "app", "image": "app.test/app:1"}]},
        });
        apply(&plane, &namespace, &pod);
    }
    let namespace = namespace.as_str();
    for (words, expected) in [
        (&["tree", "-n", namespace, ""][..], &["api", "web"][..]),
        (&["get", "-n", namespace, "w"], &["web"]),
        (&["list", "--context", "plane", "-n", namespace, "a"], &["api"]),
        (&["-n", namespace, "pause", ""], &["api", "web"]),
        (&["-n", namespace, "-k", "w"], &["web"]),
        (&["enable", "--namespace", namespace, "we"], &["web"]),
        (&["-n", namespace, "explain", "web"], &["web-1", "web-2"]),
        (&["withhold", "-n", namespace, "--for", "10m", "web-2"], &["web-2"]),
        (&["resume", "-n", namespace, ""], &["api", "web", "pod/web-1", "pod/web-2"]),
        (&["explain", "-n", namespace], &[namespace]),
        (&["explain", "-n", "no-such-namespace", ""], &[]),
        (&["explain", "-n", namespace, "--context", "no-such-context", ""], &[]),
    ] {
        assert_eq!(candidates(&asked(&plane, words)), expected, "{words:?}");
    }
}

#[test]
fn a_server_that_does_not_answer_costs_a_second_and_no_message() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = format!("https://{}", silent.local_addr().unwrap());
    let began = Instant::now();
    let answer = Command::new(PLUGIN)
        .args(["__complete", "explain", "--server", &server, ""])
        .env("KUBECONFIG", "/dev/null")
        .output()
        .unwrap();
    let took = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert_eq!((candidates(&answer), err(&answer)), (Vec::new(), String::new()));
}

#[test]
fn each_shell_has_a_script_that_it_can_read() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = out(&Command::new(PLUGIN).args(["completion", shell]).output().unwrap());
        assert!(script.contains("kubectl-kubervisor") && script.contains("explain"), "{shell}");
        if shell == "bash" {
            let checked = Command::new("bash").args(["-n", "-c", &script]).status().unwrap();
            assert!(checked.success(), "{script}");
        }
    }
    let refused = Command::new(PLUGIN).args(["completion", "tcl"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}
