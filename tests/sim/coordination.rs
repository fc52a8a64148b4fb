//! Replicas that share services while their machines, the network and the API server fail as the plan says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kubervisor::{
    alarms::Alarms,
    clock::{Clock, SimulatedClock},
    decide::time::Timestamp,
    metrics::Metrics,
    runtime::Runtime,
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use turmoil::Sim;

use crate::{
    api_server::ApiServer,
    mutant::Mutant,
    plan::{Fault, Machine, Plan},
    recorder::{self, Recorder, digest},
    replica::{LEASE, Process, Work},
};

/// 2026-01-01, when each run begins.
const BEGIN: i64 = 1_767_225_600_000;
/// What may follow an ended lease until the next owner works, if the API server answers at least each second request of a
/// replica about Leases.
const SETTLING: Duration = Duration::from_secs(2);

/// What each further request costs that it refuses or does not answer: the request's deadline, and the longest pause before
/// the next attempt, to which as much is added at random.
fn attempt() -> Duration {
    LEASE / 6 + LEASE / 8 * 2
}

/// What the replicas do, and for how long.
pub struct Scenario {
    pub services: usize,
    pub tick: Duration,
    pub duration: Duration,
    /// No incident begins or goes on after this.
    pub calm_from: Duration,
    /// Fills the API server and starts its controllers.
    pub prepare: fn(&ApiServer, usize),
    /// Runs on the API server's host beside it.
    pub beside: fn(ApiServer, usize),
    /// The work of a process.
    pub work: fn(&Arc<Process>, &ApiServer) -> Arc<dyn Work>,
    /// Promises of this work.
    pub check: fn(&ApiServer, &Recorder),
}

/// What a run has shown.
pub struct Outcome {
    pub violation: Option<String>,
    pub trace: Vec<String>,
    /// Each stored change, and each request about a Lease that the API server did not answer as it should.
    pub stored: Vec<String>,
    pub digest: u64,
    pub longest_unowned: Duration,
    /// How long a service may be without an owner, as far as the API server answers.
    pub limit: Duration,
}

/// What the main loop can do to a running process.
#[derive(Clone)]
struct Running {
    clock: &'static SimulatedClock,
    stop: CancellationToken,
}

struct Run<'a> {
    sim: Sim<'a>,
    limit: Duration,
    plan: Plan,
    server: ApiServer,
    recorder: Recorder,
    running: Arc<Mutex<BTreeMap<&'static str, Running>>>,
    /// Replicas that cannot do their work at present.
    away: BTreeSet<&'static str>,
}

/// One run of `scenario`.
pub fn run(seed: u64, scenario: &Scenario, mutant: Option<Mutant>) -> Outcome {
    fastrand::seed(seed);
    let plan = Plan::draw(seed, scenario.calm_from);
    let recorder = Recorder::new(scenario.services, plan.clocks_agree());
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(scenario.tick)
        .max_message_latency(Duration::from_millis(40))
        .simulation_duration(scenario.duration * 2)
        .build();
    let server = ApiServer::new(seed);
    server.set_faults(plan.usual);
    (scenario.prepare)(&server, scenario.services);
    let (host, beside, services) = (server.clone(), scenario.beside, scenario.services);
    sim.host("api", move || {
        beside(host.clone(), services);
        host.clone().serve()
    });
    let running = Arc::new(Mutex::new(BTreeMap::new()));
    for machine in plan.machines.clone() {
        let (server, recorder, running) = (server.clone(), recorder.clone(), Arc::clone(&running));
        let (starts, work) = (AtomicU64::new(0), scenario.work);
        sim.host(machine.host, move || {
            let start = starts.fetch_add(1, Ordering::Relaxed);
            let (process, control) = process(machine, start, services, &recorder, mutant);
            running.lock().insert(machine.host, control);
            let work = work(&process, &server);
            async move {
                process.run(work).await;
                Ok(())
            }
        });
    }
    let away = BTreeSet::new();
    // A slow clock sees the end of another's lease later. A fast one ends its own sooner, after fewer late answers, and each
    // such end is one more hand-over.
    let speeds = || plan.machines.iter().map(|machine| machine.percent).chain([100]);
    let (slowest, fastest) = (speeds().min().unwrap_or(100), speeds().max().unwrap_or(100));
    let limit = LEASE * 100 / slowest + SETTLING * fastest / 100;
    let mut run = Run { sim, limit, plan, server, recorder, running, away };
    run.play(scenario);
    run.recorder.check_history(&run.server.history());
    (scenario.check)(&run.server, &run.recorder);
    let trace = run.recorder.trace();
    Outcome {
        violation: run.recorder.violation(),
        digest: digest(&trace, &run.server.history()),
        trace,
        stored: recorder::lines(&run.server.history()).chain(run.server.refusals()).collect(),
        longest_unowned: run.recorder.longest_unowned(),
        limit: run.limit,
    }
}

