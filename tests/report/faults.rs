//! Servers, ranges, queries and names that a report must get through, or refuse with what to do.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    front::{Fault, Front},
    shop::{LENGTH, Shop, episodes, policy},
    stage::{PROGRAM, Stage, kubervisor, said},
};

/// Everything but the server's address.
fn essence(model: &Value) -> Value {
    let mut report = model["policies"][0].clone();
    report["breakers"][0]["server"] = Value::Null;
    report
}

fn notes(model: &Value) -> String {
    model["notes"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_now_and_then_or_restarts_gives_the_same_report() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = Arc::new(shop.serve(&stage).await);
    let whole = shop.model(&stage, &prometheus.address.to_string(), &policy(&json!({})), &[]);
    let (mut count, restarted) = (0, Arc::clone(&prometheus));
    let front = Front::start(&stage, prometheus.address, move |_| {
        count += 1;
        let says = |text: &str| Some(Fault::Says(text.to_owned()));
        match count {
            1 => {
                says("HTTP/1.1 503 X\r\nRetry-After: 1\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy")
            }
            3 => says("HTTP/1.1 502 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            5 => Some(Fault::Half),
            6 => says(""),
            7 => {
                let server = Arc::clone(&restarted);
                server.kill();
                tokio::spawn(async move { server.launch().await });
                None
            }
            _ => None,
        }
    })
    .await;
    let disturbed = shop.model(&stage, &front.address.to_string(), &policy(&json!({})), &[]);
    assert!(front.asked.lock().len() > 10);
    assert_eq!(essence(&disturbed), essence(&whole));
    assert_eq!(episodes(&whole).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_s_own_limit_is_kept_to_and_named() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let whole = shop.model(&stage, &prometheus.address.to_string(), &policy(&json!({})), &[]);
    drop(prometheus);
    let serve = async |limit: &str| {
        let stage = Stage::new();
        let prometheus = shop.history.serve(stage.directory(), stage.ip(200), &[limit]).await;
        (prometheus.address.to_string(), prometheus, stage)
    };
    let (server, _prometheus, _stage) = serve("--query.max-samples=9000").await;
    let model = shop.model(&stage, &server, &policy(&json!({})), &[]);
    assert_eq!(essence(&model), essence(&whole));
    assert!(
        notes(&model).contains("limit") && notes(&model).contains("too many samples"),
        "{}",
        notes(&model)
    );

    let (server, _prometheus, _stage) = serve("--query.max-samples=20").await;
    let output = shop.report(&stage, &server, &policy(&json!({})), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("too many samples"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_prometheus_is_named_with_its_own_words() {
    let (stage, shop) = (Stage::new(), Shop::new());
    let page = "<html><body>Sign in to continue</body></html>";
    let page =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}", page.len());
    let front =
        Front::start(&stage, "127.0.0.1:9".parse().unwrap(), move |_| Some(Fault::Says(page.clone()))).await;
    let output = shop.report(&stage, &front.address.to_string(), &policy(&json!({})), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("Sign in"), "{}", said(&output));
    let output = shop.report(&stage, "127.0.0.1:1", &policy(&json!({})), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("127.0.0.1:1"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_a_warning_is_no_data_as_in_production() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let second = format!("start={}.000", shop.start + 10_000);
    let front = Front::start(&stage, prometheus.address, move |request| {
        request.contains(&second).then_some(Fault::Warns)
    })
    .await;
    let model = shop.model(&stage, &front.address.to_string(), &policy(&json!({})), &[]);
    assert!(notes(&model).contains("a store did not answer"), "{}", notes(&model));
    let spans = model["policies"][0]["noData"].as_array().unwrap();
    assert_eq!(spans.iter().map(|span| span["from"].clone()).collect::<Vec<_>>(), [shop.time(10_000)]);
    // What is in this part is not seen.
    let pods: Vec<String> = episodes(&model).into_iter().map(|(pod, ..)| pod).collect();
    assert_eq!(pods, ["web-3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_pods_and_ranges_without_samples_are_said_to_be_so() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let server = prometheus.address.to_string();
    for promql in ["sum(latency)", "scalar(sum(latency))", "nothing_at_all"] {
        let mut other = policy(&json!({}));
        other["spec"]["breakers"][0]["outlier"]["promQL"] = promql.into();
        let output = shop.report(&stage, &server, &other, &["--fail-on", "no-data"]);
        assert_eq!(output.status.code(), Some(3), "{promql}: {}", said(&output));
        let text = said(&output);
        assert!(text.contains("No pod was found"), "{promql}: {text}");
        assert_eq!(text.contains("named no pod of"), promql != "nothing_at_all", "{promql}: {text}");
    }
    let before = (shop.start - 7200).to_string();
    let output = shop.report(&stage, &server, &policy(&json!({})), &["--fail-on", "no-data"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let file = stage.file("policy.json").display().to_string();
    let end = shop.start.to_string();
    let early = [
        "report",
        "-f",
        &file,
        "--prometheus",
        &server,
        "--from",
        &before,
        "--to",
        &end,
        "--fail-on",
        "no-data",
    ];
    let output = kubervisor(&early, &[]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("No pod was found"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_an_hour_apart_end_nothing() {
    let (stage, mut shop) = (Stage::new(), Shop::measured());
    for pod in 0..12 {
        shop.state(pod, 0..LENGTH, |_| true);
        // Created an hour after its first sample.
        let of = format!("namespace=\"shop\",pod=\"web-{pod}\",uid=\"uid-{pod}\"");
        let created = shop.at(3600);
        shop.gauge("kube_pod_created", &format!("{of},from=\"later\""), 0..LENGTH, |_| created);
    }
    let prometheus = shop.serve(&stage).await;
    let server = prometheus.address.to_string();
    let model = shop.model(&stage, &server, &policy(&json!({})), &[]);
    assert_eq!((&model["fleet"]["source"], episodes(&model).len()), (&"kube-state-metrics".into(), 2));
    // The server's last hour is missing.
    let file = stage.file("policy.json").display().to_string();
    let from = shop.start.to_string();
    let arguments =
        ["report", "-f", &file, "--prometheus", &server, "--from", &from, "--to", "now", "-o", "json"];
    let output = kubervisor(&arguments, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let model: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(episodes(&model).len(), 2);
    let hole = model["policies"][0]["noData"].as_array().unwrap().last().unwrap();
    assert_eq!(hole["to"], model["to"], "until the end of the range");
}

#[test]
fn ranges_and_manifests_with_mistakes_are_refused_before_anything_is_asked() {
    let stage = Stage::new();
    let good = stage.write("good.json", &policy(&json!({})).to_string()).display().to_string();
    let report = |file: &str, further: &[&str]| {
        // The server is not there: what asks it fails with 1.
        let arguments = ["report", "-f", file, "--prometheus", "127.0.0.1:1"];
        let output = kubervisor(&[&arguments, further].concat(), &[]);
        (output.status.code(), said(&output))
    };
    for (range, words) in [
        (["--from", "2030-01-01T00:00:00Z", "--to", "2031-01-01T00:00:00Z"], "future"),
        (["--from", "now", "--to", "now"], "not later"),
        (["--from", "1h", "--to", "2020-01-01"], "--to"),
        (["--from", "2020-01-02T00:00:00Z", "--to", "2020-01-01T00:00:00Z"], "not later"),
        (["--from", "seven days", "--to", "now"], "7d"),
    ] {
        let (code, text) = report(&good, &range);
        assert_eq!((code, text.contains(words)), (Some(2), true), "{range:?}: {text}");
    }
    let mut wrong = policy(&json!({"minPodsAvailableRatio": 400, "thresholt": 3}));
    wrong["spec"]["panicThreshold"] = "much".into();
    let wrong = stage.write("wrong.json", &wrong.to_string()).display().to_string();
    let (code, text) = report(&wrong, &[]);
    assert_eq!(code, Some(2));
    let checked = said(&kubervisor(&["check", &wrong], &[]));
    let mistakes: Vec<&str> = checked.lines().filter(|line| line.contains("wrong.json")).collect();
    assert!(mistakes.len() >= 3, "{checked}");
    for mistake in mistakes {
        assert!(text.contains(mistake), "{mistake}: {text}");
    }
    let (code, text) = report(&stage.file("nowhere.yaml").display().to_string(), &[]);
    assert_eq!((code, text.contains("nowhere.yaml")), (Some(2), true), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_a_report_that_says_where_it_ends() {
    let (stage, shop) = (Stage::new(), Shop::measured());
    let prometheus = shop.serve(&stage).await;
    let third = format!("start={}.000", shop.start + 20_000);
    let front = Front::start(&stage, prometheus.address, move |request| {
        // The policy's own query, not those that look for the fleet.
        request.contains(&third).then_some(Fault::Hangs)
    })
    .await;
    let file = stage.write("policy.json", &policy(&json!({})).to_string());
    let page = stage.write("page.html", "the page of before");
    let (from, to) = (shop.start.to_string(), (shop.start + LENGTH).to_string());
    let child = Command::new(PROGRAM)
        .args(["report", "-f", file.to_str().unwrap(), "--from", &from, "--to", &to, "-o", "json"])
        .args(["--html", page.to_str().unwrap()])
        .args(["--prometheus", &front.address.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    // Three parts are on their way at once: when the fourth is asked for, the first has arrived.
    let fourth = format!("start={}.000", shop.start + 30_000);
    while !front.asked.lock().iter().any(|request| request.contains(&fourth)) {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{}", said(&output));
    let model: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(model["partial"].as_str().unwrap().contains("interrupted"));
    let replayed = model["replayedTo"].as_str().unwrap();
    assert!([shop.time(10_000), shop.time(20_000)].iter().any(|end| end == replayed), "{replayed}");
    assert_eq!(episodes(&model)[0].0, "web-3", "what happened before is there");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"), "a whole page");
    assert!(page.contains("interrupted") && page.contains("web-3"), "that says the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_reach_no_terminal_and_no_markup() {
    let (stage, mut shop) = (Stage::new(), Shop::measured());
    let name = format!("<script>alert(1)</script>\u{202e}\u{1b}[31m&\\\"{}", "x".repeat(10_000));
    let labels = format!("namespace=\"shop\",pod=\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    shop.gauge("latency", &labels, 0..LENGTH, |at| if at > 3600 { 5.0 } else { 0.1 });
    let prometheus = shop.serve(&stage).await;
    let server = prometheus.address.to_string();
    let model = shop.model(&stage, &server, &policy(&json!({})), &[]);
    assert!(episodes(&model)[0].0.starts_with("<script>alert(1)</script>\u{202e}"), "JSON has it as it is");
    for format in ["text", "junit"] {
        let output = shop.report(&stage, &server, &policy(&json!({})), &["-o", format]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains('\u{202e}') && !text.contains('\u{1b}'), "{text}");
        assert!(text.len() < 20_000, "{} bytes", text.len());
    }
}
