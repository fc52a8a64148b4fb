//! Several controllers that share resources: what a hand-over costs, and what sharing costs.
//!
//! A resource is worked on when its detector is asked; each has a detector of its own, so that the times of the
//! requests say when a resource had no owner.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use crate::{
    plane_stage::{Asked, Controller, Detector, Fleets, Stage, Witness, counted, on_a_plane, wait},
    report::{Figure, Goal, Report, median, percentile},
};

const SERVICES: u32 = 20;
/// `evaluationPeriod`, in seconds.
const PERIOD: f64 = 0.25;
const LEASE: u64 = 3;
const KILLS: usize = 30;
const STOPS: usize = 10;
const FROZEN: Duration = Duration::from_secs(30);
/// How long requests are counted.
const MINUTE: Duration = Duration::from_secs(60);
/// The default of `--lease`, which is renewed every third of it.
const DEFAULT_LEASE: u64 = 15;

/// An owner that is killed, stopped or frozen: when others work on its resources.
pub(crate) fn measure_take_over(report: &mut Report) -> anyhow::Result<()> {
    on_a_plane(async |stage| Bench::start(stage).await?.successions(report).await)
}

pub(crate) fn measure_rolling(report: &mut Report) -> anyhow::Result<()> {
    on_a_plane(async |stage| Bench::start(stage).await?.rolling_restart(report).await)
}

/// What several replicas ask, write and use, over what one does.
pub(crate) fn measure_sharing(report: &mut Report) -> anyhow::Result<()> {
    on_a_plane(async |stage| {
        let bench = Bench::start(stage).await?;
        let one = bench.minute(1).await?;
        let three = bench.minute(3).await?;
        let five = bench.minute(5).await?;
        sharing(report, &one, &three, &five);
        Ok(())
    })
}

struct Bench<'a> {
    stage: &'a Stage,
    fleets: Fleets<'a>,
    detector: Detector,
}

/// What that many replicas did in a minute.
struct Minute {
    questions: usize,
    requests: Vec<Asked>,
    processor: Vec<Duration>,
}

impl Minute {
    fn requests_for(&self, resources: &[&str]) -> usize {
        self.requests.iter().filter(|asked| resources.contains(&asked.resource.as_str())).count()
    }

    fn processor_in_all(&self) -> f64 {
        self.processor.iter().map(Duration::as_secs_f64).sum()
    }
}

impl<'a> Bench<'a> {
    async fn start(stage: &'a Stage) -> anyhow::Result<Self> {
        let fleets = Fleets::make(stage, "replicas", SERVICES, 1).await?;
        let detector = Detector::start().await?;
        fleets.gate_each(&detector, PERIOD)?;
        Ok(Self { stage, fleets, detector })
    }

    fn replica(&self, name: &str, lease: u64) -> anyhow::Result<Controller> {
        Controller::replica(&self.fleets, name, lease)
    }

    /// Waits until each resource is worked on, by all of these replicas together.
    async fn shared(&self, replicas: &[&Controller]) -> anyhow::Result<()> {
        wait("the replicas share all resources", Duration::from_secs(60), async || {
            let (mut owned, mut least) = (0.0, f64::MAX);
            for replica in replicas {
                let own = replica.metric("kubervisor_cluster_owned_services").await.unwrap_or(0.0);
                (owned, least) = (owned + own, least.min(own));
            }
            Ok((owned == f64::from(SERVICES) && least > 0.0).then_some(()))
        })
        .await
    }

    /// From now until every resource's detector has been asked again.
    async fn all_asked(&self, from: Instant) -> anyhow::Result<Duration> {
        wait("every detector is asked again", Duration::from_secs(60), async || {
            let asked = self.detector.asked_since(from);
            let first = asked.values().map(|times| times.first().copied()).collect::<Option<Vec<_>>>();
            Ok(first.and_then(|first| first.into_iter().max()).map(|last| last - from))
        })
        .await
    }

