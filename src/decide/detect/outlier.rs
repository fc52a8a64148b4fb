//! Outliers: distance from the fleet's median, in units of the fleet's spread.
//!
//! Median and MAD (median distance from the median) are stable under a few bad pods and move with the fleet: when all
//! pods get slower together none stands out, so that a fault of a shared dependency withholds no pod. Pods without
//! traffic are no peers while enough others are left, because their values say little about pods under load.
//!
//! In a very even fleet a harmless difference is many MADs. `minRelativeDeviation` therefore requires a share of the
//! median as well, which also moves with the fleet.

use super::{
    Direction, Outlier,
    payload::{Sample, beyond},
};
use crate::decide::{
    measurements::Measurements,
    verdict::{Evidence, NoVerdict},
};

/// Scales the MAD of normal noise to its standard deviation.
const SCALE: f64 = 1.4826;

/// One pod's comparison with its peers, at one evaluation.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerComparison {
    /// The pod and enough peers have a value.
    Measured {
        /// Whether the value is beyond the limit on a bad side.
        beyond: bool,
        /// In [0, 1); 0 when not beyond.
        severity: f64,
        /// What was compared.
        numbers: PeerNumbers,
    },
    /// No comparison, and why.
    None(NoVerdict),
}

/// The numbers of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeerNumbers {
    /// The pod's value.
    pub value: f64,
    /// The bound on the side of the value.
    pub threshold: f64,
    /// The median of the peers.
    pub median: f64,
}

/// The fleet's median and limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PeerBaseline {
    median: f64,
    /// The largest good distance from the median.
    limit: f64,
}

impl PeerNumbers {
    /// As evidence of a bad pod.
    pub(super) fn evidence(self, note: String) -> Evidence {
        let Self { value, threshold, median } = self;
        let (value, threshold, median) = (Some(value), Some(threshold), Some(median));
        Evidence { rule: "outlier".into(), value, threshold, median, note: Some(note) }
    }
}

/// Compares each sample with the fleet's [`baseline`], in their order.
pub(super) fn judge(
    rule: &Outlier,
    baseline: Option<PeerBaseline>,
    samples: &[Sample],
) -> impl Iterator<Item = PeerComparison> {
    let compare = move |sample: &Sample| match (sample, baseline) {
        (Sample::Number { value, .. }, Some(baseline)) => measure(rule, baseline, *value),
        (Sample::Number { .. }, None) => PeerComparison::None(NoVerdict::NoPeers),
        (Sample::None(cause), _) => PeerComparison::None(cause.clone()),
    };
    samples.iter().map(compare)
}

/// The values with the median and those below and above which a sample is beyond, where anything is compared.
pub(super) fn measured(rule: &Outlier, baseline: Option<PeerBaseline>, values: Measurements) -> Measurements {
    let Some(PeerBaseline { median, limit }) = baseline else { return values };
    let (below, above) = (Some(median - limit), Some(median + limit));
    let (low, high) = match rule.direction {
        Direction::High => (None, above),
        Direction::Low => (below, None),
        Direction::Both => (below, above),
    };
    Measurements { low, high, median: Some(median), ..values }
}

/// `None` without enough values, or without a spread or `minDeviation` to measure by.
pub(super) fn baseline(rule: &Outlier, samples: &[Sample]) -> Option<PeerBaseline> {
    let numbers = |with_withheld: bool| -> Vec<f64> {
        let number = |sample: &Sample| match *sample {
            Sample::Number { value, withheld } if with_withheld || !withheld => Some(value),
            _ => None,
        };
        samples.iter().filter_map(number).collect()
    };
    let enough = |values: &Vec<f64>| !values.is_empty() && values.len() >= rule.min_peers as usize;
    let mut values = Some(numbers(false)).filter(enough).or_else(|| Some(numbers(true)).filter(enough))?;
    let median = median(&mut values)?;
    let mut distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    let absolute = (rule.threshold * SCALE * self::median(&mut distances)?).max(rule.min_deviation);
    let limit = absolute.max(rule.min_relative_deviation * median.abs());
    // An absolute limit of 0 (more than half are equal, no `minDeviation`) would make any difference an outlier. A share
    // of the median only widens the limit, so it does not help here.
    (absolute > 0.0 && limit.is_finite()).then_some(PeerBaseline { median, limit })
}

