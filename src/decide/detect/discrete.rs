//! The share of events with a bad value, per pod.
//!
//! A query gives rates or counts; they are summed unrounded, because 0.5 errors per second must not become 0.

use std::collections::HashMap;

use super::{
    Discrete, Observation, Values,
    series::{ByPod, VectorElement},
};
use crate::decide::verdict::{Evidence, Judgement, NoVerdict};

/// One judgement per pod, in their order, with the percentage of bad events where there is one.
pub(super) fn judge(
    rule: &Discrete,
    by_pod: &ByPod<'_>,
    pods: &[&Observation],
) -> Vec<(Judgement, Option<f64>)> {
    let one = |(index, pod): (usize, &&Observation)| {
        let shares = shares(rule, by_pod, index, pod);
        match shares.and_then(|(bad, good)| Ok((bad, good, enough(rule, bad, good)?))) {
            Ok((bad, good, percent)) => (settle(rule, bad, good, percent), Some(percent)),
            Err(cause) => (Judgement::None(cause), None),
        }
    };
    pods.iter().enumerate().map(one).collect()
}

/// The bad and the good events of one pod.
fn shares(
    rule: &Discrete,
    by_pod: &ByPod<'_>,
    index: usize,
    pod: &Observation,
) -> Result<(f64, f64), NoVerdict> {
    let elements = by_pod.of(index, pod)?;
    if elements.iter().any(|one| !rule.has_key(one)) {
        return Err(NoVerdict::NoKey { label: rule.key.clone() });
    }
    let mut keys = HashMap::new();
    for one in elements {
        if let Some(first) = keys.insert(one.key.as_deref().unwrap_or_default(), *one) {
            return Err(VectorElement::told_apart(&[first, one]));
        }
    }
    let fresh = || elements.iter().filter(|one| !by_pod.is_stale(one));
    let counted: Vec<(bool, f64)> = fresh()
        .filter_map(|one| Some((one, one.value.filter(|value| value.is_finite() && *value >= 0.0)?)))
        .map(|(one, value)| (rule.is_bad(one.key.as_deref().unwrap_or_default()), value))
        .collect();
    if counted.is_empty() {
        let histograms = fresh().all(|one| one.value.is_none());
        return Err(if histograms { NoVerdict::Histogram } else { NoVerdict::NoNumber });
    }
    let sum = |which: bool| counted.iter().filter(|(bad, _)| *bad == which).map(|(_, value)| value).sum();
    Ok((sum(true), sum(false)))
}

/// The percentage of bad events. No events give no verdict, even with `minActivity: 0`.
fn enough(rule: &Discrete, bad: f64, good: f64) -> Result<f64, NoVerdict> {
    let all = bad + good;
    if !all.is_finite() {
        return Err(NoVerdict::NoNumber);
    }
    if all <= 0.0 || all < f64::from(rule.min_activity) {
        return Err(NoVerdict::FewEvents);
    }
    Ok(bad / all * 100.0)
}

fn settle(rule: &Discrete, bad: f64, good: f64, percent: f64) -> Judgement {
    let tolerance = f64::from(rule.tolerance);
    if percent <= tolerance {
        return Judgement::Good;
    }
    Judgement::Bad {
        severity: (percent - tolerance) / (100.0 - tolerance),
        evidence: Box::new(Evidence {
            rule: "discreteValueOutOfList, percent".into(),
            value: Some(percent),
            threshold: Some(tolerance),
            note: Some(format!("{bad} bad of {}", bad + good)),
            ..Evidence::default()
        }),
    }
}

impl Discrete {
    fn is_bad(&self, key: &str) -> bool {
        match &self.values {
            Values::Good(good) => !good.iter().any(|value| value == key),
            Values::Bad(bad) => bad.iter().any(|value| value == key),
        }
    }

