//! Every detector before the traces, through the functions that production calls, and what its verdicts are worth.
//!
//! A rule comes out of a manifest, so it has the manifest's defaults. A question is judged as an answer of
//! Prometheus (`queried::judge`), a pointer as the payloads of keepalives (`detect::evaluate`); no pod is withheld, so a
//! verdict changes nothing about the next.
//!
//! What is counted are pods at looks. Bad by label and by verdict is a hit; bad by label only a miss; bad by verdict
//! only a false alarm; F1 = 2 hits / (2 hits + misses + false alarms). Not counted are
//! - the first [`TOLERANCE`] looks of a fault and as many after its end, because a verdict is over several looks;
//! - looks at which a fault can be seen but is not yet bad (a ramp's first half);
//! - misses at a look that has no sample of the pod: there is nothing to detect in nothing.
//!
//! The reaction time of a fault is the number of looks from the first bad one to the first bad verdict, both
//! included; one that is never found counts as its whole length, and its pod's misses are in F1.
#![allow(dead_code, reason = "several binaries share it, none uses all")]

use std::{collections::HashMap, sync::Arc, time::Duration};

use kubervisor::{
    api::{self, Context, Detectors, Manifest},
    decide::{
        detect::{
            self, BreakerSelection, LifeStatus, Observation, Windows,
            listed::FleetScope,
            queried::{self, QueryAnswer},
            series::{Vector, VectorElement},
        },
        fleet::Traffic,
        gate::action::Verb,
        policy::Policy,
        time::Timestamp,
        verdict::Source,
    },
};
use serde_json::{Value, json};

use crate::{
    traces::{Delivery, Sample, Trace},
    world::{Sink, World},
};

/// So many looks may pass between a change and the verdict: the window of `consecutive`.
pub(crate) const TOLERANCE: usize = 5;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// Which detector, and from where it has its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    OutlierByQuery,
    OutlierByPointer,
    /// The query divides by the fleet's median, and less than twice that is nobody's trouble.
    OutlierByRatio,
    /// What is below half as much again is nobody's trouble.
    OutlierByHalf,
    /// The spread alone decides.
    OutlierBySpread,
    Discrete,
    Deviation,
    Bounds,
}

impl Candidate {
    pub(crate) const ALL: [Self; 8] = [
        Self::OutlierByQuery,
        Self::OutlierByPointer,
        Self::OutlierByRatio,
        Self::OutlierByHalf,
        Self::OutlierBySpread,
        Self::Discrete,
        Self::Deviation,
        Self::Bounds,
    ];

    /// As the manifest calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OutlierByQuery => "outlier, promQL",
            Self::OutlierByPointer => "outlier, pointer",
            Self::OutlierByRatio => "outlier, promQL x / median, minDeviation 1",
            Self::OutlierByHalf => "outlier, minRelativeDeviation 0.5",
            Self::OutlierBySpread => "outlier, minRelativeDeviation 0",
            Self::Discrete => "discreteValueOutOfList",
            Self::Deviation => "continuousValueDeviation",
            Self::Bounds => "keepalive, max",
        }
    }

    /// A manifest with this detector alone; `usual` is what a careful user would know of the fleet.
    fn manifest(self, usual: f64) -> Manifest {
        let query = json!({"prometheusService": "prometheus:9090", "promQL": "x", "podNamekey": "pod"});
        let and = |more: Value| {
            let mut all = query.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        let breaker = match self {
            Self::OutlierByQuery => json!({"name": "x", "outlier": query}),
            Self::OutlierByRatio => json!({"name": "x", "outlier": and(json!({"minDeviation": 1}))}),
            Self::OutlierByPointer => json!({"name": "x", "outlier": {"pointer": "/latency"}}),
            Self::OutlierByHalf => {
                json!({"name": "x", "outlier": {"pointer": "/latency", "minRelativeDeviation": 0.5}})
            }
            Self::OutlierBySpread => {
                json!({"name": "x", "outlier": {"pointer": "/latency", "minRelativeDeviation": 0}})
            }
            Self::Discrete => {
                json!({"name": "x", "discreteValueOutOfList": and(json!({"key": "code", "goodValues": ["200"]}))})
            }
            Self::Deviation => {
                json!({"name": "x", "direction": "high", "continuousValueDeviation": and(json!({"maxDeviationPercent": 75}))})
            }
            Self::Bounds => json!({"name": "x", "keepalive": {"pointer": "/latency", "max": usual * 2.0}}),
        };
        let resource = json!({
            "apiVersion": api::API_VERSION, "kind": api::KIND, "metadata": {"name": "web"},
            "spec": {"service": "web", "breakers": [breaker]},
        });
        let context = Context { detectors: Detectors::All, timing: None, sources: &[] };
        api::parse("trace", &resource.to_string(), context).unwrap().remove(0)
    }
}

