//! The values that a detector judges, good ones included, with the range of the good ones: see [`Measurements`].

use super::{
    Detector, Observation,
    payload::{self, Good, Sample},
};
use crate::decide::measurements::Measurements;

impl Detector {
    /// The values of keepalives; empty for other detectors.
    pub(super) fn measure(&self, pods: &[&Observation]) -> Measurements {
        let place = Measurements::default();
        match self {
            Self::Silence(rule) => {
                let ages = pods.iter().map(|pod| pod.heard.then_some(pod.age.as_secs_f64()));
                Measurements { high: Some(rule.after.as_secs_f64()), ..values(place, pods, ages) }
            }
            Self::Payload(rule) => {
                let samples = payload::samples(&rule.pointer, pods);
                let (low, high) = match rule.good {
                    Good::Within { min, max } => (min, max),
                    Good::OneOf(_) => (None, None),
                };
                Measurements { low, high, ..values(place, pods, samples.iter().map(number)) }
            }
            _ => Measurements::default(),
        }
    }
}

/// One value for each pod, in their order; in the memory of `place` where it has the same pods.
pub(super) fn values(
    place: Measurements,
    pods: &[&Observation],
    values: impl Iterator<Item = Option<f64>> + Clone,
) -> Measurements {
    place.renewed(pods.iter().zip(values).filter_map(|(pod, value)| Some((&pod.uid, value?))))
}

pub(super) fn number(sample: &Sample) -> Option<f64> {
    match sample {
        Sample::Number { value, .. } => Some(*value),
        Sample::None(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decide::{
        detect::{
            Consecutive, Direction, Discrete, Outlier, OutlierSource, Rule, Values, Windows,
            queried::{QueryAnswer, judge},
            series::tests::{pod, query, scope, vector},
        },
        time::Timestamp,
    };

    fn measured(detector: &Detector, elements: &[(&str, &str, f64)], pods: &[&str]) -> Measurements {
        let rule = Rule { breaker: "x".into(), every: Duration::from_secs(5), detector: detector.clone() };
        let (answer, now) = (QueryAnswer::Vector(vector(elements)), Timestamp::default());
        let pods: Vec<Observation> = pods.iter().map(|name| pod(name)).collect();
        judge(&rule, now, &pods, &answer, &scope(), &mut Windows::default()).source.measurements
    }

    #[test]
    fn every_pod_with_a_value_is_measured_beside_the_range_of_good_ones() {
        let rule = Detector::Outlier(Outlier {
            source: OutlierSource::Query(query()),
            threshold: 3.5,
            min_peers: 3,
            min_deviation: 1.0,
            min_relative_deviation: 0.0,
            direction: Direction::Both,
            consecutive: Consecutive { of: 3, bad: 3 },
        });
        let elements = [("a", "", 5.0), ("b", "", 5.1), ("c", "", 5.0), ("d", "", 90.0), ("low", "", -4.0)];
        let measured = measured(&rule, &elements, &["a", "b", "c", "d", "low", "none"]);
        assert_eq!(measured.values.len(), 5, "a pod without a series has no value");
        assert_eq!(measured.of("uid-d"), Some(90.0));
        assert_eq!((measured.low, measured.median, measured.high), (Some(4.0), Some(5.0), Some(6.0)));
    }

    #[test]
    fn a_share_of_events_is_measured_below_its_tolerance_too() {
        let rule = Detector::Discrete(Discrete {
            query: query(),
            key: "code".into(),
            values: Values::Good(vec!["200".into()]),
            tolerance: 50,
            min_activity: 0,
        });
        let measured = measured(&rule, &[("a", "200", 3.0), ("a", "500", 1.0)], &["a", "b"]);
        assert_eq!(
            (measured.of("uid-a"), measured.of("uid-b"), measured.high),
            (Some(25.0), None, Some(50.0))
        );
        assert_eq!(rule.measure(&[&pod("a")]), Measurements::default());
    }
}
