//! The web view of 1000 resources: one page, and 20 pages that are open while nothing changes.
//!
//! The pages are served by this process over loopback, from fleets that are made up.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use kubervisor::{
    admin::{self, Views},
    alarms::Alarms,
    clock::Clock,
    decide::{fleet::Traffic, gate::budget::Budget, time::Timestamp},
    roles::{
        gate::snapshot::{GateMode, GateSnapshot, PodSnapshot},
        view::{View, listener::PageListener},
    },
};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::report::{Figure, Goal, Report};

const RESOURCES: usize = 1000;
const PODS: u32 = 100;
const ROUNDS: usize = 20;
const OPEN: usize = 20;
const QUIET: Duration = Duration::from_secs(30);

/// A process with so many fleets, all well.
struct Fleets {
    fleets: Vec<Arc<GateSnapshot>>,
    alarms: Alarms,
}

impl Fleets {
    fn new(clock: Clock) -> Self {
        let fleet = |number: usize| {
            let pod = |pod: u32| PodSnapshot {
                id: format!("web-{number}-7d9f8c5b6-{pod:05}"),
                uid: format!("00000000-0000-0000-0000-{number:06}{pod:06}").as_str().into(),
                detail: None,
                ready: true,
                traffic: Traffic::Yes,
                breaker: None,
                break_at: None,
                retry_count: 0,
                explanation: None,
                summary: String::new(),
                history: [].into(),
            };
            let budget =
                Budget { desired: PODS, existing: PODS, floor: 50, serving: PODS, ..Budget::default() };
            let mut fleet = GateSnapshot {
                namespace: format!("team-{}", number % 40),
                name: format!("service-{number:04}"),
                part: GateMode::Leading,
                at: Timestamp::from_unix_millis(1_700_000_000_000),
                pods: (0..PODS).map(pod).collect(),
                ..GateSnapshot::default()
            };
            fleet.floor.budget = budget;
            Arc::new(fleet)
        };
        Self { fleets: (0..RESOURCES).map(fleet).collect(), alarms: Alarms::new(clock) }
    }
}

impl Views for Fleets {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn ensemble(&self) -> Value {
        json!({})
    }

    fn cluster(&self) -> Value {
        json!({})
    }

    fn fleets(&self) -> Vec<Arc<GateSnapshot>> {
        self.fleets.clone()
    }

    fn alarms(&self) -> &Alarms {
        &self.alarms
    }
}

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (clock, stop) = (Clock::start(), CancellationToken::new());
    let view = View::new(Arc::new(Fleets::new(clock)), clock, stop.clone());
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let port = listener.local_addr()?.port();
    runtime.spawn(view.clone().record(stop.clone()));
    runtime.spawn(admin::serve(PageListener::new(listener, None), view.local_routes(), stop.clone()));
    overview(report, port)?;
    idle(report, port)?;
    stop.cancel();
    Ok(())
}

fn request(port: u16, path: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    Ok(stream)
}

fn overview(report: &mut Report, port: u16) -> anyhow::Result<()> {
    let mut answer = Vec::new();
    let mut times = Vec::new();
    for _ in 0..=ROUNDS {
        answer.clear();
        let began = Instant::now();
        request(port, "/view?sort=state")?.read_to_end(&mut answer)?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "the overview was refused");
    // The first one also parses the templates.
    let first = times.remove(0);
    times.sort_by(f64::total_cmp);
    let most = times.last().copied().unwrap_or_default();
    let note = format!("slowest of {ROUNDS}, connection included; the first {first:.1}");
    report.add(Figure::new("overview of 1000 resources", most, "ms").goal(Goal::AtMost(20.0)).note(note));
    let size = answer.len() as f64 / 1024.0;
    report.add(Figure::new("size of that page", size, "KiB").goal(Goal::AtMost(300.0)));
    Ok(())
}

fn idle(report: &mut Report, port: u16) -> anyhow::Result<()> {
    let open: Vec<TcpStream> = (0..OPEN).map(|_| request(port, "/view/live")).collect::<Result<_, _>>()?;
    let before = spent()?;
    std::thread::park_timeout(QUIET);
    let share = (spent()? - before).as_secs_f64() / QUIET.as_secs_f64() * 100.0;
    drop(open);
    let note = format!("of a core, over {} s, 1000 resources of 100 pods", QUIET.as_secs());
    report.add(Figure::new("20 open views, nothing changes", share, "%").goal(Goal::AtMost(1.0)).note(note));
    Ok(())
}

/// CPU time of this process.
fn spent() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
    Ok(Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time())))
}
