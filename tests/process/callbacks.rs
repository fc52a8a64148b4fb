//! The callback: input, answer, and failures without effect.

use std::{
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kubervisor::{
    adapters::callback::{
        CallbackError, CallbackInput, CallbackMetrics, CallbackOutcome, CallbackRunner, Warning,
    },
    config::{CallbackConfig, CommandLine, RunAs},
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{alive, eventually};

fn input(pods: &str, state: Option<&str>) -> CallbackInput {
    CallbackInput {
        pods: Bytes::copy_from_slice(pods.as_bytes()),
        digest: "12:34:ab".into(),
        state: state.map(|state| Bytes::copy_from_slice(state.as_bytes())),
        fleet: Bytes::from_static(br#"{"pods":[]}"#),
    }
}

fn runner(command: CommandLine) -> CallbackRunner {
    let config = CallbackConfig { command, timeout: Duration::from_secs(20), user: RunAs::Ourselves };
    CallbackRunner::new(config, Vec::new(), CallbackMetrics::register(&mut Registry::default()))
}

async fn run(command: CommandLine, input: CallbackInput) -> CallbackOutcome {
    runner(command).run(input, CancellationToken::new()).await
}

async fn shell(line: &str, input: CallbackInput) -> CallbackOutcome {
    run(CommandLine::Shell(line.into()), input).await
}

async fn python(program: &str, input: CallbackInput) -> CallbackOutcome {
    run(CommandLine::Words(vec!["python3".into(), "-c".into(), program.into()]), input).await
}

fn state(outcome: CallbackOutcome) -> Value {
    serde_json::from_slice(&outcome.result.unwrap().state.unwrap()).unwrap()
}

/// A callback that prints its whole input.
const ECHO: &str = r#"
import json, os, sys
read = lambda name: open(os.environ[name]).read() if name in os.environ else None
names = ["PODS", "HASH", "MD5", "STATE", "PODS_TRUNCATED", "STATE_TRUNCATED"]
told = {name: os.environ.get(name) for name in names}
told.update(stdin=sys.stdin.read(), pods=read("PODS_FILE"), state=read("STATE_FILE"), fleet=read("FLEET_FILE"))
told["directory"] = os.path.dirname(os.environ["PODS_FILE"])
print(json.dumps({k: len(v) if v and len(v) > 1000 else v for k, v in told.items()}))
"#;

#[tokio::test]
async fn every_input_of_a_callback_has_the_same_data_and_the_files_are_removed() {
    let pods = r#"[{"id":"web-1","seq":0}]"#;
    let told = state(python(ECHO, input(pods, Some("{\"n\":1}"))).await);
    for way in ["PODS", "stdin", "pods"] {
        assert_eq!(told[way], pods, "{way}");
    }
    for way in ["STATE", "state"] {
        assert_eq!(told[way], "{\"n\":1}", "{way}");
    }
    assert_eq!((&told["HASH"], &told["MD5"]), (&json!("12:34:ab"), &json!("12:34:ab")));
    assert_eq!(told["fleet"], r#"{"pods":[]}"#);
    assert_eq!((&told["PODS_TRUNCATED"], &told["STATE_TRUNCATED"]), (&Value::Null, &Value::Null));
    assert!(!fs::exists(told["directory"].as_str().unwrap()).unwrap());
}

#[tokio::test]
async fn a_thousand_pods_come_in_the_file_and_on_stdin_and_the_variable_is_truncated() {
    let pod = |i| {
        json!({"app": "web", "id": format!("web-{i}"), "ip": "10.0.0.1", "key": "aaaaa0", "nonce": "0123456789abcdef",
        "payload": {"rps": 12.5, "errors": 0.001}, "role": "web", "seq": i})
    };
    let pods = Value::Array((0..1000).map(pod).collect()).to_string();
    assert!(pods.len() > 128 << 10);
    let large = format!("\"{}\"", "s".repeat(900_000));
    let told = state(python(ECHO, input(&pods, Some(&large))).await);
    assert_eq!((&told["PODS"], &told["PODS_TRUNCATED"]), (&Value::Null, &json!("1")));
    assert_eq!((&told["STATE"], &told["STATE_TRUNCATED"]), (&Value::Null, &json!("1")));
    assert_eq!((&told["stdin"], &told["pods"]), (&json!(pods.len()), &json!(pods.len())));
    assert_eq!(told["state"], large.len());
}

#[test]
fn inherited_variables_of_our_names_do_not_reach_the_callback() {
    let variables = ["MD5", "HASH", "PODS", "STATE", "PODS_TRUNCATED", "STATE_TRUNCATED", "STATE_FILE"];
    if std::env::var_os("STATE_FILE").is_none() {
        let name = "callbacks::inherited_variables_of_our_names_do_not_reach_the_callback";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", name]).envs(variables.map(|variable| (variable, "stale")));
        let output = again.env("KONTROL_OWN", "kept").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let told = state(python(ECHO, input("[]", None)).await);
        assert_eq!(
            (&told["PODS"], &told["MD5"], &told["HASH"]),
            (&json!("[]"), &json!("12:34:ab"), &json!("12:34:ab"))
        );
        for name in ["STATE", "STATE_TRUNCATED", "PODS_TRUNCATED", "state"] {
            assert_eq!(told[name], Value::Null, "{name}");
        }
        assert_eq!(state(shell("echo \\\"$KONTROL_OWN\\\"", input("[]", None)).await), "kept");
    });
}

#[test]
fn a_large_environment_drops_the_variables_and_the_run_succeeds() {
    let name = "callbacks::a_large_environment_drops_the_variables_and_the_run_succeeds";
    if std::env::var_os("CROWD_0").is_none() {
        // 1.9 MiB of the 2 MiB that a stack of 8 MiB allows.
        let crowd = (0..19).map(|i| (format!("CROWD_{i}"), "x".repeat(100 << 10)));
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let output = again.args(["--exact", name]).envs(crowd).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let text = format!("\"{}\"", "p".repeat(120_000));
        let told = state(python(ECHO, input(&text, Some(&text))).await);
        assert_eq!(told["stdin"], text.len());
        assert_eq!(told["STATE_TRUNCATED"], "1", "{told}");
    });
}

#[tokio::test]
async fn every_failure_has_its_category_and_the_next_run_succeeds() {
    let cases = [
        ("exit 3", "exit_code"),
        ("echo '{}'; exit 1", "exit_code"),
        ("kill -9 $$", "signal"),
        ("echo hello", "invalid_json"),
        ("echo '{} {}'", "invalid_json"),
        ("yes | head -c 17M", "state_too_large"),
        (
            "printf '\"'; yes | head -c 1048576 | tr -d '\\n'; yes | head -c 1048576 | tr -d '\\n'; printf '\"'",
            "state_too_large",
        ),
        ("no-such-command-here", "exit_code"),
    ];
    for (line, category) in cases {
        let error = shell(line, input("[]", Some("1"))).await.result.unwrap_err();
        assert_eq!(error.category(), category, "{line}: {error}");
    }
    let gone = CommandLine::Words(vec!["/no/such/callback".into()]);
    assert_eq!(run(gone, input("[]", None)).await.result.unwrap_err().category(), "not_found");
    let user = CallbackConfig {
        command: CommandLine::Shell("true".into()),
        timeout: Duration::from_secs(1),
        user: RunAs::User("no-such-user-here".into()),
    };
    let nobody = CallbackRunner::new(user, Vec::new(), CallbackMetrics::register(&mut Registry::default()));
    let outcome = nobody.run(input("[]", None), CancellationToken::new()).await;
    assert_eq!(outcome.result.unwrap_err().category(), "user");
    assert_eq!(state(shell("echo 7", input("[]", None)).await), 7);
}

#[tokio::test]
async fn the_last_line_of_stderr_is_in_the_error() {
    let outcome = python("import os; os.environ['NOT_THERE']", input("[]", None)).await;
    let error = outcome.result.unwrap_err();
    assert!(matches!(&error, CallbackError::ExitCode(1, complaint) if complaint == "KeyError: 'NOT_THERE'"));
    assert!(error.to_string().ends_with("KeyError: 'NOT_THERE'"));
}

#[tokio::test]
async fn a_callback_that_hangs_is_killed_with_a_typed_error() {
    let config = CallbackConfig {
        command: CommandLine::Shell("echo '{}'; setsid sleep 1000".into()),
        timeout: Duration::from_millis(200),
        user: RunAs::Ourselves,
    };
    let runner = CallbackRunner::new(config, Vec::new(), CallbackMetrics::register(&mut Registry::default()));
    let begun = Instant::now();
    let outcome = runner.run(input("[]", None), CancellationToken::new()).await;
    assert!(matches!(outcome.result, Err(CallbackError::TimedOut { .. })), "half an answer is none");
    assert!(outcome.duration >= Duration::from_millis(200) && begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn when_the_lead_is_lost_the_callback_is_cancelled_and_its_answer_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let line = format!(
        "trap 'echo \"{{\\\"traffic\\\": []}}\"; exit 0' TERM; echo $$ > {0}.tmp; mv {0}.tmp {0}; while :; do sleep 0.01; done",
        file.display()
    );
    let cancel = CancellationToken::new();
    let runner = runner(CommandLine::Shell(line));
    let token = cancel.clone();
    let running = tokio::spawn(async move { runner.run(input("[]", None), token).await });
    eventually("it runs", || file.exists()).await;
    cancel.cancel();
    assert!(matches!(running.await.unwrap().result, Err(CallbackError::Cancelled)));
    assert!(!alive(fs::read_to_string(&file).unwrap().trim().parse().unwrap()));
}

#[tokio::test]
async fn an_answer_with_verdicts_is_handed_over_and_all_of_it_is_the_next_state() {
    let program = r#"
import json, os
state = json.loads(os.environ.get("STATE", "{}"))
print(json.dumps({"runs": state.get("runs", 0) + 1, "again": 2, "traffic": [{"id": "a", "verdict": "withhold"}]}))
"#;
    let first = python(program, input("[]", None)).await.result.unwrap();
    assert_eq!(first.again, Some(Duration::from_secs(2)));
    assert_eq!(first.traffic, Some(json!([{"id": "a", "verdict": "withhold"}])));
    let kept = first.state.unwrap();
    let second = python(program, CallbackInput { state: Some(kept), ..input("[]", None) }).await;
    assert_eq!(
        state(second),
        json!({"runs": 2, "again": 2, "traffic": [{"id": "a", "verdict": "withhold"}]})
    );
}

#[tokio::test]
async fn bytes_that_are_no_utf8_are_replaced_and_flagged() {
    let outcome = shell(r#"printf '{"a": "\377"}'"#, input("[]", None)).await;
    assert_eq!(outcome.warnings, [Warning::BadUtf8]);
    assert_eq!(state(outcome), json!({"a": "\u{fffd}"}));
}

#[tokio::test]
async fn a_callback_that_prints_nothing_or_leaves_daemons_succeeds() {
    let outcome = shell("(setsid sleep 1000 &); cat > /dev/null", input("[]", Some("1"))).await;
    assert_eq!(outcome.result.unwrap().state, None);
}

#[tokio::test]
async fn runs_are_counted_by_how_they_ended() {
    let mut registry = Registry::with_prefix("kubervisor");
    let metrics = CallbackMetrics::register(&mut registry);
    for line in ["echo 12345", "echo '{\"again\": []}'", "exit 1"] {
        let config = CallbackConfig {
            command: CommandLine::Shell(line.into()),
            timeout: Duration::from_secs(9),
            user: RunAs::Ourselves,
        };
        let runner = CallbackRunner::new(config, Vec::new(), metrics.clone());
        let _ = runner.run(input("[]", None), CancellationToken::new()).await;
    }
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for line in [
        "kubervisor_callback_runs_total{outcome=\"success\"} 2",
        "kubervisor_callback_runs_total{outcome=\"exit_code\"} 1",
        "kubervisor_callback_warnings_total{kind=\"bad_again\"} 1",
        "kubervisor_callback_duration_seconds_count 3",
        "kubervisor_callback_state_bytes 13",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_read_only_temporary_directory_is_no_reason_to_fail() {
    let name = "callbacks::a_read_only_temporary_directory_is_no_reason_to_fail";
    if std::env::var_os("TMPDIR").is_none_or(|dir| dir != "/proc") {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let output = again.args(["--exact", name]).env("TMPDIR", "/proc").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = runtime.block_on(async { state(python(ECHO, input("[]", None)).await) });
    assert!(told["directory"].as_str().unwrap().starts_with("/dev/shm/"));
}