    /// Ends one of two owners again and again; the other one takes over.
    async fn successions(&self, report: &mut Report) -> anyhow::Result<()> {
        let stays = self.replica("stays", LEASE)?;
        let mut kills = Vec::new();
        for _ in 0..KILLS {
            kills.push(self.succession(&stays, Signal::SIGKILL).await?);
        }
        let middle = median(&mut kills);
        report.add(
            Figure::new("owner SIGKILL -> its services worked on again", percentile(&mut kills, 1.0), "s")
                .goal(Goal::AtMost(5.0))
                .note(format!("slowest of {KILLS}, median {middle:.2} s; lease {LEASE} s")),
        );
        let mut stops = Vec::new();
        for _ in 0..STOPS {
            stops.push(self.succession(&stays, Signal::SIGTERM).await?);
        }
        let middle = median(&mut stops);
        report.add(
            Figure::new("owner SIGTERM -> its services worked on again", percentile(&mut stops, 1.0), "s")
                .goal(Goal::AtMost(1.0))
                .note(format!(
                    "slowest of {STOPS}, median {middle:.2} s, with one evaluationPeriod of {PERIOD} s"
                )),
        );
        let ends = self.replica("ends", LEASE)?;
        self.shared(&[&stays, &ends]).await?;
        let from = Instant::now();
        ends.signal(Signal::SIGSTOP)?;
        let took = self.all_asked(from).await?;
        tokio::time::sleep(FROZEN.saturating_sub(from.elapsed())).await;
        ends.signal(Signal::SIGCONT)?;
        self.shared(&[&stays, &ends]).await?;
        report.add(
            Figure::new("owner SIGSTOP -> its services worked on again", took.as_secs_f64(), "s")
                .goal(Goal::AtMost(5.0))
                .note(format!(
                    "lease {LEASE} s; after {} s it goes on and gets its share again",
                    FROZEN.as_secs()
                )),
        );
        Ok(())
    }

    /// In seconds.
    async fn succession(&self, stays: &Controller, signal: Signal) -> anyhow::Result<f64> {
        let ends = self.replica("ends", LEASE)?;
        self.shared(&[stays, &ends]).await?;
        let from = Instant::now();
        ends.signal(signal)?;
        let took = self.all_asked(from).await?;
        // Its record goes with it, or it would be waited for in the next round.
        self.shared(&[stays]).await?;
        Ok(took.as_secs_f64())
    }

    /// Each of three replicas is stopped in order and started again.
    async fn rolling_restart(&self, report: &mut Report) -> anyhow::Result<()> {
        let names = ["one", "two", "three"];
        let mut replicas =
            names[..2].iter().map(|name| self.replica(name, LEASE)).collect::<anyhow::Result<Vec<_>>>()?;
        self.shared(&replicas.iter().collect::<Vec<_>>()).await?;
        let from = Instant::now();
        replicas.push(self.replica(names[2], LEASE)?);
        self.shared(&replicas.iter().collect::<Vec<_>>()).await?;
        report.add(
            Figure::new("a third replica is started -> it has its share", from.elapsed().as_secs_f64(), "s")
                .goal(Goal::AtMost(5.0))
                .note(format!("{SERVICES} services, lease {LEASE} s")),
        );
        let from = Instant::now();
        for (at, name) in names.iter().enumerate() {
            replicas[at].signal(Signal::SIGTERM)?;
            wait("it has ended", Duration::from_secs(30), async || {
                Ok(replicas[at].has_ended()?.then_some(()))
            })
            .await?;
            replicas[at] = self.replica(name, LEASE)?;
            self.shared(&replicas.iter().collect::<Vec<_>>()).await?;
        }
        let longest = longest_gap(&self.detector.asked_since(from)).context("no detector was asked")?;
        report.add(
            Figure::new("longest time without an owner, rolling restart", (longest - PERIOD).max(0.0), "s")
                .goal(Goal::AtMost(1.0))
                .note(format!(
                    "of {SERVICES} services: longest time between two questions, less one evaluationPeriod"
                )),
        );
        Ok(())
    }

