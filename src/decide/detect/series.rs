//! The elements of a Prometheus query's answer, grouped by pod.
//!
//! A value is used only if its pod and its age are unambiguous, because a wrong match would withhold a healthy pod: a
//! pod with two elements has no value, and an element that matches no pod of this fleet is only counted.

use std::{collections::HashMap, time::Duration};

use super::{Observation, payload::Sample};
use crate::decide::time::Timestamp;

/// One element of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorElement {
    /// The label with the pod's name, if present.
    pub pod: Option<String>,
    /// The label by which a discrete detector counts, if present.
    pub key: Option<String>,
    /// The sample's value, possibly not finite; NaN for an element without a number.
    pub value: f64,
    /// The sample's time.
    pub at: Timestamp,
}

/// An instant vector and the time of its query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vector {
    /// Just before the request was sent.
    pub asked: Timestamp,
    /// In any order.
    pub elements: Vec<VectorElement>,
}

/// The elements of a vector by pod name.
pub(super) struct ByPod<'a> {
    by_name: HashMap<&'a str, Vec<&'a VectorElement>>,
    asked: Timestamp,
    limit: Duration,
}

impl<'a> ByPod<'a> {
    /// The elements that match `pods`, and the number of those that do not.
    pub(super) fn new(
        vector: &'a Vector,
        pods: &[&'a Observation],
        max_sample_age: Duration,
    ) -> (Self, usize) {
        let mut by_name: HashMap<&str, Vec<&VectorElement>> =
            pods.iter().map(|pod| (pod.id.as_str(), Vec::new())).collect();
        let mut strangers = 0;
        for element in &vector.elements {
            match element.pod.as_deref().and_then(|pod| by_name.get_mut(pod)) {
                Some(own) => own.push(element),
                None => strangers += 1,
            }
        }
        (Self { by_name, asked: vector.asked, limit: max_sample_age }, strangers)
    }

    /// A pod's elements, in no order.
    pub(super) fn of(&self, pod: &Observation) -> &[&'a VectorElement] {
        self.by_name.get(pod.id.as_str()).map_or(&[], Vec::as_slice)
    }

    /// Whether the sample is older than the limit at the time of the query, so that a slow answer makes none stale.
    pub(super) fn is_stale(&self, element: &VectorElement) -> bool {
        self.asked.since(element.at) > self.limit
    }

    /// A pod's single value.
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
    use crate::decide::detect::{LifeStatus, Query};

    pub(in crate::decide::detect) fn pod(id: &str) -> Observation {
        Observation {
            uid: format!("uid-{id}").as_str().into(),
            id: id.into(),
            age: Duration::ZERO,
            status: LifeStatus::Live,
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

    /// A vector of (pod, key, value), queried at second 1000, with samples of that second.
    pub(in crate::decide::detect) fn vector(elements: &[(&str, &str, f64)]) -> Vector {
        let at = Timestamp::from_unix_millis(1_000_000);
        let element = |&(pod, key, value): &(&str, &str, f64)| VectorElement {
            pod: Some(pod.into()),
            key: Some(key.into()),
            value,
            at,
        };
        Vector { asked: at, elements: elements.iter().map(element).collect() }
    }

    fn samples(vector: &Vector, pods: &[Observation]) -> (Vec<Sample>, usize) {
        let pods: Vec<&Observation> = pods.iter().collect();
        let (by_pod, strangers) = ByPod::new(vector, &pods, Duration::from_secs(60));
        (pods.iter().map(|pod| by_pod.sample(pod)).collect(), strangers)
    }

    #[test]
    fn each_pod_gets_its_own_number_and_strangers_are_counted() {
        let mut vector = vector(&[("b", "", 0.25), ("a", "", -7.0), ("stranger", "", 1.0)]);
        vector.elements.push(VectorElement { pod: None, ..vector.elements[0].clone() });
        let number = |value| Sample::Number { value, withheld: false };
        let (found, strangers) = samples(&vector, &[pod("a"), pod("b"), pod("c")]);
        assert_eq!(found, [number(-7.0), number(0.25), Sample::Missing]);
        assert_eq!(strangers, 2);
    }

    #[test]
    fn a_pod_with_two_elements_has_no_value_even_if_they_are_equal_or_one_is_nan() {
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
        vector.elements[0].at = Timestamp::from_unix_millis(1_000_000 - 60_000);
        vector.elements[1].at = Timestamp::from_unix_millis(1_000_000 - 60_001);
        vector.elements[2].at = Timestamp::from_unix_millis(1_000_000 + 5_000);
        let (found, _) = samples(&vector, &[pod("a"), pod("b"), pod("c")]);
        let number = Sample::Number { value: 1.0, withheld: false };
        assert_eq!(found, [number, Sample::Old, number], "ahead of our clock is not old");
    }
}
