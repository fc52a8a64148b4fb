//! The examples, run as a master runs them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test may fail loudly"
)]

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use kubervisor::{
    adapters::callback::{CallbackAnswer, CallbackInput, CallbackMetrics, CallbackRunner},
    config::{CallbackConfig, CommandLine, RunAs},
    decide::{
        digest::Digest,
        verdict::{Call, Opinion, VerdictTarget, parse_traffic},
    },
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// A pod as it stands in PODS: members sorted, no spaces.
fn pod(id: &str, seq: u64, payload: Value) -> Value {
    json!({"app": "shop", "id": id, "ip": format!("10.0.0.{seq}"), "key": format!("key{seq}"), "nonce": "00",
        "payload": payload, "role": "web", "seq": seq})
}

fn pods(ids: &[&str]) -> Value {
    ids.iter().zip(0..).map(|(id, seq)| pod(id, seq, json!(""))).collect()
}

/// One example with its state, run by run.
struct Stage {
    runner: CallbackRunner,
    state: Option<Bytes>,
}

impl Stage {
    fn new(name: &str, environment: &[(&str, OsString)]) -> Self {
        let config = CallbackConfig {
            command: CommandLine::Words(vec![example(name).display().to_string()]),
            timeout: Duration::from_secs(20),
            user: RunAs::Ourselves,
        };
        let environment = environment.iter().map(|(name, value)| (name.into(), value.clone())).collect();
        Self {
            runner: CallbackRunner::new(
                config,
                environment,
                CallbackMetrics::register(&mut prometheus_client::registry::Registry::default()),
            ),
            state: None,
        }
    }

    async fn run(&mut self, pods: &Value) -> CallbackAnswer {
        let pods = Bytes::from(pods.to_string());
        let input = CallbackInput {
            digest: Digest::of(&pods).to_string(),
            pods,
            state: self.state.clone(),
            fleet: Bytes::from_static(b"[]"),
        };
        let outcome = self.runner.run(input, CancellationToken::new()).await;
        assert!(outcome.warnings.is_empty(), "{:?}", outcome.warnings);
        let answer = outcome.result.unwrap();
        self.state.clone_from(&answer.state);
        answer
    }

    fn state(&self) -> Value {
        serde_json::from_slice(self.state.as_ref().unwrap()).unwrap()
    }
}

/// A program in a directory of its own that notes its arguments, a line per call, and ends with `code`.
fn recorder(dir: &Path, name: &str, code: u8) -> (PathBuf, PathBuf) {
    let (program, record) = (dir.join(name), dir.join("record"));
    fs::write(&program, format!("#!/bin/sh\necho \"$@\" >> '{}'\nexit {code}\n", record.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (program, record)
}

fn recorded(record: &Path) -> Vec<String> {
    fs::read_to_string(record).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_alert_names_who_came_and_who_went_once() {
    let dir = tempfile::tempdir().unwrap();
    let (alert, record) = recorder(dir.path(), "alert", 0);
    let mut stage = Stage::new("alert.sh", &[("ALERT", alert.into())]);
    stage.run(&pods(&["web-1", "web-2"])).await;
    assert_eq!(stage.state(), json!(["web-1", "web-2"]));
    assert!(recorded(&record).is_empty(), "there was nothing to compare with");
    stage.run(&pods(&["web-1", "web-2"])).await;
    stage.run(&pods(&["web-2", "web-3"])).await;
    assert_eq!(recorded(&record), ["web-3 is here", "web-1 is gone"]);
    stage.run(&json!([])).await;
    assert_eq!(recorded(&record)[2..], ["web-2 is gone", "web-3 is gone"]);
    assert_eq!(stage.state(), json!([]));
    stage.run(&pods(&["web-9"])).await;
    assert_eq!(recorded(&record)[4..], ["web-9 is here"]);
}

#[tokio::test]
async fn ids_are_stable_and_a_lost_one_goes_to_the_successor() {
    let mut stage = Stage::new("stable_ids.py", &[]);
    stage.run(&pods(&["a", "b", "c"])).await;
    assert_eq!(stage.state(), json!({"web": {"0": "a", "1": "b", "2": "c"}}));
    stage.run(&pods(&["a", "c"])).await;
    assert_eq!(stage.state(), json!({"web": {"0": "a", "2": "c"}}));
    stage.run(&pods(&["a", "c", "d", "e"])).await;
    assert_eq!(stage.state(), json!({"web": {"0": "a", "1": "d", "2": "c", "3": "e"}}));
    stage.run(&json!([])).await;
    assert_eq!(stage.state(), json!({}));
}

#[tokio::test]
async fn an_ill_pod_is_healed_once_in_a_while_and_a_healthy_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let (program, record) = recorder(dir.path(), "kubervisor", 0);
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut stage = Stage::new("self_heal.py", &[("PATH", path.into()), ("HEAL", "restart it".into())]);
    let fleet = json!([
        pod("a", 1, json!({"state": "up"})),
        pod("b", 2, json!({"state": "down"})),
        pod("c", 3, json!("down"))
    ]);
    let answer = stage.run(&fleet).await;
    assert_eq!(recorded(&record), ["invoke 10.0.0.2 --id b --timeout 10 --cmd restart it"]);
    assert_eq!(answer.again, Some(Duration::from_secs(60)));
    stage.run(&fleet).await;
    assert_eq!(recorded(&record).len(), 1, "it is given time to recover");
    let mut state = stage.state();
    state["tried"]["b"] = json!(state["tried"]["b"].as_f64().unwrap() - 61.0);
    stage.state = Some(state.to_string().into());
    stage.run(&fleet).await;
    assert_eq!(recorded(&record).len(), 2);
    let answer = stage.run(&json!([pod("b", 2, json!({"state": "up"}))])).await;
    assert_eq!((stage.state(), answer.again), (json!({"tried": {}}), None));
}

#[tokio::test]
async fn verdicts_name_the_pods_with_too_many_errors_as_the_gate_reads_them() {
    let mut stage = Stage::new("verdicts.py", &[("MAX_ERRORS", "0.1".into())]);
    let errors = |share: f64| json!({"errors": share});
    let fleet = json!([
        pod("a", 1, errors(0.01)),
        pod("b", 2, errors(0.5)),
        pod("c", 3, json!("")),
        pod("d", 4, json!([1]))
    ]);
    let answer = stage.run(&fleet).await;
    let (verdicts, warnings) = parse_traffic(&answer.traffic.unwrap());
    assert!(warnings.is_empty());
    assert_eq!(verdicts.len(), 1);
    assert_eq!(verdicts[0].who, VerdictTarget::Id("b".into()));
    let Opinion::Called { call, reason, severity, .. } = &verdicts[0].opinion else {
        panic!("a callback calls")
    };
    assert_eq!(
        (*call, reason.as_str(), *severity),
        (Call::Withhold, "50.0% errors, at most 10.0% are fine", 0.5)
    );
    let calm = stage.run(&json!([pod("a", 1, errors(0.01))])).await;
    assert_eq!(calm.traffic, Some(json!([])), "no verdict is an answer too: it takes back the earlier ones");
}

/// Reads the payload until it says `state`; every reading must be valid JSON.
fn wait_for_state(path: &Path, state: &str) {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(20), "never {state}");
        let Ok(text) = fs::read(path) else { continue };
        let payload: Value = serde_json::from_slice(&text).unwrap();
        if payload["state"] == state {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn the_state_machine_publishes_each_state_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (payload, flag) = (dir.path().join("payload.json"), dir.path().join("fine"));
    let mut machine = Command::new(example("state_machine.py"))
        .arg(&payload)
        .args(["--", "test", "-e"])
        .arg(&flag)
        .envs([("INTERVAL", "0.02"), ("FAILURES", "5")])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_state(&payload, "starting");
    fs::write(&flag, "").unwrap();
    wait_for_state(&payload, "up");
    fs::remove_file(&flag).unwrap();
    wait_for_state(&payload, "failing");
    wait_for_state(&payload, "down");
    fs::write(&flag, "").unwrap();
    wait_for_state(&payload, "up");
    machine.kill().unwrap();
    machine.wait().unwrap();
}

#[test]
fn the_example_grants_the_rights_that_the_tests_run_with() {
    let rules = |path: &str| {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let roles = text.split("\nrules:\n").skip(1);
        roles.map(|rules| rules.split("\n---").next().unwrap().trim().to_owned()).collect::<Vec<_>>()
    };
    let granted = rules("examples/kubernetes/rbac.yaml");
    assert!(granted[0].contains("pods/eviction") && granted[1].contains("leases"), "{granted:?}");
    assert_eq!(granted, rules("tests/cluster/rbac.yaml"));
}

/// An adapter that was started with these arguments, and what it answers to a GET.
fn adapter(name: &str, arguments: &[&str], environment: &[(&str, String)]) -> (u16, Value) {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    let mut command = Command::new(example(&format!("adapters/{name}")));
    command.arg("0").args(arguments).envs(environment.iter().cloned());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port: u16 = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[test]
fn the_adapter_of_a_database_answers_with_a_number_of_each_pod_and_an_error_is_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("numbers.db").display().to_string();
    let fill = "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as d:\n    d.execute('CREATE TABLE t (pod, n)')\n    \
                d.executemany('INSERT INTO t VALUES (?, ?)', [('web-1', 1.5), ('web-2', 9)])\n";
    assert!(Command::new("python3").args(["-c", fill, &database]).status().unwrap().success());
    let (status, answer) = adapter("sql.py", &[&database, "SELECT pod, n FROM t ORDER BY pod", "5"], &[]);
    let expected = json!({"pods": [
        {"name": "web-1", "value": 1.5, "bad": false, "reason": null},
        {"name": "web-2", "value": 9, "bad": true, "reason": "9 is above 5.0"},
    ]});
    assert_eq!((status, answer), (200, expected));
    assert_eq!(adapter("sql.py", &[&database, "SELECT nothing"], &[]).0, 503);
}

/// Datadog cannot be had for a test; its documented answer can.
#[test]
fn the_adapter_of_datadog_takes_the_newest_point_of_each_pod() {
    use std::io::{Read as _, Write as _};
    let api = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let site = format!("http://{}", api.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = api.accept().unwrap();
        let mut request = [0; 4096];
        let size = stream.read(&mut request).unwrap();
        let body = json!({"status": "ok", "series": [
            {"tag_set": ["pod_name:web-1", "env:prod"], "pointlist": [[1, 0.5], [2, 0.7], [3, null]]},
            {"tag_set": ["env:prod"], "pointlist": [[1, 0.5]]},
        ]})
        .to_string();
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        String::from_utf8_lossy(&request[..size]).into_owned()
    });
    let keys = [("DD_SITE", site), ("DD_API_KEY", "one".into()), ("DD_APP_KEY", "two".into())];
    let (status, answer) = adapter("datadog.py", &["avg:latency{*} by {pod_name}"], &keys);
    assert_eq!((status, answer), (200, json!({"pods": [{"name": "web-1", "value": 0.7}]})));
    let asked = asked.join().unwrap().to_lowercase();
    assert!(asked.contains("query=avg%3alatency") && asked.contains("dd-api-key: one"), "{asked}");
}
