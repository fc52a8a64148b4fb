//! What is wrong with whom: detectors as pure functions over one look at the fleet.
//!
//! A detector is given what is known of every pod at one moment and answers with one typed
//! judgement for each: bad, good, no data, stale or error. Only windows (m bad looks of n) outlive a
//! look; they are a small value that the caller keeps, so that a stateless callback, the master and
//! the tests run the same code. Between two evaluations of a breaker a look judges anew but moves no
//! window: a callback that runs for another reason must not make a fault look older than it is.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::Value;

use super::{
    fleet::Uid,
    time::Timestamp,
    verdict::{Opinion, Source, SourceKind},
};

pub mod asked;
pub mod deviation;
pub mod discrete;
pub mod listed;
pub mod members;
pub mod outlier;
pub mod payload;
pub mod series;
pub mod windows;

use windows::BreakerWindows;
pub use windows::Windows;

pub use super::ensemble::Status;

/// A breaker's detector and how often it looks; the rest of a breaker is the gate's.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The breaker's name.
    pub breaker: String,
    /// How often it looks.
    pub every: Duration,
    /// What it looks for.
    pub detector: Detector,
}

/// What a breaker looks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Detector {
    /// A pod that stopped sending keepalives.
    Silence(Silence),
    /// A payload value out of bounds.
    Payload(PayloadRule),
    /// A number far from that of the peers.
    Outlier(Outlier),
    /// Too many events with a bad value, by PromQL.
    Discrete(Discrete),
    /// A value far from the fleet's mean, by PromQL.
    Deviation(Deviation),
    /// A service that answers with the pods that are out of bounds.
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

    /// Needs nothing but keepalives.
    #[must_use]
    pub fn sees_keepalives_only(&self) -> bool {
        match self {
            Self::Silence(_) | Self::Payload(_) => true,
            Self::Outlier(outlier) => matches!(outlier.source, OutlierSource::Pointer(_)),
            Self::Discrete(_) | Self::Deviation(_) | Self::Custom(_) => false,
        }
    }
}

/// `keepalive.silentAfter`.
#[derive(Clone, Debug, PartialEq)]
pub struct Silence {
    /// Older than this is bad.
    pub after: Duration,
}

/// `keepalive.pointer`.
#[derive(Clone, Debug, PartialEq)]
pub struct PayloadRule {
    /// RFC 6901, into the payload.
    pub pointer: String,
    /// What is good there.
    pub good: Good,
}

/// What is good.
#[derive(Clone, Debug, PartialEq)]
pub enum Good {
    /// A number, both ends included; at least one end is set and `min <= max`.
    Within {
        /// The smallest.
        min: Option<f64>,
        /// The largest.
        max: Option<f64>,
    },
    /// One of these; never empty.
    OneOf(Vec<Value>),
}

/// `outlier`.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// Where the numbers come from.
    pub source: OutlierSource,
    /// How many MADs from the median are too far. The MAD is scaled by 1.4826, so that one MAD of
    /// normal noise is one standard deviation.
    pub threshold: f64,
    /// Fewer values: no verdict.
    pub min_peers: u32,
    /// A smaller distance from the median is never too far.
    pub min_deviation: f64,
    /// Nor is one below this share of the median's size.
    pub min_relative_deviation: f64,
    /// Which side is bad.
    pub direction: Direction,
    /// How many looks of how many must be bad.
    pub consecutive: Consecutive,
}

/// Where an outlier's numbers come from.
#[derive(Clone, Debug, PartialEq)]
pub enum OutlierSource {
    /// RFC 6901, into the payload.
    Pointer(String),
    /// Prometheus.
    Query(Query),
}

/// Which side of the fleet is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// Above.
    High,
    /// Below.
    Low,
    /// Either.
    Both,
}

/// m of n looks; `1 <= bad <= of <= 64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Consecutive {
    /// n.
    pub of: u32,
    /// m.
    pub bad: u32,
}

/// A question to Prometheus.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// host:port, with or without `http://` or `https://`.
    pub service: String,
    /// An instant query.
    pub promql: String,
    /// The label that holds the pod's name.
    pub pod_name_key: String,
    /// An older sample is stale.
    pub max_sample_age: Duration,
    /// For the whole request.
    pub timeout: Duration,
    /// How to log in.
    pub auth: Option<Auth>,
}

