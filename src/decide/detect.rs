//! Detectors: pure functions from the pods' observations at one moment to one [`Judgement`] per pod.
//!
//! Only [`Windows`] (m bad of the last n evaluations) persist between evaluations; the caller keeps them, so that a
//! stateless callback, the master, the controller and the tests run the same code. A run between two due evaluations
//! judges again without moving a window: other causes of a run must not make a fault look older than it is.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{
    fleet::Uid,
    measurements::Measurements,
    time::Timestamp,
    verdict::{Judgement, NoVerdict, Source},
};

pub mod deviation;
pub mod discrete;
mod findings;
#[cfg(test)]
mod flag;
pub mod listed;
mod measured;
pub mod members;
pub mod metric_source;
pub mod outlier;
pub mod payload;
pub mod queried;
pub mod series;
pub mod settings;
pub mod windows;

use self::{findings::AnswerFindings, windows::BreakerWindows};
#[cfg(test)]
pub(crate) use flag::PayloadFlag;
pub use metric_source::MetricSource;
pub use payload::{Good, PayloadRule, SilenceRule};
pub use settings::{
    Consecutive, Custom, Deviation, Direction, Discrete, Outlier, OutlierSource, Query, Values,
};
pub use windows::Windows;

pub use super::ensemble::LifeStatus;

/// A breaker's detector and its period; the breaker's other fields are in the gate's policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The breaker's name, unique in the policy.
    pub breaker: String,
    /// `evaluationPeriod`.
    pub every: Duration,
    /// What is bad.
    pub detector: Detector,
}

/// A breaker's detector.
#[derive(Clone, Debug, PartialEq)]
pub enum Detector {
    /// No keepalive for too long.
    Silence(SilenceRule),
    /// A payload value out of bounds.
    Payload(PayloadRule),
    /// A number far from the peers' median.
    Outlier(Outlier),
    /// A too large share of events with a bad value, by PromQL.
    Discrete(Discrete),
    /// A value far from the fleet's mean, by PromQL.
    Deviation(Deviation),
    /// An HTTP service that lists the bad pods.
    Custom(Custom),
    /// The recipe of CONTRIBUTING.md, followed.
    #[cfg(test)]
    Flag(PayloadFlag),
}

impl Detector {
    /// The name of its field in the manifest.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Silence(_) | Self::Payload(_) => "keepalive",
            Self::Outlier(_) => "outlier",
            Self::Discrete(_) => "discreteValueOutOfList",
            Self::Deviation(_) => "continuousValueDeviation",
            Self::Custom(_) => "customService",
            #[cfg(test)]
            Self::Flag(_) => "payloadFlag",
        }
    }

    /// Whether keepalives are its only input.
    pub fn uses_keepalives_only(&self) -> bool {
        match self {
            Self::Silence(_) | Self::Payload(_) => true,
            Self::Outlier(outlier) => matches!(outlier.source, OutlierSource::Pointer(_)),
            Self::Discrete(_) | Self::Deviation(_) | Self::Custom(_) => false,
            #[cfg(test)]
            Self::Flag(_) => true,
        }
    }

    /// Its Prometheus query, and the label by whose values its series are counted.
    pub fn query(&self) -> Option<(&Query, Option<&str>)> {
        match self {
            Self::Discrete(discrete) => Some((&discrete.query, Some(&discrete.key))),
            Self::Deviation(deviation) => Some((&deviation.query, None)),
            Self::Outlier(Outlier { source: OutlierSource::Query(query), .. }) => Some((query, None)),
            _ => None,
        }
    }

    /// Its custom service.
    pub fn custom(&self) -> Option<&Custom> {
        match self {
            Self::Custom(custom) | Self::Outlier(Outlier { source: OutlierSource::Custom(custom), .. }) => {
                Some(custom)
            }
            _ => None,
        }
    }

    /// How long an answer may take; `None` for a detector that sends no query.
    pub fn timeout(&self) -> Option<Duration> {
        let queried = || self.query().map(|(query, _)| query.timeout);
        self.custom().map(|custom| custom.timeout).or_else(queried)
    }
}

