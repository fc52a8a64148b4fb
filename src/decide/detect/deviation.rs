//! Deviation from the fleet's mean. The query divides each pod's value by the mean, so that 1 is the mean.

use super::{
    Deviation, Direction,
    payload::{Sample, beyond},
};
use crate::decide::verdict::{Evidence, Judgement, NoVerdict};

/// One judgement per pod, in their order.
pub(super) fn judge(rule: &Deviation, samples: &[Sample]) -> Vec<Judgement> {
    let one = |sample: &Sample| match sample {
        Sample::None(cause) => Judgement::None(cause.clone()),
        Sample::Number { value, .. } if *value >= 0.0 => measure(rule, *value),
        // A negative number is no share of a mean.
        Sample::Number { .. } => Judgement::None(NoVerdict::NoNumber),
    };
    samples.iter().map(one).collect()
}

/// The range of the good shares; `None`: open on that side.
pub(super) fn range(rule: &Deviation) -> (Option<f64>, Option<f64>) {
    let share = rule.max_percent / 100.0;
    let (low, high) = (Some(1.0 - share), Some(1.0 + share));
    match rule.direction {
        Direction::High => (None, high),
        Direction::Low => (low, None),
        Direction::Both => (low, high),
    }
}

fn measure(rule: &Deviation, value: f64) -> Judgement {
    let percent = rule.direction.distance(value, 1.0) * 100.0;
    if percent <= rule.max_percent {
        return Judgement::Good;
    }
    let side = rule.max_percent.copysign(value - 1.0) / 100.0;
    Judgement::Bad {
        severity: beyond(percent, rule.max_percent),
        evidence: Box::new(Evidence {
            rule: "continuousValueDeviation, share of the mean".into(),
            value: Some(value),
            threshold: Some(1.0 + side),
            note: Some(format!("{percent:.1} percent away")),
            ..Evidence::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{
        detect::{
            Observation,
            series::{
                Vector,
                tests::{by_pod, pod, query, vector},
            },
        },
        time::Timestamp,
    };

    fn rule() -> Deviation {
        Deviation { query: query(), max_percent: 75.0, direction: Direction::Both }
    }

    fn judge(rule: &Deviation, vector: &Vector, pods: &[&Observation]) -> (Vec<Judgement>, usize) {
        by_pod(vector, pods, |by_pod| super::judge(rule, &by_pod.samples(pods)))
    }

    /// `B` bad, `.` good, `?` neither.
    fn verdicts(rule: &Deviation, values: &[f64]) -> String {
        let names: Vec<String> = (0..values.len()).map(|n| format!("p{n}")).collect();
        let elements: Vec<_> = names.iter().zip(values).map(|(name, value)| (&**name, "", *value)).collect();
        let pods: Vec<_> = names.iter().map(|name| pod(name)).collect();
        let letter = |judgement| match judgement {
            Judgement::Bad { .. } => 'B',
            Judgement::Good => '.',
            _ => '?',
        };
        let (judgements, _) = judge(rule, &vector(&elements), &pods.iter().collect::<Vec<_>>());
        judgements.into_iter().map(letter).collect()
    }

    #[test]
    fn beyond_the_limit_is_bad_on_both_sides_and_at_it_is_good() {
        assert_eq!(verdicts(&rule(), &[1.0, 1.75, 1.76, 0.25, 0.24, 0.0, 9.0]), "..B.BBB");
    }

    #[test]
    fn direction_selects_the_bad_side() {
        let values = [1.0, 3.0, 0.1];
        assert_eq!(verdicts(&Deviation { direction: Direction::High, ..rule() }, &values), ".B.");
        assert_eq!(verdicts(&Deviation { direction: Direction::Low, ..rule() }, &values), "..B");
    }

    #[test]
    fn what_is_no_share_of_a_mean_gives_no_verdict() {
        assert_eq!(verdicts(&rule(), &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.5, 1.0]), "????.");
    }

    #[test]
    fn a_pod_without_a_sample_with_two_or_with_an_old_one_has_no_verdict() {
        let mut vector = vector(&[("two", "", 9.0), ("two", "", 9.0), ("old", "", 9.0), ("ghost", "", 9.0)]);
        vector.elements[2].at = Timestamp::from_unix_millis(0);
        let pods = [&pod("none"), &pod("two"), &pod("old")];
        let (judgements, strangers) = judge(&rule(), &vector, &pods);
        assert_eq!(
            judgements,
            [
                NoVerdict::NoSeries,
                NoVerdict::SeveralSeries { label: String::new() },
                NoVerdict::TooOld { seconds: 60 }
            ]
            .map(Judgement::None)
        );
        assert_eq!(strangers, 1);
    }

    #[test]
    fn the_numbers_are_in_the_evidence_and_severity_grows_with_distance() {
        let bad = |value| match judge(&rule(), &vector(&[("a", "", value)]), &[&pod("a")]).0.remove(0) {
            Judgement::Bad { severity, evidence } => (severity, evidence),
            other => panic!("{other:?}"),
        };
        let (near, evidence) = bad(2.0);
        assert_eq!((evidence.value, evidence.threshold), (Some(2.0), Some(1.75)));
        assert_eq!(bad(0.0).1.threshold, Some(0.25));
        assert!(bad(5.0).0 > near);
    }
}