fn process(
    machine: Machine,
    start: u64,
    services: usize,
    recorder: &Recorder,
    mutant: Option<Mutant>,
) -> (Arc<Process>, Running) {
    let clock: &'static SimulatedClock =
        Box::leak(Box::new(SimulatedClock { percent: machine.percent, suspended: AtomicU64::new(0) }));
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    let wall = Timestamp::from_unix_millis(BEGIN + machine.wall_ahead) + elapsed;
    let alarms = Alarms::new(Clock::simulated(wall, clock));
    let runtime = Runtime { clock: alarms.clock(), metrics: Metrics::new(&alarms), alarms };
    let stop = CancellationToken::new();
    let member = format!("{}-{start}", machine.host);
    recorder.tell(&format!("{member} starts"));
    let process = Process {
        host: machine.host,
        member,
        runtime,
        services,
        recorder: recorder.clone(),
        mutant,
        stop: stop.clone(),
    };
    (Arc::new(process), Running { clock, stop })
}

impl Run<'_> {
    fn play(&mut self, scenario: &Scenario) {
        let incidents = self.plan.incidents.clone();
        let mut steps: Vec<(Duration, bool, Fault, &'static str)> = Vec::new();
        for incident in &incidents {
            steps.push((incident.begin, true, incident.fault, incident.host));
            steps.push((incident.end, false, incident.fault, incident.host));
        }
        steps.sort_by_key(|(at, ..)| *at);
        let mut steps = steps.into_iter().peekable();
        while self.sim.elapsed() < scenario.duration && self.recorder.violation().is_none() {
            self.recorder.set_now(self.sim.elapsed());
            while let Some((_, begins, fault, host)) = steps.next_if(|(at, ..)| *at <= self.sim.elapsed()) {
                self.recorder.tell(&format!("{host} {fault:?} {}", if begins { "begins" } else { "ends" }));
                self.apply(begins, fault, host);
                self.disturbed();
            }
            if let Err(error) = self.sim.step() {
                self.recorder.violate(format!("a host failed: {error}"));
            }
            let away = self.away.iter().filter(|host| **host != "api").count();
            let live = self.plan.machines.len() - away;
            if live * 2 > self.plan.machines.len() && !self.away.contains("api") {
                let lost = self.server.lost_in_a_row().saturating_sub(1);
                self.recorder.check_owned(self.limit + attempt() * lost);
            } else {
                self.disturbed();
            }
        }
    }

    /// What has no owner is counted from now on.
    fn disturbed(&self) {
        self.recorder.disturbed();
        self.server.forget_lost();
    }

    fn apply(&mut self, begins: bool, fault: Fault, host: &'static str) {
        if begins {
            self.away.insert(host);
        } else {
            self.away.remove(host);
        }
        let sim = &mut self.sim;
        match (fault, begins) {
            (Fault::CutOff, true) => sim.partition(host, "api"),
            (Fault::Mute, true) => sim.partition_oneway(host, "api"),
            (Fault::Blind, true) => sim.partition_oneway("api", host),
            (Fault::CutOff | Fault::Mute | Fault::Blind, false) => sim.repair(host, "api"),
            (Fault::Delayed, true) => sim.hold(host, "api"),
            (Fault::Delayed, false) => sim.release(host, "api"),
            (Fault::Deaf, deaf) => self.server.set_deaf(sim.lookup(host), deaf),
            (Fault::Killed, true) => sim.crash(host),
            (Fault::Stopped, true) => self.running.lock()[host].stop.cancel(),
            (Fault::Killed | Fault::Stopped, false) => sim.bounce(host),
            (Fault::Jumped, true) => {
                self.running.lock()[host].clock.suspended.fetch_add(3_600_000, Ordering::Relaxed);
            }
            (Fault::Jumped, false) => {}
            (Fault::Storm, storms) => {
                self.server.set_faults(if storms { self.plan.storm } else { self.plan.usual });
            }
        }
    }
}

/// Prints what the run of a seed has shown; panics if a promise was broken.
pub fn report(seed: u64, outcome: &Outcome) {
    let Outcome { violation, trace, stored, digest, longest_unowned, limit } = outcome;
    if std::env::var_os("SIM_TRACE").is_some() || violation.is_some() {
        let mut lines: Vec<&String> = trace.iter().chain(stored).collect();
        lines.sort_by_key(|line| line.get(..6));
        lines.iter().for_each(|line| println!("{line}"));
    }
    println!("seed {seed}: digest {digest:016x}, longest without an owner {longest_unowned:?} of {limit:?}");
    if let Some(violation) = violation {
        panic!("seed {seed}: {violation}");
    }
}
