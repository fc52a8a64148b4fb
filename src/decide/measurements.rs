//! What a breaker measured at its last evaluation, good pods included: for display only, no decision depends on it.

use std::sync::Arc;

use super::fleet::Uid;

/// One pod's value.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The pod.
    pub uid: Uid,
    /// Finite.
    pub value: f64,
}

/// The values of one evaluation, and the range of the good ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurements {
    /// One for each pod with a value, in order of the observations.
    pub values: Arc<[Measurement]>,
    /// Values below are bad.
    pub low: Option<f64>,
    /// Values above are bad.
    pub high: Option<f64>,
    /// The median of the peers, for rules that compare pods.
    pub median: Option<f64>,
}

impl Measurements {
    /// The finite ones of `values`, without a range.
    pub fn new(values: impl Iterator<Item = (Uid, f64)>) -> Self {
        let mut all = Vec::with_capacity(values.size_hint().1.unwrap_or(0));
        let finite = values.filter(|(_, value)| value.is_finite());
        all.extend(finite.map(|(uid, value)| Measurement { uid, value }));
        Self { values: all.into(), ..Self::default() }
    }

    /// The value of a pod.
    pub fn of(&self, uid: &str) -> Option<f64> {
        self.values.iter().find(|measured| measured.uid.as_str() == uid).map(|measured| measured.value)
    }
}
