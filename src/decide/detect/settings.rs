//! What a manifest says about each detector.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use super::metric_source::MetricSource;

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
    /// A custom service that gives numbers.
    Custom(Custom),
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
    pub(super) fn distance(self, value: f64, reference: f64) -> f64 {
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
    /// The server.
    pub source: Arc<MetricSource>,
    /// The PromQL expression.
    pub promql: String,
    /// The label with the pod's name.
    pub pod_name_key: String,
    /// The label with the pod's namespace; a series without it is of ours.
    pub namespace_key: String,
    /// A pod whose name another may have had before has no verdict until it is this old.
    pub min_pod_age: Duration,
    /// Older samples are stale.
    pub max_sample_age: Duration,
    /// Limit of the whole request.
    pub timeout: Duration,
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
    /// The service.
    pub source: Arc<MetricSource>,
    /// Appended to its path; empty with an address of its own.
    pub path: String,
    /// A pod whose name another may have had before is not bad by its name alone until it is this old.
    pub min_pod_age: Duration,
    /// Limit of the whole request.
    pub timeout: Duration,
}
