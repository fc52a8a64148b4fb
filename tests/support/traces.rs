//! Fleets that never were, told look by look, with the truth beside them: which pod is bad from when to when.
//!
//! A trace has 20 to 60 pods and 200 to 400 looks. Every pod has a latency, and counts its requests and those that
//! failed. What is usual differs from pod to pod (a few percent, for good) and from look to look (5 to 15 percent,
//! with a memory, as averages over a minute have); now and then a single pod is slow for one look (a garbage
//! collection), and not again within the next twenty: that is no fault. A bad pod is 2.5 to 6 times as slow as it would be, and 60 to 95 percent of its
//! requests fail.
//!
//! The kinds, in turns:
//! - step: some pods (a tenth of the fleet at the most) turn bad at once, for 40 looks and more;
//! - ramp: the same within 20 to 60 looks; a pod is bad from half of the way on, and unclear before that;
//! - flapping: bad for 3 to 8 looks, well for one or two, and so on: bad all the time, as far as its users go;
//! - zone: a third of the fleet turns bad within three looks;
//! - common cause: the whole fleet gets slow and fails, each pod by its own factor and up to two looks later than
//!   the first: nobody is bad;
//! - missing data: a step, while 2 to 15 percent of the samples are missing, old, twice there or no number, some pods
//!   vanish for 20 looks, and one look in 50 is not answered at all;
//! - diurnal: a step, while the load swings by up to 70 percent, and the latency with it.
//!
//! The number of a trace is its seed: the same trace on every machine.
#![allow(dead_code, reason = "several binaries share it, none uses all")]

use std::{f64::consts::TAU, ops::Range};

use fastrand::Rng;

/// What happens in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Step,
    Ramp,
    Flapping,
    Zone,
    CommonCause,
    MissingData,
    Diurnal,
}

/// So many traces make the figure.
pub(crate) const TRACES: u64 = 200;

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Step,
        Self::Ramp,
        Self::Flapping,
        Self::Zone,
        Self::CommonCause,
        Self::MissingData,
        Self::Diurnal,
    ];
}

/// What became of a pod's sample on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Arrives,
    Missing,
    Old,
    Twice,
    NoNumber,
}

/// A pod at one look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) latency: f64,
    pub(crate) requests: f64,
    pub(crate) failed: f64,
    pub(crate) delivery: Delivery,
}

/// One pod, bad for some time.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) pod: usize,
    /// Something of it can be seen: to call it bad is no mistake.
    pub(crate) seen: Range<usize>,
    /// It is bad: not to call it so is one.
    pub(crate) bad: Range<usize>,
}

/// One fleet over some time.
pub(crate) struct Trace {
    pub(crate) kind: Kind,
    pub(crate) faults: Vec<Fault>,
    /// Each look's samples, by pod.
    pub(crate) looks: Vec<Vec<Sample>>,
    /// When all of them suffer from the same.
    pub(crate) shared: Option<Range<usize>>,
    /// Looks whose question nobody answers.
    pub(crate) unanswered: Vec<usize>,
}

/// How bad each pod is at each look: 0 not at all, 1 as bad as it gets.
type Strengths = Vec<Vec<f64>>;

impl Trace {
    /// The trace of that number.
    pub(crate) fn new(number: u64) -> Self {
        let kind = Kind::ALL[(number % 7) as usize];
        let mut rng = Rng::with_seed(number);
        let (pods, looks) = (rng.usize(20..=60), rng.usize(200..=400));
        let mut strengths = vec![vec![0.0; looks]; pods];
        let shared = (kind == Kind::CommonCause).then(|| share(&mut rng, &mut strengths));
        let faults = match kind {
            Kind::CommonCause => Vec::new(),
            Kind::Zone => zone(&mut rng, &mut strengths),
            _ => some(kind, &mut rng, &mut strengths),
        };
        let mut looks = samples(kind, &mut rng, &strengths);
        let unanswered = if kind == Kind::MissingData { lose(&mut rng, &mut looks) } else { Vec::new() };
        Self { kind, faults, shared, looks, unanswered }
    }

    pub(crate) fn pods(&self) -> usize {
        self.looks[0].len()
    }
}

/// A range of at least 40 looks, with room before and after it.
fn time(rng: &mut Rng, looks: usize) -> Range<usize> {
    let from = rng.usize(20..looks - 80);
    from..rng.usize(from + 40..looks - 10)
}

/// Up to a tenth of the fleet, each pod in its own time.
fn some(kind: Kind, rng: &mut Rng, strengths: &mut Strengths) -> Vec<Fault> {
    let (pods, looks) = (strengths.len(), strengths[0].len());
    let many = rng.usize(1..=pods / 10);
    let chosen = rng.choose_multiple(0..pods, many);
    let one = |pod: usize| {
        let bad = time(rng, looks);
        match kind {
            Kind::Ramp => ramp(rng, pod, bad, &mut strengths[pod]),
            Kind::Flapping => flap(rng, pod, bad, &mut strengths[pod]),
            _ => {
                strengths[pod][bad.clone()].fill(1.0);
                Fault { pod, seen: bad.clone(), bad }
            }
        }
    };
    chosen.into_iter().map(one).collect()
}

