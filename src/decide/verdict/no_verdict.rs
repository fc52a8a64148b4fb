//! Why a detector has no verdict on a pod, and the causes of a fleet, counted.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

/// One cause, in words that follow "1 of 5 pods".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum NoVerdict {
    /// The query or the service gave no usable answer.
    NoAnswer,
    /// No series of the answer names the pod.
    NoSeries,
    /// More than one series names the pod, and they differ in this label.
    SeveralSeries {
        /// The label; empty if they differ in none.
        label: String,
    },
    /// Its series lack the label that the detector counts by.
    NoKey {
        /// The label.
        label: String,
    },
    /// A value that is no finite number, or is negative where it may not be.
    NoNumber,
    /// A native histogram.
    Histogram,
    /// Its sample is older than the limit.
    TooOld {
        /// The limit in seconds.
        seconds: u64,
    },
    /// The pod is younger than the query's window, which therefore holds its predecessor's numbers.
    TooYoung {
        /// The window in seconds.
        seconds: u64,
    },
    /// Fewer events than `minActivity`.
    FewEvents,
    /// Too few peers, or no spread to measure by.
    NoPeers,
    /// No keepalive of it was received.
    NoKeepalive,
    /// Its keepalives have stopped.
    Expired,
    /// Its payload has no value at the pointer.
    NoValue,
}

impl fmt::Display for NoVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("without a usable answer"),
            Self::NoSeries => {
                f.write_str("without a series: does the query name every pod, also without errors?")
            }
            Self::SeveralSeries { label } if label.is_empty() => f.write_str("with the same series twice"),
            Self::SeveralSeries { label } => {
                write!(f, "with more than one series, which differ in the label {label}: aggregate over it")
            }
            Self::NoKey { label } => write!(f, "whose series lack the label {label}: keep it in the query"),
            Self::NoNumber => f.write_str("with a value that is no usable number"),
            Self::Histogram => f.write_str("with a native histogram: use histogram_quantile()"),
            Self::TooOld { seconds } => {
                write!(f, "with samples older than {seconds} s: is the clock of Prometheus behind?")
            }
            Self::TooYoung { seconds } => {
                write!(
                    f,
                    "younger than {seconds} s, so that the numbers may be of an earlier pod of that name"
                )
            }
            Self::FewEvents => f.write_str("with fewer events than minActivity"),
            Self::NoPeers => f.write_str("without enough peers, or without a spread, to compare with"),
            Self::NoKeepalive => f.write_str("without a keepalive"),
            Self::Expired => f.write_str("whose keepalives have stopped"),
            Self::NoValue => f.write_str("without a value at the pointer"),
        }
    }
}

/// How many pods of a fleet lack a verdict, by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoVerdicts {
    by_cause: BTreeMap<NoVerdict, usize>,
    pods: usize,
}

impl NoVerdicts {
    /// Counts one pod, with the cause if it has no verdict.
    pub fn count(&mut self, cause: Option<&NoVerdict>) {
        self.pods += 1;
        if let Some(cause) = cause {
            *self.by_cause.entry(cause.clone()).or_default() += 1;
        }
    }
}

/// The most frequent causes first, three at most: `4 of 5 pods without a series; 1 of 5 ...`.
impl fmt::Display for NoVerdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut causes: Vec<_> = self.by_cause.iter().collect();
        causes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (index, (cause, count)) in causes.into_iter().take(3).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{count} of {} pods {cause}", self.pods)?;
        }
        Ok(())
    }
}