    /// What that many replicas do in a minute in which nothing happens.
    async fn minute(&self, count: usize) -> anyhow::Result<Minute> {
        let mut replicas = (0..count)
            .map(|number| self.replica(&format!("of-{count}-{number}"), DEFAULT_LEASE))
            .collect::<anyhow::Result<Vec<_>>>()?;
        self.shared(&replicas.iter().collect::<Vec<_>>()).await?;
        // What follows from the start has been written by then.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let used = |replicas: &[Controller]| {
            replicas.iter().map(Controller::processor_time).collect::<anyhow::Result<Vec<_>>>()
        };
        let (before, witness, from) = (used(&replicas)?, Witness::new(&self.stage.plane)?, Instant::now());
        tokio::time::sleep(MINUTE).await;
        let after = used(&replicas)?;
        let questions = self.detector.asked_since(from).values().map(Vec::len).sum();
        let processor =
            after.iter().zip(before).map(|(after, before)| after.saturating_sub(before)).collect();
        let minute = Minute { questions, requests: witness.asked()?, processor };
        for replica in &replicas {
            replica.signal(Signal::SIGTERM)?;
        }
        wait("all have ended", Duration::from_secs(30), async || {
            let ended = replicas.iter_mut().map(Controller::has_ended).collect::<anyhow::Result<Vec<_>>>()?;
            Ok(ended.into_iter().all(|ended| ended).then_some(()))
        })
        .await?;
        ensure!(minute.questions > 0, "no detector was asked");
        Ok(minute)
    }
}

/// The longest time between two questions about one resource, in seconds.
fn longest_gap(asked: &BTreeMap<String, Vec<Instant>>) -> Option<f64> {
    let pairs = asked.values().flat_map(|times| times.windows(2));
    let gaps = pairs.filter_map(|pair| Some((*pair.last()? - *pair.first()?).as_secs_f64()));
    gaps.max_by(f64::total_cmp)
}

fn sharing(report: &mut Report, one: &Minute, three: &Minute, five: &Minute) {
    let ratio = |of: usize, over: usize| of as f64 / over.max(1) as f64;
    report.add(
        Figure::new("questions to detectors, 3 replicas over 1", ratio(three.questions, one.questions), "x")
            .goal(Goal::AtMost(1.02))
            .note(format!("{} and {} in a minute", three.questions, one.questions)),
    );
    let written = ["kubervisorservices/status", "events"];
    let (few, many) = (one.requests_for(&written), three.requests_for(&written));
    report.add(
        Figure::new(
            "status writes and Events, 3 replicas less those of 1",
            many as f64 - few as f64,
            "requests",
        )
        .goal(Goal::AtMost(0.0))
        .note(format!("{many} and {few} in a minute in which nothing happens")),
    );
    let coordination = ["leases", "configmaps"];
    let goal = 6.0 * 60.0 / (DEFAULT_LEASE as f64 / 3.0) * 1.1;
    report.add(
        Figure::new(
            "API requests for coordination, 5 replicas, a minute",
            five.requests_for(&coordination) as f64,
            "requests",
        )
        .goal(Goal::AtMost(goal))
        .note(format!("{SERVICES} services; all requests: {}", counted(&five.requests))),
    );
    let all = five.processor_in_all();
    report.add(
        Figure::new("CPU, 5 replicas over 1", all / one.processor_in_all(), "x")
            .goal(Goal::AtMost(1.25))
            .note(format!("{all:.2} s and {:.2} s in a minute", one.processor_in_all())),
    );
    let largest = five.processor.iter().max().copied().unwrap_or_default().as_secs_f64();
    report.add(
        Figure::new("largest share of one of 5 replicas in that CPU", largest / all * 100.0, "%")
            .goal(Goal::AtMost(30.0)),
    );
}
