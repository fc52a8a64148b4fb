//! `kubervisor report` over a week of a real Prometheus: 100 pods, an evaluation every 15 s, one policy and eight; and the
//! replay alone, without a server.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use kubervisor::{
    api::{self, Context, Detectors, Manifest},
    clock::Clock,
    decide::{
        detect::{listed::FleetScope, queried::JudgedAnswer, series::VectorElement},
        replay::{
            Replay, ReplayLog, ReplayStep,
            answers::{RangeAnswer, RangeSeries},
            history::{FleetChange, FleetEvent, HistoricPod},
        },
        time::Timestamp,
    },
};
use serde_json::{Value, json};

use crate::{
    backfill::Backfill,
    cores,
    report::{Figure, Goal, Report},
    running::{pause, peak},
    scraper::Prometheus,
};

const PODS: u64 = 100;
const STEP: u64 = 15;
const STEPS: u64 = 7 * 86_400 / STEP;
/// As the report asks: so many steps in a request, and three requests at a time.
const PART: u64 = 2000;
const AT_ONCE: usize = 3;
const QUERY: &str = "latency{namespace=\"shop\"}";

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    core_alone(report)?;
    cores::on_all(|| of_a_server(report))?
}

/// The latency of a pod: six of them are slow for an hour or two.
fn latency(pod: u64, step: u64) -> f64 {
    let usual = 0.1 + 0.001 * ((pod * 7 + step * 13) % 23) as f64;
    let slow = pod < 6 && (0..400 + pod * 20).contains(&(step.wrapping_sub(pod * 6000 + 1000)));
    if slow { usual * 6.0 } else { usual }
}

fn manifest(server: &str) -> Value {
    json!({
        "apiVersion": api::API_VERSION, "kind": api::KIND, "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"service": "web", "breakers": [{
            "name": "slow", "evaluationPeriod": STEP, "minPodsAvailableRatio": 60,
            "activator": {"mode": "periodic", "period": 300},
            "outlier": {"prometheusService": server, "promQL": QUERY, "podNamekey": "pod"},
        }]},
    })
}

#[derive(Default)]
struct Counts {
    evaluations: u64,
    withheld: u64,
}

impl ReplayLog for Counts {
    fn evaluated(&mut self, _: &JudgedAnswer) {
        self.evaluations += 1;
    }

    fn planned(&mut self, step: &ReplayStep<'_>) {
        self.withheld = self.withheld.max(step.after.entries.len() as u64);
    }
}

fn core_alone(report: &mut Report) -> anyhow::Result<()> {
    let context = Context { detectors: Detectors::All, timing: None, sources: &[] };
    let Manifest { policy, rules, .. } =
        api::parse("bench", &manifest("prometheus:9090").to_string(), context)?.remove(0);
    let start = Timestamp::from_unix_millis(1_700_000_000_000);
    let series = |pod: u64| RangeSeries {
        element: VectorElement {
            pod: Some(format!("web-{pod}")),
            namespace: None,
            key: None,
            labels: HashMap::new(),
            value: None,
            at: start,
        },
        values: (0..STEPS).map(|step| latency(pod, step)).collect(),
    };
    let answer = RangeAnswer {
        start,
        step: i64::try_from(STEP * 1000)?,
        steps: usize::try_from(STEPS)?,
        series: (0..PODS).map(series).collect(),
    };
    let appears = |pod: u64| {
        let name = format!("web-{pod}");
        let pod = HistoricPod {
            uid: name.as_str().into(),
            name,
            created: None,
            reusable_name: false,
            has_controller: true,
            node: None,
            ready: true,
        };
        FleetEvent { at: start, change: FleetChange::Appears(pod) }
    };
    let events: Vec<FleetEvent> = (0..PODS).map(appears).collect();
    let scope = FleetScope { namespace: "shop".into(), by_uid: true };
    let mut replay = Replay::new(&policy, &rules, scope, start);
    let (mut counts, began) = (Counts::default(), Instant::now());
    replay.advance(answer.time(answer.steps), &events, &HashMap::from([("slow", &answer)]), &mut counts);
    let took = began.elapsed().as_secs_f64();
    ensure!(counts.evaluations == STEPS && counts.withheld > 0, "the replay did not work");
    report.add(
        Figure::new("replay alone: evaluations of 100 pods", counts.evaluations as f64 / took, "/s")
            .goal(Goal::AtLeast(50_000.0))
            .note(format!(
                "{STEPS} evaluations of {PODS} pods, each followed by a plan, in {took:.2} s on one core"
            )),
    );
    Ok(())
}

