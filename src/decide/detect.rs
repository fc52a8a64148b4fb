//! Detectors: pure functions from the pods' observations at one moment to one [`Judgement`] per pod.
//!
//! Only [`Windows`] (m bad of the last n evaluations) persist between evaluations; the caller keeps them, so that a
//! stateless callback, the master, the controller and the tests run the same code. A run between two due evaluations
//! judges again without moving a window: other causes of a run must not make a fault look older than it is.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::Value;

use super::{
    fleet::Uid,
    time::Timestamp,
    verdict::{Judgement, Opinion, Source, SourceKind},
};

pub mod deviation;
pub mod discrete;
pub mod listed;
pub mod members;
pub mod outlier;
pub mod payload;
pub mod queried;
pub mod series;
pub mod windows;

use self::{listed::FleetScope, queried::QueryAnswer, series::ByPod, windows::BreakerWindows};
pub use payload::{Good, PayloadRule, SilenceRule};
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
}

impl Detector {
    /// The name of its field in the manifest.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Silence(_) | Self::Payload(_) => "keepalive",
            Self::Outlier(_) => "outlier",
            Self::Discrete(_) => "discreteValueOutOfList",
            Self::Deviation(_) => "continuousValueDeviation",
            Self::Custom(_) => "customService",
        }
    }

    /// Whether keepalives are its only input.
    #[must_use]
    pub fn uses_keepalives_only(&self) -> bool {
        match self {
            Self::Silence(_) | Self::Payload(_) => true,
            Self::Outlier(outlier) => matches!(outlier.source, OutlierSource::Pointer(_)),
            Self::Discrete(_) | Self::Deviation(_) | Self::Custom(_) => false,
        }
    }

    /// Its Prometheus query, and the label by whose values its series are counted.
    #[must_use]
    pub fn query(&self) -> Option<(&Query, Option<&str>)> {
        match self {
            Self::Discrete(discrete) => Some((&discrete.query, Some(&discrete.key))),
            Self::Deviation(deviation) => Some((&deviation.query, None)),
            Self::Outlier(Outlier { source: OutlierSource::Query(query), .. }) => Some((query, None)),
            Self::Outlier(_) | Self::Silence(_) | Self::Payload(_) | Self::Custom(_) => None,
        }
    }

    /// How long an answer may take; `None` for a detector that sends no query.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Custom(custom) => Some(custom.timeout),
            other => other.query().map(|(query, _)| query.timeout),
        }
    }

    /// Judges the pods by an answer, in their order, and counts the parts that belong to none of them; `None`: no
    /// answer, or one of another kind.
    fn judge_answer(
        &self,
        answer: &QueryAnswer,
        pods: &[&Observation],
        scope: &FleetScope,
        windows: &mut BreakerWindows,
    ) -> Option<(Vec<Judgement>, usize)> {
        Some(match (self, answer) {
            (Self::Discrete(discrete), QueryAnswer::Vector(vector)) => {
                discrete::judge(discrete, vector, pods)
            }
            (Self::Deviation(deviation), QueryAnswer::Vector(vector)) => {
                deviation::judge(deviation, vector, pods)
            }
            (
                Self::Outlier(outlier @ Outlier { source: OutlierSource::Query(query), .. }),
                QueryAnswer::Vector(vector),
            ) => {
                let (by_pod, strangers) = ByPod::new(vector, pods, query.max_sample_age);
                let samples: Vec<_> = pods.iter().map(|pod| by_pod.sample(pod)).collect();
                let compared = outlier::judge(outlier, &samples);
                (windows.judge(outlier.consecutive, pods, compared, true), strangers)
            }
            (Self::Custom(_), QueryAnswer::Named(named)) => listed::judge(scope, named, pods),
            _ => return None,
        })
    }
}

/// `outlier`.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// The source of each pod's number.
    pub source: OutlierSource,
    /// The largest good distance from the median, in MADs. The MAD (median distance from the median) is scaled by
    /// 1.4826, so that one MAD of normal noise is one standard deviation.
    pub threshold: f64,
    /// With fewer values there is no verdict.
    pub min_peers: u32,
    /// A distance from the median up to this is good, in units of the value.
    pub min_deviation: f64,
    /// A distance up to this share of the median's absolute value is good.
    pub min_relative_deviation: f64,
    /// The bad side of the median.
    pub direction: Direction,
    /// The evaluations that must be bad.
    pub consecutive: Consecutive,
}