fn measure(rule: &Outlier, PeerBaseline { median, limit }: PeerBaseline, value: f64) -> PeerComparison {
    let distance = rule.direction.distance(value, median);
    let is_beyond = distance > limit;
    let side = match rule.direction {
        Direction::High => limit,
        Direction::Low => -limit,
        Direction::Both => limit.copysign(value - median),
    };
    let severity = if is_beyond { beyond(distance, limit) } else { 0.0 };
    let numbers = PeerNumbers { value, threshold: median + side, median };
    PeerComparison::Measured { beyond: is_beyond, severity, numbers }
}

/// The middle value, or the mean of the two in the middle.
fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (lower, &mut upper, _) =
        (!values.is_empty()).then(|| values.select_nth_unstable_by(middle, f64::total_cmp))?;
    if !even {
        return Some(upper);
    }
    let below = lower.iter().copied().max_by(f64::total_cmp)?;
    Some(below / 2.0 + upper / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::detect::{Consecutive, OutlierSource};

    /// Without minimum deviations.
    fn rule() -> Outlier {
        Outlier {
            source: OutlierSource::Pointer("/x".into()),
            threshold: 3.5,
            min_peers: 5,
            min_deviation: 0.0,
            min_relative_deviation: 0.0,
            direction: Direction::High,
            consecutive: Consecutive { of: 1, bad: 1 },
        }
    }

    fn judge(rule: &Outlier, samples: &[Sample]) -> Vec<PeerComparison> {
        super::judge(rule, baseline(rule, samples), samples).collect()
    }

    fn numbers(values: &[f64]) -> Vec<Sample> {
        values.iter().map(|&value| Sample::Number { value, withheld: false }).collect()
    }

    /// `B` beyond, `.` within, `?` unjudged.
    fn verdicts(rule: &Outlier, samples: &[Sample]) -> String {
        let letter = |look| match look {
            PeerComparison::Measured { beyond: true, .. } => 'B',
            PeerComparison::Measured { beyond: false, .. } => '.',
            PeerComparison::None(_) => '?',
        };
        judge(rule, samples).into_iter().map(letter).collect()
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0]), Some(3.0));
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&mut [f64::MAX, f64::MAX]), Some(f64::MAX));
    }

    #[test]
    fn the_pod_far_above_its_peers_is_beyond_with_the_numbers_in_the_evidence() {
        let samples = numbers(&[10.0, 11.0, 9.0, 10.5, 9.5, 30.0]);
        assert_eq!(verdicts(&rule(), &samples), ".....B");
        // Median 10.25, distances 0.25 0.75 1.25 0.25 0.75 19.75: MAD 0.75, limit 3.5 x 1.4826 x 0.75.
        let PeerComparison::Measured { severity, numbers, .. } = judge(&rule(), &samples).remove(5) else {
            panic!()
        };
        assert_eq!((numbers.median, numbers.value), (10.25, 30.0));
        assert!((numbers.threshold - (10.25 + 3.891_825)).abs() < 1e-9, "{numbers:?}");
        assert!(severity > 0.7 && severity < 1.0);
    }

    #[test]
    fn direction_selects_the_bad_side() {
        let samples = numbers(&[10.0, 11.0, 9.0, 10.5, 9.5, 30.0, -5.0]);
        assert_eq!(verdicts(&rule(), &samples), ".....B.");
        assert_eq!(verdicts(&Outlier { direction: Direction::Low, ..rule() }, &samples), "......B");
        assert_eq!(verdicts(&Outlier { direction: Direction::Both, ..rule() }, &samples), ".....BB");
    }

    #[test]
    fn too_few_peers_give_no_verdict_and_missing_values_are_no_peers() {
        let mut samples = numbers(&[10.0, 11.0, 9.0, 30.0]);
        assert_eq!(verdicts(&rule(), &samples), "????");
        let causes = [NoVerdict::NoSeries, NoVerdict::TooOld { seconds: 60 }, NoVerdict::NoNumber];
        samples.extend(causes.clone().map(Sample::None));
        let judgements: Vec<_> = judge(&rule(), &samples).into_iter().skip(4).collect();
        let expected = causes.map(PeerComparison::None);
        assert_eq!(judgements, expected);
        samples.extend(numbers(&[10.0]));
        assert_eq!(verdicts(&rule(), &samples), "...B???.");
    }

    #[test]
    fn when_more_than_half_are_equal_only_min_deviation_can_tell() {
        let samples = numbers(&[0.0, 0.0, 0.0, 0.0, 0.001, 0.5]);
        assert_eq!(verdicts(&rule(), &samples), "??????");
        assert_eq!(verdicts(&Outlier { min_deviation: 0.1, ..rule() }, &samples), ".....B");
        let equal = numbers(&[2.0, 2.0, 2.0, 2.0, 2.001, 9.0]);
        let relative = Outlier { min_relative_deviation: 0.5, ..rule() };
        assert_eq!(verdicts(&relative, &equal), "??????", "a share of the median is no distance");
        assert_eq!(verdicts(&Outlier { min_deviation: 0.1, ..relative }, &equal), ".....B");
    }

    #[test]
    fn a_distance_below_min_deviation_never_matters() {
        let samples = numbers(&[10.0, 10.1, 9.9, 10.05, 9.95, 12.0]);
        assert_eq!(verdicts(&rule(), &samples), ".....B");
        assert_eq!(verdicts(&Outlier { min_deviation: 5.0, ..rule() }, &samples), "......");
    }

    #[test]
    fn a_distance_below_its_share_of_the_median_never_matters_and_moves_with_the_fleet() {
        let relative = |share| Outlier { min_relative_deviation: share, ..rule() };
        for factor in [1.0, 4.0, -1.0] {
            let scaled = |values: &[f64]| numbers(&values.iter().map(|v| v * factor).collect::<Vec<_>>());
            let samples = scaled(&[10.0, 10.1, 9.9, 10.05, 9.95, 13.0, 7.0]);
            let both = |share| Outlier { direction: Direction::Both, ..relative(share) };
            assert_eq!(verdicts(&both(0.0), &samples), ".....BB", "x {factor}");
            assert_eq!(
                verdicts(&both(0.25), &samples),
                ".....BB",
                "x {factor}: the share is below the distance"
            );
            assert_eq!(verdicts(&both(0.5), &samples), ".......", "x {factor}");
        }
        let samples = numbers(&[10.0, 10.1, 9.9, 10.05, 9.95, 15.1, 14.9]);
        assert_eq!(verdicts(&relative(0.5), &samples), ".....B.", "median 10.05, limit 5.025");
        let PeerComparison::Measured { numbers, .. } = judge(&relative(0.5), &samples).remove(5) else {
            panic!()
        };
        assert!((numbers.threshold - 15.075).abs() < 1e-9, "{numbers:?}");
    }

    #[test]
    fn the_largest_of_the_three_limits_holds() {
        let samples = numbers(&[10.0, 11.0, 9.0, 10.5, 9.5, 30.0]);
        let limit = |min_deviation, min_relative_deviation| {
            let rule = Outlier { min_deviation, min_relative_deviation, ..rule() };
            baseline(&rule, &samples).unwrap().limit
        };
        assert!((limit(1.0, 0.1) - 3.891_825).abs() < 1e-9, "the spread");
        assert_eq!(limit(4.0, 0.1), 4.0);
        assert_eq!(limit(4.0, 0.5), 5.125, "half of the median of 10.25");
    }

    #[test]
    fn withheld_pods_are_no_peers_while_enough_others_are() {
        let idle = |value| Sample::Number { value, withheld: true };
        let mut samples = numbers(&[10.0, 11.0, 9.0, 10.5, 9.5]);
        samples.extend((0..6).map(|_| idle(0.0)));
        samples.push(idle(40.0));
        assert_eq!(verdicts(&rule(), &samples), "...........B");
        let mut few = numbers(&[10.0, 11.0, 9.0, 10.5]);
        few.extend([idle(9.5), idle(40.0)]);
        assert_eq!(verdicts(&rule(), &few), ".....B", "all together are enough");
    }

    #[test]
    fn values_at_the_limits_of_f64_are_never_bad() {
        let samples = numbers(&[f64::MAX, f64::MIN, 0.0, 1.0, f64::MAX]);
        assert!(!verdicts(&rule(), &samples).contains('B'));
        let huge = Outlier { min_relative_deviation: f64::MAX, ..rule() };
        assert!(!verdicts(&huge, &numbers(&[10.0, 11.0, 9.0, 10.5, 1e300])).contains('B'));
    }
}