fn of_a_server(report: &mut Report) -> anyhow::Result<()> {
    let now = u64::try_from(Clock::start().wall().unix_millis() / 1000)?;
    let start = (now - 8 * 86_400) / 60 * 60;
    let mut history = Backfill::default();
    for pod in 0..PODS {
        let labels = format!("namespace=\"shop\",pod=\"web-{pod}\"");
        for step in 0..STEPS {
            history.sample("latency", &labels, latency(pod, step), (start + step * STEP) as f64);
        }
    }
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let prometheus = runtime.block_on(history.serve(directory.path(), Ipv4Addr::LOCALHOST, &[]));
    drop(history);
    // Once, so that the server has its index in memory for all.
    queries(&prometheus, start)?;
    let alone = queries(&prometheus, start)?;
    let file = directory.path().join("web.json");
    std::fs::write(&file, manifest(&prometheus.address.to_string()).to_string())?;
    let run = |further: &[&str]| -> anyhow::Result<ReportRun> {
        let (from, to) = (start.to_string(), (start + STEPS * STEP).to_string());
        let file = file.to_str().context("a path of UTF-8")?;
        let arguments = ["report", "-f", file, "--from", &from, "--to", &to, "-o", "json"];
        report_run(&[&arguments, further].concat())
    };
    let page = directory.path().join("report.html");
    let (one, eight) = (
        run(&["--html", page.to_str().context("a path of UTF-8")?])?,
        run(&["--set", "breakers[slow].outlier.threshold=3,3.5,4,4.5,5,6,7,8"])?,
    );
    let episodes = &one.model["policies"][0]["episodes"];
    let evaluations = one.model["policies"][0]["summary"]["evaluations"].as_u64();
    ensure!(
        evaluations == Some(STEPS) && episodes.as_array().is_some_and(|all| !all.is_empty()),
        "{}",
        one.model
    );
    ensure!(eight.model["policies"].as_array().is_some_and(|all| all.len() == 8), "eight policies");
    report.add(
        Figure::new("report over 7 days of 100 pods, every 15 s", one.took.as_secs_f64(), "s")
            .goal(Goal::AtMost(15.0))
            .note(format!("{STEPS} evaluations, {} samples, real Prometheus", STEPS * PODS)),
    );
    let size = std::fs::metadata(&page)?.len() as f64 / f64::from(1 << 10);
    report.add(
        Figure::new("page of that report", size, "KiB")
            .goal(Goal::AtMost(2048.0))
            .note("drawn within 1 s: `cargo test --test browser drawn_within`"),
    );
    let (report_s, alone_s) = (one.took.as_secs_f64(), alone.as_secs_f64());
    report.add(
        Figure::new("the same over the server's own time", report_s / alone_s, "x")
            .goal(Goal::AtMost(2.0))
            .note(format!("the same requests, three at a time, answers thrown away: {alone_s:.2} s")),
    );
    report.add(
        Figure::new("its RSS", one.peak_mib, "MiB").goal(Goal::AtMost(150.0)).note("highest value seen"),
    );
    report.add(
        Figure::new("8 policies over one", eight.took.as_secs_f64() / report_s, "x")
            .goal(Goal::AtMost(1.5))
            .note(format!("{:.2} s, {:.0} MiB", eight.took.as_secs_f64(), eight.peak_mib)),
    );
    Ok(())
}

/// The time that the server needs for the queries of a report.
fn queries(prometheus: &Prometheus, start: u64) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let parts: Vec<u64> = (0..STEPS.div_ceil(PART)).collect();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|worker| {
                let own: Vec<u64> = parts.iter().copied().skip(worker).step_by(AT_ONCE).collect();
                scope.spawn(move || {
                    own.into_iter().try_for_each(|part| query(prometheus.address, start, part))
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker ends"))
    })?;
    Ok(began.elapsed())
}

/// One request, as the report sends it; the answer is read to its end.
fn query(server: SocketAddrV4, start: u64, part: u64) -> anyhow::Result<()> {
    let (from, to) = (part * PART, ((part + 1) * PART).min(STEPS) - 1);
    let body = format!(
        "query=latency%7Bnamespace%3D%22shop%22%7D&start={}&end={}&step={STEP}",
        start + from * STEP,
        start + to * STEP
    );
    let mut stream = TcpStream::connect(server)?;
    write!(
        stream,
        "POST /api/v1/query_range HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer[..answer.len().min(500)])
    );
    Ok(())
}

struct ReportRun {
    took: Duration,
    peak_mib: f64,
    model: Value,
}

fn report_run(arguments: &[&str]) -> anyhow::Result<ReportRun> {
    let began = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubervisor"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let (pid, mut output) = (child.id(), child.stdout.take().context("a pipe")?);
    let watcher = std::thread::spawn(move || {
        let mut highest = 0;
        while let Ok(now) = peak(pid)
            && now > 0
        {
            highest = highest.max(now);
            pause(Duration::from_millis(20));
        }
        highest as f64 / f64::from(1 << 20)
    });
    let mut text = String::new();
    output.read_to_string(&mut text)?;
    let status = child.wait()?;
    let took = began.elapsed();
    ensure!(status.success(), "the report ended with {status}");
    let peak_mib = watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
    Ok(ReportRun { took, peak_mib, model: serde_json::from_str(&text)? })
}