/// One detector before one trace.
struct Trial<'a> {
    trace: &'a Trace,
    candidate: Candidate,
    manifest: Manifest,
    windows: Windows,
    pods: Vec<Observation>,
}

impl<'a> Trial<'a> {
    fn new(candidate: Candidate, trace: &'a Trace) -> Self {
        let mut first: Vec<f64> = trace.looks[0].iter().map(|sample| sample.latency).collect();
        first.sort_unstable_by(f64::total_cmp);
        let pod = |number: usize| Observation {
            uid: format!("u{number:05}").into(),
            id: format!("p{number}"),
            age: Duration::ZERO,
            heard: true,
            status: LifeStatus::Live,
            withheld: false,
            name_age: None,
            payload: Arc::default(),
        };
        Self {
            trace,
            candidate,
            manifest: candidate.manifest(first[first.len() / 2]),
            windows: Windows::default(),
            pods: (0..trace.pods()).map(pod).collect(),
        }
    }

    /// What the breaker says at that look; `None`: nothing new.
    fn look(&mut self, look: usize, now: Timestamp) -> Option<Source> {
        let samples = &self.trace.looks[look];
        let answered = !self.trace.unanswered.contains(&look);
        if self.candidate.asks() {
            let rule = self.manifest.rules.first().unwrap();
            let answer = if answered { self.answer(samples, now) } else { QueryAnswer::Nothing };
            let scope = FleetScope { namespace: "default".into(), by_uid: true };
            let judged = queried::judge(rule, now, &self.pods, &answer, &scope, &mut self.windows);
            return Some(judged.source);
        }
        for (pod, sample) in self.pods.iter_mut().zip(samples) {
            pod.status =
                if sample.delivery == Delivery::Old { LifeStatus::Expired } else { LifeStatus::Live };
            pod.payload = Arc::new(payload(sample, answered));
        }
        let rules = &self.manifest.rules;
        detect::evaluate(rules, now, &self.pods, &mut self.windows, BreakerSelection::All).sources.pop()
    }

    fn answer(&self, samples: &[Sample], now: Timestamp) -> QueryAnswer {
        let mean = samples.iter().map(|sample| sample.latency).sum::<f64>() / samples.len() as f64;
        let mut all: Vec<f64> = samples.iter().map(|sample| sample.latency).collect();
        all.sort_unstable_by(f64::total_cmp);
        let median = all[all.len() / 2];
        let mut elements = Vec::new();
        for (pod, sample) in self.pods.iter().zip(samples) {
            let mut add = |key: Option<&str>, value: f64| {
                let (value, age, times) = match sample.delivery {
                    Delivery::Arrives => (value, 0, 1),
                    Delivery::Missing => (value, 0, 0),
                    Delivery::Old => (value, 90_000, 1),
                    Delivery::Twice => (value, 0, 2),
                    Delivery::NoNumber => (f64::NAN, 0, 1),
                };
                let at = Timestamp::from_unix_millis(now.unix_millis() - age);
                let one = VectorElement {
                    pod: Some(pod.id.clone()),
                    namespace: None,
                    key: key.map(Into::into),
                    labels: HashMap::new(),
                    value: Some(value),
                    at,
                };
                elements.extend(std::iter::repeat_n(one, times));
            };
            match self.candidate {
                Candidate::Discrete => {
                    add(Some("200"), sample.requests - sample.failed);
                    add(Some("500"), sample.failed);
                }
                Candidate::OutlierByRatio => add(None, sample.latency / median),
                Candidate::Deviation => add(None, sample.latency / mean),
                _ => add(None, sample.latency),
            }
        }
        QueryAnswer::Vector(Vector { asked: now, elements })
    }
}

impl Candidate {
    /// One of those that our promise is about.
    pub(crate) fn is_promised(self) -> bool {
        matches!(self, Self::OutlierByQuery | Self::OutlierByPointer | Self::OutlierByRatio)
    }

    fn asks(self) -> bool {
        !matches!(self, Self::OutlierByPointer | Self::OutlierByHalf | Self::OutlierBySpread | Self::Bounds)
    }
}

