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
    /// The finite ones of `values`, without a range; in the memory of `self`, where nobody else has it and it has the same
    /// pods.
    pub fn renewed<'a>(mut self, values: impl Iterator<Item = (&'a Uid, f64)> + Clone) -> Self {
        let finite = values.filter(|(_, value)| value.is_finite());
        let same = self.values.iter().map(|one| &one.uid).eq(finite.clone().map(|(uid, _)| uid));
        match Arc::get_mut(&mut self.values).filter(|_| same) {
            Some(places) => places.iter_mut().zip(finite).for_each(|(place, (_, value))| place.value = value),
            None => {
                self.values = finite.map(|(uid, value)| Measurement { uid: uid.clone(), value }).collect()
            }
        }
        Self { values: self.values, ..Self::default() }
    }

    /// The value of a pod.
    pub fn of(&self, uid: &str) -> Option<f64> {
        self.values.iter().find(|measured| measured.uid.as_str() == uid).map(|measured| measured.value)
    }
}