/// One pod's state at one evaluation, the input of all detectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Identity: another process is another pod.
    pub uid: Uid,
    /// The pod's name, as in verdicts and messages.
    pub id: String,
    /// Time since its last keepalive.
    pub age: Duration,
    /// By its keepalives; pods that are `Down` are not judged.
    pub status: LifeStatus,
    /// Whether a keepalive of it is known; without one, `age` and `payload` are meaningless and detectors of keepalives
    /// have no verdict.
    pub heard: bool,
    /// Whether it has no traffic now; its values then count as a peer's only if too few others are left.
    pub withheld: bool,
    /// Time since its creation, where its name may have been another pod's before; `None`: the name is its own.
    pub name_age: Option<Duration>,
    /// The last reported payload.
    pub payload: Arc<Value>,
}

impl Observation {
    /// Why numbers that cover the last `window` may be those of an earlier pod of the same name, if they may.
    fn too_young(&self, window: Duration) -> Option<NoVerdict> {
        let young = self.name_age.is_some_and(|age| age < window);
        young.then_some(NoVerdict::TooYoung { seconds: window.as_secs() })
    }
}

/// The breakers to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerSelection {
    /// Those that are due; the last verdict of the others stays.
    Due,
    /// All; those that are not due move no window.
    All,
}

/// The result of [`evaluate`].
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// One for each evaluated breaker, in the order of the rules.
    pub sources: Vec<Source>,
    /// The next due time.
    pub next_wakeup: Option<Timestamp>,
}

/// Evaluates every rule whose only input is keepalives; [`queried`] has the others.
///
/// A new breaker is due at once. A clock set back delays an evaluation by at most one period.
pub fn evaluate(
    rules: &[Rule],
    now: Timestamp,
    observations: &[Observation],
    windows: &mut Windows,
    ask: BreakerSelection,
) -> Evaluation {
    let mut sources = Vec::new();
    let mut next_wakeup: Option<Timestamp> = None;
    windows.retain_breakers(|breaker| rules.iter().any(|rule| rule.breaker == breaker));
    for rule in rules.iter().filter(|rule| rule.detector.uses_keepalives_only()) {
        let breaker = windows.of(&rule.breaker);
        let due = breaker.is_due(now, rule.every);
        if due {
            breaker.next_due(now, rule.every);
        }
        next_wakeup = next_wakeup.min(breaker.due()).or(breaker.due());
        if due || ask == BreakerSelection::All {
            sources.push(judge(rule, now, observations, breaker, due));
        }
    }
    Evaluation { sources, next_wakeup }
}

fn judge(
    rule: &Rule,
    now: Timestamp,
    observations: &[Observation],
    windows: &mut BreakerWindows,
    due: bool,
) -> Source {
    let pods = judged_pods(observations);
    let judgements = match &rule.detector {
        Detector::Silence(silence) => pods.iter().map(|pod| payload::silence(silence, pod)).collect(),
        Detector::Payload(bounds) => pods.iter().map(|pod| payload::bounds(bounds, pod)).collect(),
        Detector::Outlier(outlier @ Outlier { source: OutlierSource::Pointer(pointer), .. }) => {
            let samples = payload::samples(pointer, &pods);
            let found =
                AnswerFindings::compared(outlier, &pods, &samples, windows, due, Measurements::default());
            return source(None, rule, now, &pods, found.judgements).with_measurements(found.measurements);
        }
        #[cfg(test)]
        Detector::Flag(flag) => pods.iter().map(|pod| flag::judge(flag, pod)).collect(),
        // Judged in `queried`, with their answers.
        Detector::Outlier(_) | Detector::Discrete(_) | Detector::Deviation(_) | Detector::Custom(_) => {
            Vec::new()
        }
    };
    source(None, rule, now, &pods, judgements).with_measurements(rule.detector.measure(&pods))
}

/// The pods that are judged: all that did not announce their end.
pub(super) fn judged_pods(observations: &[Observation]) -> Vec<&Observation> {
    observations.iter().filter(|pod| pod.status != LifeStatus::Down).collect()
}

fn source(
    place: Option<Source>,
    rule: &Rule,
    now: Timestamp,
    pods: &[&Observation],
    judgements: Vec<Judgement>,
) -> Source {
    Source::judged(place, &rule.breaker, now, pods.iter().map(|pod| &pod.uid), judgements)
}