fn ramp(rng: &mut Rng, pod: usize, time: Range<usize>, strength: &mut [f64]) -> Fault {
    let length = rng.usize(20..=60.min(time.len()));
    for look in time.clone() {
        strength[look] = ((look - time.start) as f64 / length as f64).min(1.0);
    }
    Fault { pod, bad: time.start + length / 2..time.end, seen: time }
}

fn flap(rng: &mut Rng, pod: usize, time: Range<usize>, strength: &mut [f64]) -> Fault {
    let (mut look, mut last) = (time.start, time.start);
    while look < time.end {
        last = (look + rng.usize(3..=8)).min(time.end);
        strength[look..last].fill(1.0);
        look = last + rng.usize(1..=2);
    }
    let bad = time.start..last;
    Fault { pod, seen: bad.clone(), bad }
}

fn zone(rng: &mut Rng, strengths: &mut Strengths) -> Vec<Fault> {
    let (pods, time) = (strengths.len(), time(rng, strengths[0].len()));
    let one = |pod: usize| {
        let bad = time.start + rng.usize(0..3)..time.end;
        strengths[pod][bad.clone()].fill(1.0);
        Fault { pod, seen: bad.clone(), bad }
    };
    // Zones take turns among the pods of a Deployment.
    (0..pods).step_by(3).map(one).collect()
}

fn share(rng: &mut Rng, strengths: &mut Strengths) -> Range<usize> {
    let time = time(rng, strengths[0].len());
    for strength in strengths {
        let (early, late) = (rng.usize(0..=2), rng.usize(0..=2));
        strength[time.start + early..time.end + late].fill(rng.f64() * 0.3 + 0.7);
    }
    time
}

/// Normal noise, the sum of many small things.
fn normal(rng: &mut Rng) -> f64 {
    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (TAU * rng.f64()).cos()
}

fn between(rng: &mut Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.f64()
}

fn samples(kind: Kind, rng: &mut Rng, strengths: &Strengths) -> Vec<Vec<Sample>> {
    let looks = strengths[0].len();
    let (usual, factor) = (between(rng, 0.05, 0.5), between(rng, 2.5, 6.0));
    let (own, noise, memory) = (between(rng, 0.03, 0.1), between(rng, 0.05, 0.15), between(rng, 0.0, 0.6));
    let (requests, failing) = (between(rng, 20.0, 200.0), between(rng, 0.6, 0.95));
    let swing = if kind == Kind::Diurnal { between(rng, 0.3, 0.7) } else { 0.05 };
    let mut pods = Vec::new();
    for strength in strengths {
        let (mine, mut drift, mut rest) = ((own * normal(rng)).exp(), normal(rng), 0_usize);
        let one = |look: usize| {
            drift = memory * drift + (1.0 - memory * memory).sqrt() * normal(rng);
            // Then there is no garbage to collect for a while.
            rest = if rest == 0 && rng.f64() < 0.003 { 20 } else { rest.saturating_sub(1) };
            let hiccup = if rest == 20 { between(rng, 2.0, 5.0) } else { 1.0 };
            let load = 1.0 + swing * (TAU * look as f64 / looks as f64 * 2.0).sin();
            let slow = 1.0 + strength[look] * (factor - 1.0);
            let requests = (requests * load * (0.1 * normal(rng)).exp()).round();
            let share = 0.01 + strength[look] * (failing - 0.01);
            let spread = (requests * share * (1.0 - share)).sqrt();
            let failed = (requests * share + spread * normal(rng)).round().clamp(0.0, requests);
            let latency = usual * mine * load * slow * hiccup * (noise * drift).exp();
            Sample { latency, requests, failed, delivery: Delivery::Arrives }
        };
        pods.push((0..looks).map(one).collect::<Vec<_>>());
    }
    (0..looks).map(|look| pods.iter().map(|samples| samples[look]).collect()).collect()
}

/// Loses samples; says which looks get no answer.
fn lose(rng: &mut Rng, looks: &mut [Vec<Sample>]) -> Vec<usize> {
    let rate = between(rng, 0.02, 0.15);
    let ways = [Delivery::Missing, Delivery::Old, Delivery::Twice, Delivery::NoNumber];
    for sample in looks.iter_mut().flatten() {
        if rng.f64() < rate {
            sample.delivery = ways[rng.usize(0..ways.len())];
        }
    }
    let (pods, length) = (looks[0].len(), looks.len());
    for pod in rng.choose_multiple(0..pods, pods / 10) {
        let from = rng.usize(0..length - 20);
        looks[from..from + 20].iter_mut().for_each(|look| look[pod].delivery = Delivery::Missing);
    }
    (0..length).filter(|_| rng.f64() < 0.02).collect()
}
