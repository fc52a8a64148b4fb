//! `kubervisor breaker` as a master runs it: a process with variables, files and stdin.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The environment of one run.
struct BreakerRun {
    directory: TempDir,
    variables: Vec<(&'static str, String)>,
    stdin: String,
}

struct Exit {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl BreakerRun {
    fn with_policy(breakers: &str) -> Self {
        let mut stage =
            Self { directory: tempfile::tempdir().unwrap(), variables: Vec::new(), stdin: String::new() };
        let manifest = format!(
            "apiVersion: kubervisor.k8s.io/v1alpha1\nkind: KubervisorService\nmetadata: {{name: web}}\nspec:\n  \
             service: web\n{breakers}\n"
        );
        let path = stage.file("policy.yaml", &manifest);
        stage.set("KUBERVISOR_POLICY", path.display())
    }

    fn file(&mut self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[allow(clippy::needless_pass_by_value, reason = "numbers, texts and paths alike")]
    fn set(mut self, name: &'static str, value: impl ToString) -> Self {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.to_string()));
        self
    }

    fn set_file(mut self, name: &'static str, content: &Value) -> Self {
        let path = self.file(name, &content.to_string());
        self.set(name, path.display())
    }

    fn run(&self) -> Exit {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kubervisor"))
            .arg("breaker")
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A child that reads no stdin may exit before the write.
        let _ignored = child.stdin.take().unwrap().write_all(self.stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Exit { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn output(&self) -> Value {
        let Exit { code, stdout, stderr } = self.run();
        assert_eq!(code, Some(0), "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }
}

const ERRORS: &str =
    "  breakers: [{name: errors, evaluationPeriod: 2, keepalive: {pointer: /errors, max: 0.1}}]";

fn pods(errors: &[f64]) -> Value {
    errors
        .iter()
        .enumerate()
        .map(|(n, errors)| json!({"id": format!("web-{n}"), "key": n.to_string(), "nonce": "aa", "payload": {"errors": errors}}))
        .collect()
}

/// Rows of pods whose last keepalive is one second old.
fn fleet(traffic: &[&str]) -> Value {
    let row = |(n, traffic): (usize, &&str)| {
        json!({"id": format!("web-{n}"), "key": n.to_string(), "nonce": "aa", "age": 1.0,
            "status": "live", "traffic": traffic, "breaker": "errors"})
    };
    traffic.iter().enumerate().map(row).collect()
}

fn verdicts(answer: &Value) -> Vec<(&str, &str)> {
    let list = answer["traffic"].as_array().unwrap();
    list.iter().map(|v| (v["id"].as_str().unwrap(), v["verdict"].as_str().unwrap())).collect()
}

#[test]
fn bad_pods_are_withheld_with_a_reason_and_others_are_not_listed() {
    let answer = BreakerRun::with_policy(ERRORS).set("PODS", pods(&[0.0, 0.5, 0.1, 0.0])).output();
    assert_eq!(verdicts(&answer), [("web-1", "withhold")]);
    let verdict = &answer["traffic"][0];
    assert_eq!(verdict["breaker"], "errors");
    assert_eq!(verdict["reason"], "keepalive.max of \"/errors\", value 0.5, threshold 0.1");
    assert!(verdict["severity"].as_f64().is_some_and(|s| s > 0.0 && s < 1.0));
    let again = answer["again"].as_f64().unwrap();
    assert!(again > 1.0 && again <= 2.0, "{again}");
}

#[test]
fn pods_come_from_the_variable_the_file_or_stdin() {
    let expected = [("web-1", "withhold")];
    let ill = pods(&[0.0, 0.5, 0.0]);
    let by_file =
        BreakerRun::with_policy(ERRORS).set_file("PODS_FILE", &ill).set("PODS_TRUNCATED", 1).output();
    assert_eq!(verdicts(&by_file), expected);
    let mut by_stdin = BreakerRun::with_policy(ERRORS);
    by_stdin.stdin = ill.to_string();
    assert_eq!(verdicts(&by_stdin.output()), expected);
    let both = BreakerRun::with_policy(ERRORS).set("PODS", &ill).set_file("PODS_FILE", &json!([])).output();
    assert_eq!(verdicts(&both), expected, "the variable is enough");
    assert_eq!(BreakerRun::with_policy(ERRORS).set("PODS", "[]").output()["traffic"], json!([]));
}

#[test]
fn windows_travel_in_the_state_and_only_due_evaluations_move_them() {
    let outlier =
        "  breakers: [{name: slow, evaluationPeriod: 0.05, outlier: {pointer: /errors, minDeviation: 0.2}}]";
    let mut stage = BreakerRun::with_policy(outlier).set("PODS", pods(&[0.1, 0.12, 0.11, 0.1, 0.13, 9.0]));
    let mut seen = Vec::new();
    for round in 0..3 {
        let answer = stage.output();
        seen.push(verdicts(&answer).len());
        let due = answer["windows"]["slow"]["due"].as_i64().unwrap();
        // The file is equivalent to the variable.
        stage = if round == 0 {
            stage.set("STATE", &answer)
        } else {
            stage.set("STATE", "").set_file("STATE_FILE", &answer)
        };
        wait_until(due);
    }
    assert_eq!(seen, [0, 0, 1], "three bad evaluations of five");

    let often = outlier.replace("0.05", "3600");
    let mut stage = BreakerRun::with_policy(&often).set("PODS", pods(&[0.1, 0.12, 0.11, 0.1, 0.13, 9.0]));
    for _ in 0..4 {
        let answer = stage.output();
        assert_eq!(answer["windows"]["slow"]["bad"], json!({"5/web-5/aa": 1}));
        assert_eq!(verdicts(&answer), []);
        stage = stage.set("STATE", &answer);
    }
}

/// Waits for the wall clock to reach `millis`.
fn wait_until(millis: i64) {
    #[allow(clippy::disallowed_methods, reason = "the process under test reads this clock")]
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    while now() < u128::try_from(millis).unwrap() {
        std::thread::yield_now();
    }
}

#[test]
fn silence_comes_from_the_fleet_file_also_for_pods_no_longer_in_pods() {
    let mut rows = fleet(&["yes"; 4]);
    rows[1]["age"] = json!(9.5);
    rows.as_array_mut()
        .unwrap()
        .push(json!({"id": "web-9", "key": "9", "age": 30.0, "status": "expired", "traffic": "yes"}));
    rows.as_array_mut()
        .unwrap()
        .push(json!({"id": "web-8", "key": "8", "age": 30.0, "status": "down", "traffic": "yes"}));
    let silent = "  breakers: [{name: silent, keepalive: {silentAfter: 8}}]";
    let stage = BreakerRun::with_policy(silent).set("PODS", pods(&[0.0; 4])).set_file("FLEET_FILE", &rows);
    assert_eq!(verdicts(&stage.output()), [("web-1", "withhold"), ("web-9", "withhold")]);
    let late = stage.set("KONTROL_TTL", 6).run();
    assert_eq!(late.code, Some(2));
    assert!(late.stderr.contains("silentAfter: is 8, not below KONTROL_TTL of 6 s"), "{}", late.stderr);
}

#[test]
fn when_most_pods_are_bad_none_is_withheld_and_all_return() {
    let traffic = fleet(&["no", "pause", "yes", "yes"]);
    let stage = BreakerRun::with_policy(ERRORS).set_file("FLEET_FILE", &traffic);
    let panic = stage.set("PODS", pods(&[0.9, 0.9, 0.9, 0.0]));
    let answer = panic.output();
    assert_eq!(verdicts(&answer), [("web-0", "admit")], "a paused pod stays paused");
    assert_eq!(answer["panic"], 0);
    let half = panic.set("PODS", pods(&[0.9, 0.9, 0.0, 0.0])).set("STATE", "").output();
    assert_eq!(verdicts(&half), [("web-0", "withhold"), ("web-1", "withhold")], "half is not most");
}

#[test]
fn panic_is_over_after_two_calm_evaluations() {
    let quick = ERRORS.replace("evaluationPeriod: 2", "evaluationPeriod: 0.02");
    let stage = BreakerRun::with_policy(&quick).set("PODS", pods(&[0.9, 0.9, 0.9, 0.0]));
    let mut answer = stage.output();
    let mut stage = stage.set("PODS", pods(&[0.9, 0.0, 0.0, 0.0]));
    let mut counts = Vec::new();
    for _ in 0..2 {
        wait_until(answer["windows"]["errors"]["due"].as_i64().unwrap());
        stage = stage.set("STATE", &answer);
        answer = stage.output();
        counts.push(verdicts(&answer).len());
    }
    assert_eq!(counts, [0, 1]);
}

#[test]
fn a_breaker_without_coverage_withholds_no_pod_and_may_restore() {
    let mut blind = pods(&[0.9, 0.0, 0.0, 0.0, 0.0]);
    for n in 1..5 {
        blind[n]["payload"] = json!("");
    }
    let stage = BreakerRun::with_policy(ERRORS).set("PODS", &blind);
    assert_eq!(verdicts(&stage.output()), [], "one of five is no coverage");
    let restore = ERRORS.replace("evaluationPeriod: 2", "onNoData: restore");
    let withheld = fleet(&["yes", "no", "yes", "yes", "yes"]);
    let stage = BreakerRun::with_policy(&restore).set("PODS", &blind).set_file("FLEET_FILE", &withheld);
    assert_eq!(verdicts(&stage.output()), [("web-1", "admit")]);
}

#[test]
fn dry_run_returns_pods_and_withholds_none_and_pause_changes_nothing() {
    let ill = pods(&[0.9, 0.0, 0.0]);
    let withheld = fleet(&["no", "yes", "yes"]);
    let run = |breakers: String| {
        let stage = BreakerRun::with_policy(&breakers).set("PODS", &ill).set_file("FLEET_FILE", &withheld);
        stage.output()
    };
    assert_eq!(verdicts(&run(format!("  dryRun: true\n{ERRORS}"))), [("web-0", "admit")]);
    assert_eq!(verdicts(&run(format!("  paused: true\n{ERRORS}"))), []);
    assert_eq!(verdicts(&run(ERRORS.replace("name:", "dryRun: true, name:"))), []);
    assert_eq!(verdicts(&run(ERRORS.to_owned())), [("web-0", "withhold")]);
}

#[test]
fn errors_end_with_their_exit_code_and_no_output() {
    let fails = |stage: BreakerRun, code, part: &str| {
        let outcome = stage.run();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(code), ""), "{part}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
    };
    let stage = || BreakerRun::with_policy(ERRORS).set("PODS", "[]");
    fails(BreakerRun::with_policy(ERRORS), 2, "no pods: this command is a callback");
    fails(stage().set("KUBERVISOR_POLICY", "/nowhere.yaml"), 2, "/nowhere.yaml:1: cannot be read");
    fails(stage().set("KONTROL_TTL", "soon"), 2, "KONTROL_TTL is \"soon\"");
    fails(stage().set("PODS", "{\"a\":"), 1, "PODS is no JSON array of pods");
    fails(stage().set("PODS", "").set("PODS_FILE", "/nowhere.json"), 1, "cannot read /nowhere.json");
    fails(stage().set("FLEET_FILE", "/nowhere.json"), 1, "FLEET_FILE");
    let by_query = "  breakers: [{name: far, customService: \"detector:80\"}]";
    fails(
        BreakerRun::with_policy(by_query).set("PODS", "[]"),
        2,
        "spec.breakers[0].customService: customService needs",
    );
    let mut no_policy = stage();
    no_policy.variables.retain(|(name, _)| *name != "KUBERVISOR_POLICY");
    fails(no_policy, 2, "--policy");
}

#[test]
fn an_unreadable_state_is_dropped_and_the_run_continues() {
    let outcome =
        BreakerRun::with_policy(ERRORS).set("PODS", pods(&[0.9, 0.0, 0.0])).set("STATE", "[1,2]").run();
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.stderr.contains("STATE"), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("withhold"));
}
