//! What clients and callbacks of the original rely on, and what is better here, against one master with the embedded store.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::stage::{Puppet, Stage, TTL, keeping_alive, said, throughout, until};

/// Longer than the damper and a run.
const QUIET: Duration = Duration::from_millis(700);

fn md5sum(stage: &Stage, text: &str) -> String {
    let path = stage.write("to-sum", text);
    let output = Command::new("md5sum").arg(path).output().unwrap();
    let hex = String::from_utf8(output.stdout).unwrap();
    let pairs: Vec<_> =
        hex.as_bytes()[..32].chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
    pairs.join(":")
}

#[tokio::test]
async fn the_digest_is_the_md5_of_the_exact_bytes_that_the_callback_gets() {
    let stage = Stage::new();
    let master =
        stage.master(1).env("KONTROL_MINE", "inherited").env("MD5", "of somebody else").start().await;
    let payload = stage.write("payload", r#"{"name": "Zoë ☃", "big": 12345678901234567890, "share": 0.10}"#);
    let _agent = stage.agent(2, &[&master]).env("KONTROL_PAYLOAD", payload.display()).start().await;
    until("the agent is known", async || master.pods().await == ["web-2"]).await;
    let mut puppets = [Puppet::new(&stage, 3).paying(json!(null))];
    let mut keepalive = puppets[0].keepalive();
    keepalive["seq"] = json!(77);
    keepalive["zone"] = json!({"b": 1, "a": 2});
    puppets[0].say(&master, &keepalive.to_string()).await.unwrap();
    let run = stage.run_where("both pods are shown", |run| run.ids() == ["web-2", "pod-3"]).await;
    let sum = md5sum(&stage, run.pods());
    assert_eq!(run.env("MD5"), Some(&*sum));
    assert_eq!(run.env("HASH"), Some(&*sum));
    assert_eq!(run.env("PODS"), Some(run.pods()));
    assert_eq!(run.0["stdin"].as_str(), Some(run.pods()));
    assert!(run.pods().is_ascii());
    assert!(run.pods().contains("12345678901234567890") && run.pods().contains("0.10"), "{}", run.pods());
    let (agent, puppet) = (run.pod("web-2"), run.pod("pod-3"));
    assert_eq!(agent["payload"]["name"], "Zoë ☃");
    assert_eq!((&puppet["seq"], &puppet["payload"]), (&json!(1), &Value::Null));
    assert_eq!(puppet["zone"], json!({"a": 2, "b": 1}));
    assert_eq!(run.env("KONTROL_MINE"), Some("inherited"));
    assert_eq!(run.0["cwd"], std::env::current_dir().unwrap().to_str().unwrap());
    assert_eq!(master.page("ensemble").await["digest"], *sum);
}

#[tokio::test]
async fn a_shell_callback_is_the_whole_line() {
    let stage = Stage::new();
    let line = format!("echo \"[$HASH]\" >> {}; echo '{{\"shell\": true}}'", stage.file("hashes").display());
    let _master =
        stage.master(1).env("KONTROL_CALLBACK", line).env("KONTROL_SHELL_CALLBACK", "TRUE").start().await;
    until("the line ran", async || !stage.lines("hashes").is_empty()).await;
    // The digest of two bytes: an empty list.
    assert_eq!(stage.lines("hashes"), [format!("[{}]", md5sum(&stage, "[]"))]);
}

#[tokio::test]
async fn a_shell_callback_that_is_not_quite_asked_for_is_said_to_be_none() {
    let stage = Stage::new();
    let line = format!("sh -c exit;touch {}", stage.file("by-a-shell").display());
    let master =
        stage.master(1).env("KONTROL_CALLBACK", line).env("KONTROL_SHELL_CALLBACK", "true").start().await;
    let warning =
        "KONTROL_SHELL_CALLBACK=\"true\" has no effect: the callback is split on spaces; write TRUE";
    until("the log says so", async || master.log().contains(warning)).await;
    assert!(!stage.file("by-a-shell").exists());
}

#[tokio::test]
async fn a_start_runs_the_callback_once_and_the_last_goodbye_leaves_an_empty_list() {
    let stage = Stage::new();
    let master = stage.master(1).start().await;
    stage.run_where("the start's run", |run| run.pods() == "[]").await;
    throughout(QUIET, "one run for one start", async || stage.runs().len() == 1).await;
    let mut agent = stage.agent(2, &[&master]).start().await;
    stage.run_where("the agent is shown", |run| run.ids() == ["web-2"]).await;
    let told = Instant::now();
    assert!(agent.stop().await.success());
    until("nobody is left", async || stage.runs().last().unwrap().pods() == "[]").await;
    assert!(told.elapsed().as_secs_f64() < TTL + 1.0, "a goodbye does not wait for the TTL");
    let runs: Vec<_> = stage.runs().iter().map(|run| run.ids().len()).collect();
    assert_eq!(runs, [0, 1, 0]);
}

#[tokio::test]
async fn a_master_that_knew_pods_does_not_start_with_an_empty_list() {
    let stage = Stage::new();
    let mut master = stage.master(1).start().await;
    let mut puppet = Puppet::new(&stage, 2);
    puppet.ping(&master).await;
    stage.run_where("the pod is shown", |run| run.ids() == ["pod-2"]).await;
    master.kill();
    let before = stage.runs().len();
    master.launch().await;
    until("a run after the restart", async || stage.runs().len() > before).await;
    assert_eq!(stage.runs()[before].ids(), ["pod-2"], "it has a TTL to report");
    until("the pod is gone", async || stage.runs().last().unwrap().pods() == "[]").await;
}

#[tokio::test]
async fn a_touched_payload_is_a_keepalive_and_no_change() {
    let stage = Stage::new();
    // Pings come only when something forces them.
    let master = stage.master(1).env("KONTROL_TTL", 120).start().await;
    let payload = stage.write("payload", r#"{"load": 1}"#);
    let agent = stage.agent(2, &[&master]).env("KONTROL_TTL", 120).env("KONTROL_PAYLOAD", payload.display());
    let _agent = agent.start().await;
    stage.run_where("the payload is shown", |run| run.pod("web-2")["payload"]["load"] == 1).await;
    let (runs, digests) = (stage.runs().len(), master.metric("kubervisor_digests_total").await);
    let heartbeats = async || master.metric("kubervisor_heartbeats_total").await.unwrap_or_default();
    let before = heartbeats().await;
    stage.write("payload", r#"{"load": 1}"#);
    until("a keepalive is forced", async || heartbeats().await > before).await;
    throughout(QUIET, "no run for it", async || stage.runs().len() == runs).await;
    assert_eq!(master.metric("kubervisor_digests_total").await, digests);
    stage.write("payload", r#"{"load": 2}"#);
    stage.run_where("the new payload is shown", |run| run.pod("web-2")["payload"]["load"] == 2).await;
}

#[tokio::test]
async fn a_change_during_a_run_is_due_again() {
    let stage = Stage::new();
    let master = stage.master(1).start().await;
    stage.run_where("the start's run", |run| run.pods() == "[]").await;
    stage.write("sleep", "1");
    let mut puppets = [Puppet::new(&stage, 2), Puppet::new(&stage, 3)];
    puppets[0].ping(&master).await;
    stage.run_where("a run begins", |run| run.ids() == ["pod-2"]).await;
    keeping_alive(&master, &mut puppets, async {
        stage.run_where("the change is run for", |run| run.ids() == ["pod-2", "pod-3"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_dead_pod_is_out_at_its_ttl() {
    let stage = Stage::new();
    let master = stage.master(1).env("KONTROL_DAMPER", 0).start().await;
    let mut agent = stage.agent(2, &[&master]).start().await;
    stage.run_where("the agent is shown", |run| run.ids() == ["web-2"]).await;
    // How many runs there were depends on when the first keepalive came.
    let (killed, before) = (Instant::now(), stage.runs().len());
    agent.kill();
    let out = async || {
        let runs = stage.runs();
        (before..runs.len())
            .find(|&at| runs[at].pods() == "[]" && runs[at].state() == Some(json!({ "runs": at })))
    };
    until("it is out", out).await;
    let took = killed.elapsed().as_secs_f64();
    println!("a killed pod was out of the snapshot after {took:.2} s at a TTL of {TTL} s");
    assert!((TTL * 0.6..TTL + 1.5).contains(&took), "{took} s");
}

#[tokio::test]
async fn the_state_outlives_the_process_and_again_brings_the_next_run() {
    let stage = Stage::new();
    stage.write("answer", r#"{"mine": [1], "again": 0.3}"#);
    let mut master = stage.master(1).start().await;
    until("it runs again by itself", async || stage.runs().len() >= 3).await;
    let runs = stage.runs();
    assert_eq!(runs[0].state(), None);
    assert_eq!(runs[1].state(), Some(json!({"mine": [1], "again": 0.3})));
    assert_eq!(runs[1].env("STATE"), Some(r#"{"mine": [1], "again": 0.3}"#), "the very bytes");
    stage.write("answer", r#"{"mine": [2]}"#);
    stage.run_where("the new state", |run| run.state() == Some(json!({"mine": [1], "again": 0.3}))).await;
    until("the state is readable", async || {
        let output = Command::new("curl").args(["-s", &format!("http://{}/state", master.address)]).output();
        output.unwrap().stdout == br#"{"mine": [2]}"#
    })
    .await;
    master.kill();
    let before = stage.runs().len();
    master.launch().await;
    until("a run after the restart", async || stage.runs().len() > before).await;
    assert_eq!(stage.runs()[before].state(), Some(json!({"mine": [2]})));
}

#[tokio::test]
async fn a_failing_callback_keeps_the_state_and_is_tried_again() {
    let stage = Stage::new();
    stage.write("answer", r#"{"good": true, "again": 0.4}"#);
    let master = stage.master(1).start().await;
    let state = format!("http://{}/state", master.address);
    until("a good run", async || curl(&["-s", &state]).1.contains("good")).await;
    stage.write("fail", "yes");
    let good = stage.runs().len();
    until("two failed ones", async || stage.runs().len() >= good + 2).await;
    until("an alarm", async || master.alarm_is_up("callback_failed").await).await;
    assert_eq!(stage.runs().last().unwrap().state(), Some(json!({"good": true, "again": 0.4})));
    std::fs::remove_file(stage.file("fail")).unwrap();
    // What is no JSON fails too.
    stage.write("answer", "no JSON");
    let failed = stage.runs().len();
    until("more failed ones", async || stage.runs().len() > failed + 1).await;
    assert_eq!(stage.runs().last().unwrap().state(), Some(json!({"good": true, "again": 0.4})));
    // Nothing at all is a success that leaves the state alone.
    stage.write("answer", "");
    until("the alarm is over", async || !master.alarm_is_up("callback_failed").await).await;
    let state =
        Command::new("curl").args(["-s", &format!("http://{}/state", master.address)]).output().unwrap();
    assert_eq!(state.stdout, br#"{"good": true, "again": 0.4}"#);
}

#[tokio::test]
async fn wrong_configuration_is_exit_code_2_and_says_what_to_do() {
    let stage = Stage::new();
    let master = stage.master(1).start().await;
    let holder = stage.file("master-1.redb");
    let other = |host| stage.master(host);
    let port = master.address.port();
    let taken = other(2).env("KONTROL_BIND", master.address.ip()).env("KONTROL_PORT", port);
    let probes = other(2).env("KUBERVISOR_ADDR", master.probes.unwrap());
    for (what, node, words) in [
        ("a taken port", taken, vec![port.to_string()]),
        ("a taken probe port", probes, vec!["KUBERVISOR_ADDR".to_owned()]),
        ("a mode", other(2).env("KONTROL_MODE", "boss"), vec!["KONTROL_MODE".to_owned(), "boss".to_owned()]),
        ("a TTL", other(2).env("KONTROL_TTL", "soon"), vec!["KONTROL_TTL".to_owned()]),
        (
            "labels",
            other(2).env("KONTROL_LABELS", r#"{"app": "x"}"#),
            vec!["KONTROL_LABELS".to_owned(), "role".to_owned()],
        ),
        ("a user", other(2).env("KONTROL_USER", "nobody-of-that-name"), vec!["KONTROL_USER".to_owned()]),
        ("no master", stage.agent(3, &[]), vec!["kontrol.unity3d.com/master".to_owned()]),
        (
            "a file that another process holds",
            other(2).env("KUBERVISOR_STORE", format!("embedded:{}", holder.display())),
            vec![holder.display().to_string()],
        ),
    ] {
        let output = node.output();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{what}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{what}: {text}");
    }
    assert!(master.pods().await.is_empty(), "the first one is not disturbed");
}

/// Status and body that curl got.
pub(crate) fn curl(arguments: &[&str]) -> (String, String) {
    let output = Command::new("curl").args(["-s", "-w", "\n%{http_code}"]).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[tokio::test]
async fn curl_is_all_that_a_client_needs() {
    let stage = Stage::new();
    let mut master = stage.master(1).start().await;
    let at = |path: &str| format!("http://{}{path}", master.address);
    until("a state", async || curl(&[&at("/state")]) == ("200".to_owned(), r#"{"runs": 1}"#.to_owned()))
        .await;
    let keepalive = Puppet::new(&stage, 2).keepalive().to_string();
    let (ping, state, down) = (at("/ping"), at("/state"), at("/down"));
    assert_eq!(curl(&["-X", "PUT", "-d", &keepalive, &ping]), ("200".to_owned(), String::new()));
    stage.run_where("the pod is shown", |run| run.ids() == ["pod-2"]).await;
    let (status, body) = curl(&["-X", "PUT", "-d", "{}", &ping]);
    assert_eq!(status, "400", "{body}");
    assert!(serde_json::from_str::<Value>(&body).unwrap()["error"].as_str().unwrap().contains("app"));
    assert_eq!(curl(&["-X", "PUT", "-d", "{\"cmd\": \"id\"}", &at("/script")]).1, "");
    assert_eq!(curl(&["-X", "DELETE", &state]).0, "405");
    assert_eq!(curl(&["-X", "POST", &down]).0, "200");
    assert!(master.ended().await.success(), "it stopped in order");
}

#[tokio::test]
async fn a_goodbye_counts_at_once_and_a_return_keeps_its_number() {
    let stage = Stage::new();
    let master = stage.master(1).env("KONTROL_TTL", 20).start().await;
    let mut agent = stage.agent(2, &[&master]).env("KONTROL_TTL", 20).start().await;
    let mut puppet = Puppet::new(&stage, 3);
    until("the agent is known", async || master.pods().await == ["web-2"]).await;
    puppet.ping(&master).await;
    let first = stage.run_where("both are shown", |run| run.ids() == ["web-2", "pod-3"]).await;
    let first = first.pod("web-2");
    assert!(agent.stop().await.success());
    stage.run_where("the goodbye counts", |run| run.ids() == ["pod-3"]).await;
    agent.launch().await;
    let back = stage
        .run_where("a new process is in its place", |run| {
            run.ids() == ["web-2", "pod-3"] && run.pod("web-2")["nonce"] != first["nonce"]
        })
        .await;
    assert_eq!(back.pod("web-2")["seq"], first["seq"]);
}

#[tokio::test]
async fn a_restarted_master_gives_no_number_twice() {
    let stage = Stage::new();
    let mut master = stage.master(1).env("KONTROL_TTL", 20).start().await;
    let mut puppets: Vec<_> = (2..7).map(|host| Puppet::new(&stage, host)).collect();
    for puppet in &mut puppets {
        puppet.ping(&master).await;
    }
    until("five pods", async || master.pods().await.len() == 5).await;
    puppets[4].down(&master).await;
    until("four pods", async || master.pods().await.len() == 4).await;
    let before = master.seqs().await;
    master.kill();
    master.launch().await;
    until("the four are known again", async || master.seqs().await == before).await;
    Puppet::new(&stage, 9).ping(&master).await;
    until("the newcomer is known", async || master.pods().await.len() == 5).await;
    assert_eq!(master.seqs().await["pod-9"], 5, "the number of the pod that left is not given again");
}

#[tokio::test]
async fn a_flood_of_nonsense_stops_nobody() {
    let stage = Stage::new();
    let master = stage.master(1).start().await;
    let mut puppets = [Puppet::new(&stage, 2)];
    puppets[0].ping(&master).await;
    let mut flooder = Puppet::new(&stage, 3);
    let nonsense = ["{", "[]", "{}", "null", r#"{"app":"shop","id":"x","ip":"::1","key":"1","role":"web"}"#];
    let flood = async {
        for round in 0..10_000 {
            // Answered like any other: the original's clients expect None.
            let _refused = flooder.say(&master, nonsense[round % nonsense.len()]).await;
        }
    };
    let begun = Instant::now();
    keeping_alive(&master, &mut puppets, flood).await;
    println!("10 000 malformed keepalives took {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!(master.pods().await, ["pod-2"]);
    let expired = master.metric("kubervisor_pods_expired_total").await;
    assert_eq!(expired.unwrap_or_default(), 0.0, "nobody missed a ping for it");
    let text = master.metrics().await;
    let refused: f64 = text
        .lines()
        .filter(|line| line.starts_with("kubervisor_keepalives_refused_total{"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum();
    assert!(refused >= 10_000.0, "{refused}\n{text}");
}

#[tokio::test]
async fn a_second_pod_on_a_live_key_is_refused_and_alarmed() {
    let stage = Stage::new();
    let master = stage.master(1).start().await;
    let mut puppets = [Puppet::new(&stage, 2)];
    puppets[0].ping(&master).await;
    let mut thief = Puppet::new(&stage, 2);
    (thief.id, thief.nonce) = ("thief".to_owned(), "00000000000000ff".to_owned());
    let stealing = thief.keepalive().to_string();
    keeping_alive(&master, &mut puppets, async {
        until("it is refused", async || {
            let _refused = thief.say(&master, &stealing).await;
            master.alarm_is_up("key_collision").await
        })
        .await;
        assert_eq!(master.metric("kubervisor_alarm{reason=\"key_collision\"}").await, Some(1.0));
        assert!(
            master.metric("kubervisor_keepalives_refused_total{reason=\"key_taken\"}").await.unwrap() > 0.0
        );
        assert_eq!(master.pods().await, ["pod-2"]);
        until("it is over when the thief is silent", async || !master.alarm_is_up("key_collision").await)
            .await;
    })
    .await;
    assert!(master.alarmed("key_collision").await, "and stays in the history");
}

#[tokio::test]
async fn six_hundred_pods_reach_the_callback() {
    let stage = Stage::new();
    let master = stage.master(1).env("KONTROL_TTL", 60).start().await;
    let mut speaker = Puppet::new(&stage, 2);
    for number in 0..600_u16 {
        let [high, low] = number.to_be_bytes();
        let ip = std::net::Ipv4Addr::new(10, 0, high, low);
        let pod = json!({"app": "shop", "id": format!("pod-{number}"), "ip": ip, "key": kubervisor::decide::key::Key::of(ip),
            "nonce": "00", "payload": "x".repeat(200), "role": "web"});
        speaker.say(&master, &pod.to_string()).await.unwrap();
    }
    let run = stage.run_where("all are shown", |run| run.list().len() == 600).await;
    assert_eq!((run.env("PODS"), run.env("PODS_TRUNCATED")), (None, Some("1")));
    assert_eq!(run.0["stdin"].as_str(), Some(run.pods()));
    assert_eq!(run.env("HASH"), Some(&*md5sum(&stage, run.pods())));
}
