//! What a query to Prometheus gives, sorted by pod.
//!
//! A number counts only if it is beyond doubt whose it is and how old it is. A guess would cut a
//! healthy pod: so a pod that two series claim has no number at all, and a series that names no pod of
//! this fleet is left out and counted.

use std::{collections::HashMap, time::Duration};

use super::{Observation, payload::Sample};
use crate::decide::time::Timestamp;

/// One element of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The pod's name, where the label is there.
    pub pod: Option<String>,
    /// The label that a discrete detector counts by, where it is there.
    pub key: Option<String>,
    /// The number, whatever it is; NaN for an element that is none.
    pub value: f64,
    /// When it was so.
    pub at: Timestamp,
}

/// An instant vector, and when it was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vector {
    /// Just before the question went out.
    pub asked: Timestamp,
    /// Its elements.
    pub series: Vec<Series>,
}

/// The elements of a vector by the name of their pod.
pub(super) struct ByPod<'a> {
    pods: HashMap<&'a str, Vec<&'a Series>>,
    asked: Timestamp,
    limit: Duration,
}

impl<'a> ByPod<'a> {
    /// Those that belong to `pods`; the others are only counted.
    pub(super) fn new(
        vector: &'a Vector,
        pods: &[&'a Observation],
        max_sample_age: Duration,
    ) -> (Self, usize) {
        let mut sorted: HashMap<&str, Vec<&Series>> =
            pods.iter().map(|pod| (pod.id.as_str(), Vec::new())).collect();
        let mut strangers = 0;
        for series in &vector.series {
            match series.pod.as_deref().and_then(|pod| sorted.get_mut(pod)) {
                Some(own) => own.push(series),
                None => strangers += 1,
            }
        }
        (Self { pods: sorted, asked: vector.asked, limit: max_sample_age }, strangers)
    }

    /// All of a pod's elements, in no order.
    pub(super) fn of(&self, pod: &Observation) -> &[&'a Series] {
        self.pods.get(pod.id.as_str()).map_or(&[], Vec::as_slice)
    }

    /// Older than what counts. Measured from the question, so that a slow answer makes nothing stale.
    pub(super) fn is_stale(&self, series: &Series) -> bool {
        self.asked.since(series.at) > self.limit
    }

    /// The one number of a pod.
    pub(super) fn sample(&self, pod: &Observation) -> Sample {
        match self.of(pod) {
            [] => Sample::Missing,
            [only] if self.is_stale(only) => Sample::Old,
            [only] if only.value.is_finite() => Sample::Number { value: only.value, withheld: pod.withheld },
            _ => Sample::NotANumber,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decide::detect::{Query, Status};

    pub(in crate::decide::detect) fn pod(id: &str) -> Observation {
        Observation {
            uid: format!("uid-{id}").as_str().into(),
            id: id.into(),
            age: Duration::ZERO,
            status: Status::Live,
            heard: true,
            withheld: false,
            payload: Arc::default(),
        }
    }

    pub(in crate::decide::detect) fn query() -> Query {
        Query {
            service: "prometheus:9090".into(),
            promql: "x".into(),
            pod_name_key: "pod".into(),
            max_sample_age: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
            auth: None,
        }
    }

    /// Elements of a vector that was asked for at second 1000 and answered with its newest samples.
    pub(in crate::decide::detect) fn vector(elements: &[(&str, &str, f64)]) -> Vector {
        let at = Timestamp::from_unix_millis(1_000_000);
        let series = |&(pod, key, value): &(&str, &str, f64)| Series {
            pod: Some(pod.into()),
            key: Some(key.into()),
            value,
            at,
        };
        Vector { asked: at, series: elements.iter().map(series).collect() }
    }

    fn samples(vector: &Vector, pods: &[Observation]) -> (Vec<Sample>, usize) {
        let pods: Vec<&Observation> = pods.iter().collect();
        let (by_pod, strangers) = ByPod::new(vector, &pods, Duration::from_secs(60));
        (pods.iter().map(|pod| by_pod.sample(pod)).collect(), strangers)
    }

    #[test]
    fn each_pod_gets_its_own_number_and_strangers_are_counted() {
        let mut vector = vector(&[("b", "", 0.25), ("a", "", -7.0), ("stranger", "", 1.0)]);
        vector.series.push(Series { pod: None, ..vector.series[0].clone() });
        let number = |value| Sample::Number { value, withheld: false };
        let (found, strangers) = samples(&vector, &[pod("a"), pod("b"), pod("c")]);
        assert_eq!(found, [number(-7.0), number(0.25), Sample::Missing]);
        assert_eq!(strangers, 2);
    }

    #[test]
    fn a_pod_that_two_series_claim_has_no_number_even_if_they_agree_or_one_is_none() {
        let vector = vector(&[("a", "", 1.0), ("a", "", 1.0), ("b", "", 1.0), ("b", "", f64::NAN)]);
        assert_eq!(samples(&vector, &[pod("a"), pod("b")]).0, [Sample::NotANumber; 2]);
    }

    #[test]
    fn what_is_no_finite_number_is_discarded() {
        let vector = vector(&[("a", "", f64::NAN), ("b", "", f64::INFINITY), ("c", "", f64::NEG_INFINITY)]);
        assert_eq!(samples(&vector, &[pod("a"), pod("b"), pod("c")]).0, [Sample::NotANumber; 3]);
    }

    #[test]
    fn a_sample_is_stale_beyond_the_age_limit_only() {
        let mut vector = vector(&[("a", "", 1.0), ("b", "", 1.0), ("c", "", 1.0)]);
        vector.series[0].at = Timestamp::from_unix_millis(1_000_000 - 60_000);
        vector.series[1].at = Timestamp::from_unix_millis(1_000_000 - 60_001);
        vector.series[2].at = Timestamp::from_unix_millis(1_000_000 + 5_000);
        let (found, _) = samples(&vector, &[pod("a"), pod("b"), pod("c")]);
        let number = Sample::Number { value: 1.0, withheld: false };
        assert_eq!(found, [number, Sample::Old, number], "ahead of our clock is not old");
    }
}