fn payload(sample: &Sample, answered: bool) -> Value {
    match sample.delivery {
        Delivery::Arrives | Delivery::Old if answered => json!({"latency": sample.latency}),
        Delivery::Twice | Delivery::NoNumber => json!({"latency": "NaN"}),
        _ => json!({}),
    }
}

/// What the truth has to say of a pod at a look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Truth {
    Well,
    Bad,
    /// Either verdict is right.
    Unclear,
}

fn truth(trace: &Trace) -> Vec<Vec<Truth>> {
    let mut truth = vec![vec![Truth::Well; trace.looks.len()]; trace.pods()];
    for fault in &trace.faults {
        let end = (fault.seen.end + TOLERANCE).min(trace.looks.len());
        truth[fault.pod][fault.seen.start..end].fill(Truth::Unclear);
        truth[fault.pod][fault.bad.start + TOLERANCE..fault.bad.end].fill(Truth::Bad);
    }
    truth
}

/// What a detector's verdicts are worth.
#[derive(Clone, Debug, Default)]
pub(crate) struct Score {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) false_alarms: u64,
    /// Faults that were never found.
    pub(crate) overlooked: u64,
    /// In looks, one for each fault.
    pub(crate) reactions: Vec<f64>,
}

impl Score {
    /// Of that detector before that trace.
    pub(crate) fn of(candidate: Candidate, trace: &Trace) -> Self {
        let mut trial = Trial::new(candidate, trace);
        let (mut score, truth) = (Self::default(), truth(trace));
        let mut found = vec![None; trace.faults.len()];
        for (look, pods) in trace.looks.iter().enumerate() {
            let Some(source) = trial.look(look, moment(look)) else { continue };
            let mut is_bad = vec![false; trace.pods()];
            for (uid, opinion) in source.opinions() {
                is_bad[uid.as_str()[1..].parse::<usize>().unwrap()] = opinion.objects();
            }
            for (fault, found) in trace.faults.iter().zip(&mut found) {
                if fault.seen.contains(&look) && is_bad[fault.pod] {
                    found.get_or_insert((look + 1).saturating_sub(fault.bad.start));
                }
            }
            let answered = !trace.unanswered.contains(&look);
            for (pod, is_bad) in is_bad.into_iter().enumerate() {
                let there = answered && pods[pod].delivery == Delivery::Arrives;
                score.count(truth[pod][look], is_bad, there);
            }
        }
        score.overlooked = found.iter().filter(|found| found.is_none()).count() as u64;
        let whole = trace.faults.iter().map(|fault| fault.bad.len());
        score.reactions =
            found.iter().zip(whole).map(|(found, whole)| found.unwrap_or(whole) as f64).collect();
        score
    }

    fn count(&mut self, truth: Truth, is_bad: bool, there: bool) {
        match truth {
            Truth::Bad if is_bad => self.hits += 1,
            Truth::Bad if there => self.misses += 1,
            Truth::Well if is_bad => self.false_alarms += 1,
            _ => {}
        }
    }

    /// Both together.
    pub(crate) fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.false_alarms += other.false_alarms;
        self.overlooked += other.overlooked;
        self.reactions.extend(other.reactions);
    }

    /// Percent.
    pub(crate) fn f1(&self) -> f64 {
        200.0 * self.hits as f64 / (2 * self.hits + self.misses + self.false_alarms) as f64
    }
}

fn moment(look: usize) -> Timestamp {
    Timestamp::from_unix_millis(1_000_000_000) + EVERY * u32::try_from(look).unwrap()
}

/// Runs the trace with the gate behind the detector: what is withheld stays so, and the detector knows. The looks at
/// which a pod was withheld, once for each.
pub(crate) fn cuts(candidate: Candidate, trace: &Trace, panic_threshold: Option<u8>) -> Vec<usize> {
    let mut trial = Trial::new(candidate, trace);
    let policy = Policy { panic_threshold, ..trial.manifest.policy.clone() };
    let mut world = World::new(Sink::Labels, policy, u32::try_from(trace.pods()).unwrap());
    let mut cuts = Vec::new();
    for look in 0..trace.looks.len() {
        world.now = moment(look);
        for pod in &mut trial.pods {
            pod.withheld = world.pods[&pod.uid].traffic != Traffic::Yes;
        }
        if let Some(source) = trial.look(look, world.now) {
            world.verdicts.replace(source);
        }
        world.settle();
        let withheld = world.log.drain(..).filter(|(_, verb, _)| *verb == Verb::Withhold);
        cuts.extend(withheld.map(|_| look));
    }
    cuts
}
