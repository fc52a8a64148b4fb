//! Wrong usage and configuration: exit codes and messages.

use std::process::Output;

use tokio::time::timeout;

use crate::fixture::{CAP, kubervisor};

async fn run(arguments: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = kubervisor(arguments);
    command.envs(env.iter().copied());
    let output: Output = timeout(CAP, command.output()).await.expect("it ends in time").unwrap();
    assert!(output.stdout.is_empty(), "stdout is for data");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

const SLAVE: &[(&str, &str)] = &[
    ("KONTROL_MODE", "slave"),
    ("KONTROL_ID", "web-1"),
    ("KONTROL_IP", "127.0.0.1"),
    ("KONTROL_LABELS", r#"{"app":"shop","role":"web"}"#),
    ("KONTROL_ANNOTATIONS", r#"{"kontrol.unity3d.com/master":"127.0.0.1:1"}"#),
];

#[tokio::test]
async fn wrong_configuration_ends_with_two_and_says_everything_at_once() {
    let (code, stderr) =
        run(&["run"], &[("KONTROL_MODE", "slave"), ("KONTROL_TTL", "soon"), ("KONTROL_IP", "::1")]).await;
    assert_eq!(code, Some(2));
    for part in [r#"KONTROL_TTL="soon""#, "IPv6 is not supported", "KONTROL_ID", "KONTROL_LABELS"] {
        assert!(stderr.contains(part), "{part} is missing in {stderr}");
    }
}

#[tokio::test]
async fn a_taken_port_ends_with_two() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, stderr) = run(&["run"], &[SLAVE, &[("KONTROL_PORT", port.as_str())]].concat()).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("KONTROL_PORT") && stderr.contains(&port), "{stderr}");
}

#[tokio::test]
async fn without_a_command_and_without_a_mode_there_is_help_and_two() {
    let (code, stderr) = run(&[], &[]).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("invoke") && stderr.contains("KONTROL_MODE"), "{stderr}");
}

#[tokio::test]
async fn with_kontrol_mode_no_command_is_needed() {
    let (code, stderr) = run(&[], &[("KONTROL_MODE", "boss")]).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains(r#"KONTROL_MODE="boss""#), "{stderr}");
}

#[tokio::test]
async fn wrong_usage_ends_with_two() {
    for arguments in [&["nonsense"][..], &["invoke"], &["invoke", "::1", "--cmd", "x"], &["run", "--no-such"]]
    {
        let (code, stderr) = run(arguments, &[]).await;
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
    }
    let (code, stderr) = run(&["invoke", "h", "--cmd", "x", "--key-file", "/nowhere/key"], &[]).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("/nowhere/key"), "{stderr}");
}

#[tokio::test]
async fn logs_can_be_json() {
    let mut env = SLAVE.to_vec();
    env.extend([("KUBERVISOR_LOG_FORMAT", "json"), ("KUBERVISOR_ENPOINTS", "/e"), ("KONTROL_PORT", "x")]);
    let (_, stderr) = run(&["run"], &env).await;
    let line: serde_json::Value = serde_json::from_str(stderr.lines().next().unwrap()).unwrap();
    assert!(line["message"].as_str().unwrap().contains("KUBERVISOR_ENPOINTS"), "{line}");
}
