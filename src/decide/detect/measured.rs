//! The values that a detector judges, good ones included, with the range of the good ones: see [`Measurements`].

use super::{
    Detector, Observation, Outlier, OutlierSource, deviation, discrete,
    listed::FleetScope,
    outlier,
    payload::{self, Good, Sample},
    queried::QueryAnswer,
    series::ByPod,
};
use crate::decide::measurements::Measurements;

impl Detector {
    /// The values of keepalives; empty for other detectors.
    pub(super) fn measure(&self, pods: &[&Observation]) -> Measurements {
        match self {
            Self::Silence(rule) => {
                let ages = pods.iter().map(|pod| pod.heard.then_some(pod.age.as_secs_f64()));
                Measurements { high: Some(rule.after.as_secs_f64()), ..values(pods, ages) }
            }
            Self::Payload(rule) => {
                let samples = payload::samples(&rule.pointer, pods);
                let (low, high) = match rule.good {
                    Good::Within { min, max } => (min, max),
                    Good::OneOf(_) => (None, None),
                };
                Measurements { low, high, ..values(pods, samples.iter().map(number)) }
            }
            Self::Outlier(outlier @ Outlier { source: OutlierSource::Pointer(pointer), .. }) => {
                compared(outlier, pods, &payload::samples(pointer, pods))
            }
            _ => Measurements::default(),
        }
    }

    /// The values of a query's answer; empty for other detectors, and for a service that only names pods.
    pub(super) fn measure_answer(
        &self,
        answer: &QueryAnswer,
        pods: &[&Observation],
        scope: &FleetScope,
    ) -> Measurements {
        match (self, answer) {
            (Self::Discrete(rule), QueryAnswer::Vector(vector)) => {
                let (by_pod, _) = ByPod::new(vector, pods, &rule.query, scope);
                let percent = pods.iter().map(|pod| discrete::percent(rule, &by_pod, pod).ok());
                let high = Some(f64::from(rule.tolerance));
                Measurements { high, ..values(pods, percent) }
            }
            (Self::Deviation(rule), QueryAnswer::Vector(vector)) => {
                let (by_pod, _) = ByPod::new(vector, pods, &rule.query, scope);
                let (low, high) = deviation::range(rule);
                let shares = pods.iter().map(|pod| number(&by_pod.sample(pod)));
                Measurements { low, high, ..values(pods, shares) }
            }
            (Self::Outlier(outlier), answer) => outlier
                .samples(answer, pods, scope)
                .map_or_else(Measurements::default, |(samples, _)| compared(outlier, pods, &samples)),
            _ => Measurements::default(),
        }
    }
}

/// One value for each pod, in their order.
fn values(pods: &[&Observation], values: impl Iterator<Item = Option<f64>>) -> Measurements {
    let named = pods.iter().zip(values).filter_map(|(pod, value)| Some((pod.uid.clone(), value?)));
    Measurements::new(named)
}

fn number(sample: &Sample) -> Option<f64> {
    match sample {
        Sample::Number { value, .. } => Some(*value),
        Sample::None(_) => None,
    }
}

/// The thresholds of the comparisons on either side of the median.
fn compared(outlier: &Outlier, pods: &[&Observation], samples: &[Sample]) -> Measurements {
    let measured = values(pods, samples.iter().map(number));
    match outlier::bounds(outlier, samples) {
        Some((median, low, high)) => Measurements { median: Some(median), low, high, ..measured },
        None => measured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::detect::{
        Consecutive, Direction, Discrete, Values,
        series::tests::{pod, query, scope, vector},
    };

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
        let pods = ["a", "b", "c", "d", "low", "none"].map(pod);
        let elements = [("a", "", 5.0), ("b", "", 5.1), ("c", "", 5.0), ("d", "", 90.0), ("low", "", -4.0)];
        let answer = QueryAnswer::Vector(vector(&elements));
        let measured = rule.measure_answer(&answer, &pods.iter().collect::<Vec<_>>(), &scope());
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
        let answer = QueryAnswer::Vector(vector(&[("a", "200", 3.0), ("a", "500", 1.0)]));
        let measured = rule.measure_answer(&answer, &[&pod("a"), &pod("b")], &scope());
        assert_eq!(
            (measured.of("uid-a"), measured.of("uid-b"), measured.high),
            (Some(25.0), None, Some(50.0))
        );
        assert_eq!(rule.measure(&[&pod("a")]), Measurements::default());
    }
}