/// A key of a Secret in the resource's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A bearer token.
    Bearer(SecretKey),
    /// `user:password`.
    Basic(SecretKey),
}

/// Which Secret, and which of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretKey {
    /// The Secret.
    pub name: String,
    /// The key.
    pub key: String,
}

/// `discreteValueOutOfList`.
#[derive(Clone, Debug, PartialEq)]
pub struct Discrete {
    /// The question.
    pub query: Query,
    /// The label that holds the value.
    pub key: String,
    /// Which values are bad.
    pub values: Values,
    /// Percent of bad events that is still good.
    pub tolerance: u32,
    /// Fewer events: no verdict.
    pub min_activity: u32,
}

/// The list of a discrete detector; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// All others are bad.
    Good(Vec<String>),
    /// All others are good.
    Bad(Vec<String>),
}

/// `continuousValueDeviation`.
#[derive(Clone, Debug, PartialEq)]
pub struct Deviation {
    /// The question: each pod's value over the fleet's mean.
    pub query: Query,
    /// Percent.
    pub max_percent: f64,
    /// Which side is bad.
    pub direction: Direction,
}

/// `customService`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custom {
    /// host[:port][/path].
    pub service: String,
    /// For the whole request.
    pub timeout: Duration,
}

/// What is known of one pod at one look.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Its identity: another process is another pod.
    pub uid: Uid,
    /// Its name, as verdicts and people call it.
    pub id: String,
    /// The time since its last keepalive.
    pub age: Duration,
    /// Whether it is there.
    pub status: Status,
    /// It sends keepalives, or has: otherwise age and payload tell nothing, and nobody judges it by them.
    pub heard: bool,
    /// It gets no traffic at the moment: what it reports says little about those that do.
    pub withheld: bool,
    /// What it reported last.
    pub payload: Arc<Value>,
}

/// Which breakers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerSelection {
    /// Those whose evaluation is due: the others' last word stands.
    Due,
    /// All: those that are not due judge anew and move no window.
    All,
}

/// What came out of one look.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// One for each breaker that spoke, in the order of the rules.
    pub sources: Vec<Source>,
    /// When the next breaker is due.
    pub next_wakeup: Option<Timestamp>,
}

/// Looks at the fleet with every rule that sees keepalives.
///
/// Rules with other sources are not asked here but in [`asked`]. A breaker never asked before is due at once. A clock
/// that jumped back cannot silence a breaker for longer than one period.
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
    for rule in rules.iter().filter(|rule| rule.detector.sees_keepalives_only()) {
        let breaker = windows.of(&rule.breaker);
        let due = breaker.is_due(now, rule.every);
        if due {
            breaker.next_due(now, rule.every);
        }
        next_wakeup = next_wakeup.min(breaker.due()).or(breaker.due());
        if due || ask == BreakerSelection::All {
            let opinions = judge(rule, observations, breaker, due);
            sources.push(Source::new(&rule.breaker, SourceKind::Breaker, now, opinions));
        }
    }
    Evaluation { sources, next_wakeup }
}

fn judge(
    rule: &Rule,
    observations: &[Observation],
    windows: &mut BreakerWindows,
    due: bool,
) -> Vec<(Uid, Opinion)> {
    let there: Vec<&Observation> =
        observations.iter().filter(|observation| observation.status != Status::Down).collect();
    let judgements = match &rule.detector {
        Detector::Silence(silence) => there.iter().map(|pod| payload::silence(silence, pod)).collect(),
        Detector::Payload(bounds) => there.iter().map(|pod| payload::bounds(bounds, pod)).collect(),
        Detector::Outlier(outlier) => match &outlier.source {
            OutlierSource::Pointer(pointer) => {
                let judged = outlier::judge(outlier, &payload::samples(pointer, &there));
                windows.hold(outlier.consecutive, &there, judged, due)
            }
            // Those are judged in `asked`, once they are answered.
            OutlierSource::Query(_) => Vec::new(),
        },
        Detector::Discrete(_) | Detector::Deviation(_) | Detector::Custom(_) => Vec::new(),
    };
    let opinions = judgements.into_iter().map(Opinion::Judged);
    there.iter().map(|pod| pod.uid.clone()).zip(opinions).collect()
}
