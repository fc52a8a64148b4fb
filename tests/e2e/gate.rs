//! Verdicts to addresses: callbacks of all kinds, the policy in process, the floor, and faults that must not empty the file.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::stage::{Node, PROGRAM, Puppet, Stage, TTL, keeping_alive, kubervisor, said, throughout, until};

/// What each test's file is called.
const FILE: &str = "endpoints";

/// A policy that forgives after `period` seconds and judges `/errors`.
fn policy(period: f64, ratio: u32) -> String {
    json!({
        "apiVersion": "kubervisor.k8s.io/v1alpha1", "kind": "KubervisorService", "metadata": {"name": "shop"},
        "spec": {
            "service": "shop",
            "panicThreshold": 60,
            "defaultActivator": {"mode": "periodic", "period": period, "jitter": 0},
            "breakers": [{
                "name": "errors", "evaluationPeriod": 0.3, "minPodsAvailableRatio": ratio,
                "keepalive": {"pointer": "/errors", "max": 0.1},
            }],
        },
    })
    .to_string()
}

/// A master with an endpoints file.
fn gated(stage: &Stage) -> Node {
    stage.master(1).env("KUBERVISOR_ENDPOINTS", stage.file(FILE).display()).env("KUBERVISOR_TARGET_PORT", 80)
}

fn fleet(stage: &Stage, size: u8) -> Vec<Puppet> {
    (0..size).map(|number| Puppet::new(stage, 10 + number).paying(json!({"errors": 0}))).collect()
}

/// The line of the pod at `host`.
fn line(stage: &Stage, host: u8) -> String {
    format!("{}:80", stage.ip(host))
}

fn lists(stage: &Stage, host: u8) -> bool {
    stage.lines(FILE).contains(&line(stage, host))
}

async fn listed(stage: &Stage, count: usize) {
    until(&format!("{count} are listed"), async || stage.lines(FILE).len() == count).await;
}

#[tokio::test]
async fn verdicts_of_a_python_callback_reach_the_file_and_stop_at_the_floor() {
    let stage = Stage::new();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/verdicts.py");
    // A policy that never judges by itself, for its activator's short period.
    let quiet = policy(2.0, 50)
        .replace("/errors", "/nothing")
        .replace("\"panicThreshold\":60", "\"panicThreshold\":100");
    let file = stage.write("policy.yaml", &quiet);
    let master =
        gated(&stage).env("KONTROL_CALLBACK", example).env("KUBERVISOR_POLICY", file.display()).start().await;
    let mut pods = fleet(&stage, 6);
    keeping_alive(&master, &mut pods, listed(&stage, 6)).await;
    pods[0].payload = json!({"errors": 0.9});
    let begun = Instant::now();
    keeping_alive(&master, &mut pods, async {
        until("the bad one is out", async || !lists(&stage, 10)).await;
        println!(
            "a payload gone bad was out of the file after {:.2} s (damper 0.1 s, Python)",
            begun.elapsed().as_secs_f64()
        );
        assert_eq!(stage.lines(FILE).len(), 5);
    })
    .await;
    // It recovers, and comes back after the activator's time.
    pods[0].payload = json!({"errors": 0});
    keeping_alive(&master, &mut pods, listed(&stage, 6)).await;
    // Four of six look bad: three stay, whatever the callback says.
    for pod in &mut pods[..4] {
        pod.payload = json!({"errors": 0.9});
    }
    keeping_alive(&master, &mut pods, async {
        listed(&stage, 3).await;
        throughout(Duration::from_secs(3), "never below the floor", async || stage.lines(FILE).len() >= 3)
            .await;
    })
    .await;
}

