//! `-o`, colours, the terminal's width, and flags under kubectl's names.

use std::process::{Command, Output};

use crate::{
    fixture::{PLUGIN, err, kubervisor, out, two},
    plane::{self, Plane, User},
};

#[tokio::test]
async fn a_jsonpath_prints_what_kubectl_prints() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "jsonpath").await;
    for template in [
        "{.items[*].metadata.name}",
        r#"{range .items[*]}{.metadata.name}{"\t"}{.status.floor}{"\n"}{end}"#,
        r#"{.items[*].status.conditions[?(@.type=="Ready")].status}"#,
        "{.items[0].nothing}",
    ] {
        let asked = format!("jsonpath={template}");
        let theirs = plane.kubectl(User::Admin, &["get", "kvs", "-n", &namespace, "-o", &asked], "");
        let ours = kubervisor(&plane, User::Admin, &["list", "-n", &namespace, "-o", &asked]);
        assert_eq!(out(&ours), out(&theirs), "{template}");
    }
    let wrong = kubervisor(&plane, User::Admin, &["-o", "jsonpath={.items"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(err(&wrong).contains("closing brace"), "{}", err(&wrong));
}

#[tokio::test]
async fn labels_select_what_is_listed() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "labels").await;
    out(&plane.kubectl(User::Admin, &["label", "kvs", "web", "team=shop", "-n", &namespace], ""));
    for (labels, expected) in [("team=shop", "web"), ("team!=shop", "api"), ("team in (shop,x)", "web")] {
        let names = out(&kubervisor(&plane, User::Admin, &["-n", &namespace, "-l", labels, "-o", "name"]));
        assert_eq!(names, format!("kubervisorservice.kubervisor.k8s.io/{expected}\n"), "{labels}");
    }
    let wrong = kubervisor(&plane, User::Admin, &["-n", &namespace, "-l", "team=("]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(err(&wrong).contains("kubervisorservices in namespace"), "{}", err(&wrong));
}

#[tokio::test]
async fn a_token_takes_the_place_of_the_kubeconfigs_user() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "token").await;
    let of = |user: User| {
        let text = std::fs::read_to_string(plane.kubeconfig(user)).unwrap();
        let config: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        config["users"][0]["user"]["token"].as_str().unwrap().to_owned()
    };
    let as_admin = kubervisor(&plane, User::Nobody, &["-n", &namespace, "--token", &of(User::Admin)]);
    assert_eq!(out(&as_admin).lines().count(), 3);
    let refused = kubervisor(&plane, User::Admin, &["-n", &namespace, "--token", "no-such-token"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("does not accept your credentials"), "{}", err(&refused));
    assert!(!err(&refused).contains("no-such-token"), "a token is no part of a message");
}

/// The plugin on a terminal of 60 columns.
fn on_terminal(plane: &Plane, arguments: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new("script");
    command
        .args(["-qec", &format!("stty cols 60; exec {PLUGIN} {arguments}"), "/dev/null"])
        .env("KUBECONFIG", plane.kubeconfig(User::Admin))
        .env("HOME", plane.directory())
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .env_remove("COLUMNS")
        .envs(environment.iter().copied());
    command.output().unwrap()
}

#[tokio::test]
async fn colours_are_for_terminals_and_follow_no_color_term_and_the_flag() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "colour").await;
    let list = format!("list -n {namespace}");
    let colored = |output: &Output| out(output).contains("\u{1b}[3");
    assert!(colored(&on_terminal(&plane, &list, &[])));
    assert!(!colored(&on_terminal(&plane, &list, &[("NO_COLOR", "1")])));
    assert!(!colored(&on_terminal(&plane, &list, &[("TERM", "dumb")])));
    assert!(!colored(&on_terminal(&plane, &format!("{list} --color never"), &[])));
    assert!(colored(&on_terminal(&plane, &format!("{list} --color always"), &[("NO_COLOR", "1")])));
    assert!(!colored(&kubervisor(&plane, User::Admin, &["list", "-n", &namespace])), "a pipe");
    assert!(colored(&kubervisor(&plane, User::Admin, &["list", "-n", &namespace, "--color", "always"])));
}

#[tokio::test]
async fn lines_end_at_the_width_of_the_terminal_and_are_whole_in_a_pipe() {
    let plane = plane::shared().await;
    let client = plane.client(User::Admin).await;
    let namespace = two(&plane, &client, "width").await;
    let wide = format!("list -n {namespace} -o wide --color never");
    let longest = |text: &str| text.lines().map(|line| line.trim_end().chars().count()).max().unwrap();
    let shown = out(&on_terminal(&plane, &wide, &[]));
    assert_eq!(longest(&shown), 60, "{shown}");
    assert!(shown.contains('…') && !shown.contains("DRYRUN"), "{shown}");
    let told = out(&on_terminal(&plane, &wide, &[("COLUMNS", "80")]));
    assert_eq!(longest(&told), 80, "{told}");
    let whole = out(&kubervisor(&plane, User::Admin, &["list", "-n", &namespace, "-o", "wide"]));
    assert!(longest(&whole) > 100 && whole.contains("DRYRUN"), "{whole}");
}