/// The source of an outlier's numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum OutlierSource {
    /// JSON pointer (RFC 6901) into the payload.
    Pointer(String),
    /// A query to Prometheus.
    Query(Query),
}

/// The bad side of a reference value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// Above it.
    High,
    /// Below it.
    Low,
    /// Both sides.
    Both,
}

impl Direction {
    /// How far `value` is from `reference` on a bad side; not above 0 on a good one.
    fn distance(self, value: f64, reference: f64) -> f64 {
        match self {
            Self::High => value - reference,
            Self::Low => reference - value,
            Self::Both => (value - reference).abs(),
        }
    }
}

/// m of the last n evaluations; `1 <= bad <= of <= 64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Consecutive {
    /// n.
    pub of: u32,
    /// m.
    pub bad: u32,
}

/// An instant query to Prometheus.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// host:port, with or without `http://` or `https://`.
    pub service: String,
    /// The PromQL expression.
    pub promql: String,
    /// The label with the pod's name.
    pub pod_name_key: String,
    /// Older samples are stale.
    pub max_sample_age: Duration,
    /// Limit of the whole request.
    pub timeout: Duration,
    /// Credentials, if the server wants any.
    pub auth: Option<Auth>,
}

/// Credentials, from a key of a Secret in the resource's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A bearer token.
    Bearer(SecretKey),
    /// `user:password`.
    Basic(SecretKey),
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretKey {
    /// The Secret's name.
    pub name: String,
    /// The key in its data.
    pub key: String,
}

/// `discreteValueOutOfList`.
#[derive(Clone, Debug, PartialEq)]
pub struct Discrete {
    /// Counts or rates of events, by pod and value.
    pub query: Query,
    /// The label with the value.
    pub key: String,
    /// The good or the bad values.
    pub values: Values,
    /// The largest good share of bad events, in percent.
    pub tolerance: u32,
    /// With fewer events there is no verdict.
    pub min_activity: u32,
}

/// The values of a discrete detector; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// All other values are bad.
    Good(Vec<String>),
    /// All other values are good.
    Bad(Vec<String>),
}

/// `continuousValueDeviation`.
#[derive(Clone, Debug, PartialEq)]
pub struct Deviation {
    /// Gives each pod's value divided by the fleet's mean.
    pub query: Query,
    /// The largest good deviation from the mean, in percent.
    pub max_percent: f64,
    /// The bad side of the mean.
    pub direction: Direction,
}

/// `customService`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custom {
    /// `host[:port][/path]`.
    pub service: String,
    /// Limit of the whole request.
    pub timeout: Duration,
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
    /// return [`Judgement::NoData`].
    pub heard: bool,
    /// Whether it has no traffic now; its values then count as a peer's only if too few others are left.
    pub withheld: bool,
    /// The last reported payload.
    pub payload: Arc<Value>,
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
#[must_use]
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
            let compared = outlier::judge(outlier, &payload::samples(pointer, &pods));
            windows.judge(outlier.consecutive, &pods, compared, due)
        }
        // Judged in `queried`, with their answers.
        Detector::Outlier(_) | Detector::Discrete(_) | Detector::Deviation(_) | Detector::Custom(_) => {
            Vec::new()
        }
    };
    source(rule, now, &pods, judgements)
}

/// The pods that are judged: all that did not announce their end.
fn judged_pods(observations: &[Observation]) -> Vec<&Observation> {
    observations.iter().filter(|pod| pod.status != LifeStatus::Down).collect()
}

fn source(rule: &Rule, now: Timestamp, pods: &[&Observation], judgements: Vec<Judgement>) -> Source {
    let opinions = judgements.into_iter().map(Opinion::Judged);
    let opinions = pods.iter().map(|pod| pod.uid.clone()).zip(opinions).collect();
    Source::new(&rule.breaker, SourceKind::Breaker, now, opinions)
}