    /// Whether the element has the key label. A query that drops the label must not make every pod bad; only a list
    /// with the empty text accepts its absence.
    fn has_key(&self, element: &VectorElement) -> bool {
        let (Values::Good(list) | Values::Bad(list)) = &self.values;
        element.key.as_deref().is_some_and(|key| !key.is_empty()) || list.iter().any(String::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{
        detect::series::{
            Vector,
            tests::{by_pod, pod, query, vector},
        },
        time::Timestamp,
    };

    fn rule() -> Discrete {
        Discrete {
            query: query(),
            key: "code".into(),
            values: Values::Good(vec!["200".into(), "404".into()]),
            tolerance: 50,
            min_activity: 2,
        }
    }

    fn judge(rule: &Discrete, vector: &Vector, pods: &[&Observation]) -> Vec<Judgement> {
        let judged = |by_pod: &ByPod<'_>| super::judge(rule, by_pod, pods);
        by_pod(vector, pods, judged).0.into_iter().map(|(judgement, _)| judgement).collect()
    }

    fn of_a(rule: &Discrete, elements: &[(&str, f64)]) -> Judgement {
        let elements: Vec<_> = elements.iter().map(|&(key, value)| ("a", key, value)).collect();
        judge(rule, &vector(&elements), &[&pod("a")]).remove(0)
    }

    fn is_bad(judgement: &Judgement) -> bool {
        matches!(judgement, Judgement::Bad { .. })
    }

    #[test]
    fn a_pod_is_bad_above_the_tolerance_and_not_at_it() {
        assert_eq!(of_a(&rule(), &[("200", 5.0), ("500", 5.0)]), Judgement::Good);
        let Judgement::Bad { severity, evidence } =
            of_a(&rule(), &[("200", 2.0), ("404", 2.0), ("500", 12.0)])
        else {
            panic!()
        };
        assert_eq!((severity, evidence.value, evidence.threshold), (0.5, Some(75.0), Some(50.0)));
        assert_eq!(evidence.note.as_deref(), Some("12 bad of 16"));
    }

    #[test]
    fn rates_below_one_count_as_they_are() {
        let rule = Discrete { min_activity: 0, ..rule() };
        assert!(is_bad(&of_a(&rule, &[("200", 0.3), ("500", 0.9)])));
        assert_eq!(of_a(&rule, &[("200", 0.9), ("500", 0.3)]), Judgement::Good);
    }

    #[test]
    fn the_list_is_of_good_or_of_bad_values() {
        let rule = Discrete { values: Values::Bad(vec!["500".into()]), ..rule() };
        assert_eq!(of_a(&rule, &[("302", 9.0), ("503", 9.0)]), Judgement::Good);
        assert!(is_bad(&of_a(&rule, &[("302", 1.0), ("500", 9.0)])));
    }

    #[test]
    fn too_little_activity_gives_no_verdict_and_no_events_never_do() {
        assert_eq!(of_a(&rule(), &[("500", 1.9)]), Judgement::None(NoVerdict::FewEvents));
        assert!(is_bad(&of_a(&rule(), &[("500", 2.0)])));
        let any = Discrete { min_activity: 0, ..rule() };
        assert_eq!(of_a(&any, &[("500", 0.0), ("200", 0.0)]), Judgement::None(NoVerdict::FewEvents));
        assert!(is_bad(&of_a(&any, &[("500", 0.001)])));
        assert_eq!(of_a(&any, &[]), Judgement::None(NoVerdict::NoSeries));
    }

    #[test]
    fn numbers_that_count_no_events_are_discarded() {
        let odd = [("500", f64::NAN), ("501", f64::INFINITY), ("502", -50.0)];
        assert_eq!(of_a(&rule(), &odd), Judgement::None(NoVerdict::NoNumber));
        let beside = [("200", 5.0), ("500", f64::NAN), ("501", f64::INFINITY), ("502", -50.0)];
        assert_eq!(of_a(&rule(), &beside), Judgement::Good);
        assert_eq!(
            of_a(&rule(), &[("200", f64::MAX), ("500", f64::MAX)]),
            Judgement::None(NoVerdict::NoNumber)
        );
    }

    #[test]
    fn two_series_for_one_value_of_one_pod_discard_that_pod_only() {
        let vector = vector(&[("a", "500", 9.0), ("a", "500", 9.0), ("b", "500", 9.0), ("b", "200", 1.0)]);
        let judgements = judge(&rule(), &vector, &[&pod("a"), &pod("b")]);
        assert_eq!(judgements[0], Judgement::None(NoVerdict::SeveralSeries { label: String::new() }));
        assert!(is_bad(&judgements[1]), "several values of one pod are the rule");
    }

    #[test]
    fn an_element_without_the_key_is_no_bad_value() {
        let mut vector = vector(&[("a", "500", 9.0)]);
        vector.elements[0].key = None;
        assert_eq!(
            judge(&rule(), &vector, &[&pod("a")]),
            [Judgement::None(NoVerdict::NoKey { label: "code".into() })]
        );
        let listed = Discrete { values: Values::Bad(vec![String::new()]), ..rule() };
        assert!(is_bad(&judge(&listed, &vector, &[&pod("a")])[0]), "where the list names it, it is");
    }

    #[test]
    fn a_pod_with_old_samples_only_is_stale() {
        let mut vector = vector(&[("a", "500", 9.0), ("b", "500", 9.0), ("b", "200", 9.0)]);
        vector.elements[0].at = Timestamp::from_unix_millis(0);
        vector.elements[1].at = Timestamp::from_unix_millis(0);
        let judgements = judge(&rule(), &vector, &[&pod("a"), &pod("b")]);
        assert_eq!(judgements, [Judgement::None(NoVerdict::TooOld { seconds: 60 }), Judgement::Good]);
    }

    #[test]
    fn a_tolerance_of_a_hundred_or_more_finds_no_pod_bad() {
        for tolerance in [100, 5000] {
            assert_eq!(of_a(&Discrete { tolerance, ..rule() }, &[("500", 9.0)]), Judgement::Good);
        }
        let Judgement::Bad { severity, .. } = of_a(&Discrete { tolerance: 0, ..rule() }, &[("500", 9.0)])
        else {
            panic!()
        };
        assert_eq!(severity, 1.0);
    }
}