#[tokio::test]
async fn verdicts_of_a_shell_callback_need_no_policy() {
    let stage = Stage::new();
    let verdicts = stage.write("verdicts", "");
    let master = gated(&stage)
        .env("KONTROL_SHELL_CALLBACK", "TRUE")
        .env(
            "KONTROL_CALLBACK",
            format!("echo \"{{\\\"again\\\": 0.3, \\\"traffic\\\": {{$(cat {})}}}}\"", verdicts.display()),
        )
        .start()
        .await;
    let mut pods = fleet(&stage, 4);
    keeping_alive(&master, &mut pods, listed(&stage, 4)).await;
    // Kubervisor's own words; half of four may go, whatever is asked for.
    stage.write("verdicts", r#""pod-10": "no", "pod-11": "no", "pod-12": "no", "stranger": "no""#);
    keeping_alive(&master, &mut pods, async {
        listed(&stage, 2).await;
        assert!(lists(&stage, 13), "nobody said anything about this one");
        until("the unknown name is counted", async || {
            let sample = "kubervisor_gate_unknown_verdicts{name=\"shop\",namespace=\"test\"}";
            master.metric(sample).await == Some(1.0)
        })
        .await;
        throughout(Duration::from_secs(2), "never below the floor", async || stage.lines(FILE).len() >= 2)
            .await;
        let why = master.page("explain/test/pod-10").await;
        assert_eq!(why["floor"]["floor"], 2, "{why}");
    })
    .await;
    assert!(master.alarmed("floor_reached").await);
}

#[tokio::test]
async fn the_built_in_breaker_as_a_callback() {
    let stage = Stage::new();
    let file = stage.write("policy.yaml", &policy(1.5, 50));
    let checked = kubervisor(&["check", &file.display().to_string()], &[]);
    assert!(checked.status.success(), "{}", said(&checked));
    let master = gated(&stage)
        .env("KONTROL_CALLBACK", format!("{PROGRAM} breaker --policy {}", file.display()))
        .start()
        .await;
    let mut pods = fleet(&stage, 4);
    keeping_alive(&master, &mut pods, listed(&stage, 4)).await;
    pods[1].payload = json!({"errors": 0.5});
    keeping_alive(&master, &mut pods, async {
        until("the bad one is out", async || !lists(&stage, 11)).await;
        let why = master.page("explain/test/pod-11").await;
        let summary = why["pod"]["summary"].as_str().unwrap_or_default();
        assert!(summary.contains("/errors") && summary.contains("0.5"), "rule and value: {why}");
    })
    .await;
}

#[tokio::test]
async fn the_same_policy_in_process_and_a_new_one_in_force() {
    let stage = Stage::new();
    let file = stage.write("policy.yaml", &policy(1.5, 50));
    let master =
        gated(&stage).without("KONTROL_CALLBACK").env("KUBERVISOR_POLICY", file.display()).start().await;
    let mut pods = fleet(&stage, 4);
    keeping_alive(&master, &mut pods, listed(&stage, 4)).await;
    pods[1].payload = json!({"errors": 0.5});
    keeping_alive(&master, &mut pods, until("the bad one is out", async || !lists(&stage, 11))).await;
    pods[1].payload = json!({"errors": 0});
    keeping_alive(&master, &mut pods, listed(&stage, 4)).await;
    // All bad: panic, nobody is withheld, and an alarm says so.
    for pod in &mut pods {
        pod.payload = json!({"errors": 1});
    }
    keeping_alive(&master, &mut pods, async {
        until("panic", async || master.alarm_is_up("panic").await).await;
        listed(&stage, 4).await;
    })
    .await;
    for pod in &mut pods[1..] {
        pod.payload = json!({"errors": 0});
    }
    keeping_alive(&master, &mut pods, async {
        until("the one bad one is out", async || !lists(&stage, 10)).await;
        stage.write("policy.yaml", "no policy at all");
        until("a bad policy is refused", async || master.alarm_is_up("policy_refused").await).await;
        stage.write("policy.yaml", &policy(1.5, 100));
        until("the new one is in force: nobody may be out", async || {
            master.page("services/test/shop").await["floor"]["floor"] == 4
        })
        .await;
        listed(&stage, 4).await;
    })
    .await;
}

#[tokio::test]
async fn silence_of_all_at_once_changes_no_file() {
    let stage = Stage::new();
    let master = gated(&stage).start().await;
    let mut pods = fleet(&stage, 4);
    keeping_alive(&master, &mut pods, listed(&stage, 4)).await;
    let before = stage.lines(FILE);
    // The master's network is cut: nobody says anything any more.
    drop(pods);
    until("they have expired", async || master.pods().await.is_empty()).await;
    until("an alarm says that nobody is heard", async || {
        let page = master.page("services").await;
        let up = page["alarms"]["up"].as_array().cloned().unwrap_or_default();
        up.iter()
            .any(|alarm| ["unknown_listed", "silent_listed"].contains(&alarm["reason"].as_str().unwrap()))
    })
    .await;
    throughout(Duration::from_secs_f64(TTL), "the file is as it was", async || stage.lines(FILE) == before)
        .await;
}

#[tokio::test]
async fn one_killed_pod_leaves() {
    let stage = Stage::new();
    let master = gated(&stage).start().await;
    let mut pods = fleet(&stage, 4);
    keeping_alive(&master, &mut pods, listed(&stage, 4)).await;
    let dead = pods.pop().unwrap();
    let killed = Instant::now();
    keeping_alive(&master, &mut pods, listed(&stage, 3)).await;
    println!(
        "a dead pod was out of the file after {:.2} s at a TTL of {TTL} s",
        killed.elapsed().as_secs_f64()
    );
    assert!(!stage.lines(FILE).contains(&format!("{}:80", dead.ip)));
}

#[tokio::test]
async fn the_last_ones_leave_by_their_own_word() {
    let stage = Stage::new();
    let master = gated(&stage).start().await;
    let mut pods = fleet(&stage, 3);
    keeping_alive(&master, &mut pods, listed(&stage, 3)).await;
    for pod in &mut pods {
        pod.down(&master).await;
    }
    until("all said goodbye", async || stage.lines(FILE).is_empty() && stage.file(FILE).exists()).await;
}

#[tokio::test]
async fn a_restart_with_a_lost_store_never_empties_the_file() {
    let stage = Stage::new();
    let mut master = gated(&stage).start().await;
    let mut pods = fleet(&stage, 4);
    keeping_alive(&master, &mut pods, listed(&stage, 4)).await;
    let before = stage.lines(FILE);
    master.kill();
    std::fs::remove_file(stage.file("master-1.redb")).unwrap();
    let back = async {
        master.launch().await;
        throughout(Duration::from_secs_f64(TTL * 1.5), "the file is as it was", async || {
            stage.lines(FILE) == before
        })
        .await;
    };
    back.await;
    // Nobody reported: still nobody is taken out.
    assert_eq!(stage.lines(FILE), before);
    keeping_alive(&master, &mut pods, async {
        until("all four are known again", async || master.pods().await.len() == 4).await;
        throughout(Duration::from_secs_f64(TTL * 2.0), "nor later", async || stage.lines(FILE).len() == 4)
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_pod_speaks_for_itself_only_where_its_address_matters() {
    let stage = Stage::new();
    let master = gated(&stage).start().await;
    let mut honest = Puppet::new(&stage, 10);
    honest.ping(&master).await;
    let victim = Puppet::new(&stage, 11).keepalive().to_string();
    let _answered = honest.say(&master, &victim).await;
    until("it is counted", async || {
        let sample = "kubervisor_keepalives_refused_total{reason=\"forged_address\"}";
        master.metric(sample).await.is_some_and(|count| count > 0.0)
    })
    .await;
    assert_eq!(master.pods().await, ["pod-10"]);
    assert!(master.alarm_is_up("keepalive_refused").await);
    let said = master.page("services").await.to_string();
    assert!(said.contains("pod-11") && said.contains("forged_address"), "{said}");
    assert!(master.log().contains("is refused: forged_address"), "{}", master.log());
}

#[tokio::test]
async fn an_agent_of_ours_logs_why_its_keepalives_are_refused() {
    let stage = Stage::new();
    let master = gated(&stage).start().await;
    // Its address is of no interface here, as behind a translation.
    let agent = stage.agent(12, &[&master]).env("KONTROL_IP", "10.77.0.1").start().await;
    until("it says so", async || agent.log().contains("the master does not take our keepalives")).await;
    assert!(agent.log().contains("10.77.0.1"), "{}", agent.log());
}

#[tokio::test]
async fn a_restarted_master_withholds_whom_it_withheld() {
    let stage = Stage::new();
    stage.write("answer", r#"{"traffic": [{"id": "pod-10", "verdict": "withhold", "reason": "ill"}]}"#);
    let file = stage.write("policy.yaml", &policy(60.0, 50).replace("/errors", "/nothing"));
    let mut master = gated(&stage).env("KUBERVISOR_POLICY", file.display()).start().await;
    let mut pods = fleet(&stage, 4);
    keeping_alive(&master, &mut pods, async {
        master.until_withheld("pod-10").await;
        until("it is out", async || !lists(&stage, 10)).await;
    })
    .await;
    let before = stage.lines(FILE);
    master.kill();
    master.launch().await;
    keeping_alive(&master, &mut pods, async {
        throughout(Duration::from_secs_f64(TTL * 2.0), "it stays out, the others in", async || {
            stage.lines(FILE) == before
        })
        .await;
        master.until_withheld("pod-10").await;
        // What the callback is told of it.
        stage.write(
            "answer",
            r#"{"traffic": [{"id": "pod-10", "verdict": "withhold", "reason": "ill"}], "again": 0.2}"#,
        );
    })
    .await;
    pods[1].payload = json!({"errors": 0.01});
    keeping_alive(&master, &mut pods, async {
        stage
            .run_where("the callback sees what was carried out", |run| {
                let rows = run.0["fleet"].as_array().unwrap().clone();
                rows.iter().any(|row| {
                    row["id"] == "pod-10"
                        && row["traffic"] == "no"
                        && row["breakAt"].is_i64()
                        && row["retryCount"] == 1
                })
            })
            .await;
    })
    .await;
}
