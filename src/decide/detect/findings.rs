//! What the answer to a query says about the pods: verdicts, and the values behind them, of one join.

use super::{
    Detector, Observation, Outlier, OutlierSource, deviation, discrete,
    listed::{self, FleetScope, NamedPod},
    measured::{number, values},
    outlier,
    payload::Sample,
    series::{ByPod, JoinedVector},
    windows::BreakerWindows,
};
use crate::decide::{
    measurements::Measurements,
    verdict::{Judgement, NoVerdict},
};

/// An answer whose series have found their pods.
#[derive(Clone, Copy, Debug)]
pub enum JoinedAnswer<'a> {
    /// Prometheus' instant vector.
    Vector(JoinedVector<'a>),
    /// The pods that a custom service lists; they are joined when they are judged.
    Named(&'a [NamedPod]),
    /// No usable answer.
    Nothing,
}

/// Verdicts and values, in the order of the pods.
#[derive(Debug)]
pub(super) struct AnswerFindings {
    pub(super) judgements: Vec<Judgement>,
    pub(super) measurements: Measurements,
    /// The answer's parts that belong to none of the pods.
    pub(super) strangers: usize,
}

impl AnswerFindings {
    /// No answer, or one of another kind.
    fn none(pods: usize) -> Self {
        let judgements = vec![Judgement::None(NoVerdict::NoAnswer); pods];
        Self { judgements, measurements: Measurements::default(), strangers: 0 }
    }

    /// Of numbers that are compared with each other; `push` as in [`BreakerWindows::judge`], `place` as in [`values`].
    pub(super) fn compared(
        outlier: &Outlier,
        pods: &[&Observation],
        samples: &[Sample],
        windows: &mut BreakerWindows,
        push: bool,
        place: Measurements,
    ) -> Self {
        let baseline = outlier::baseline(outlier, samples);
        let compared = outlier::judge(outlier, baseline, samples);
        Self {
            judgements: windows.judge(outlier.consecutive, pods, compared, push),
            measurements: outlier::measured(
                outlier,
                baseline,
                values(place, pods, samples.iter().map(number)),
            ),
            strangers: 0,
        }
    }
}

impl Detector {
    /// Judges the pods by an answer, and measures them, in the memory of `place` where it has the same pods.
    pub(super) fn find(
        &self,
        answer: JoinedAnswer<'_>,
        pods: &[&Observation],
        scope: &FleetScope,
        windows: &mut BreakerWindows,
        place: Measurements,
    ) -> AnswerFindings {
        match (self, answer) {
            (Self::Discrete(rule), JoinedAnswer::Vector(joined)) => {
                let (by_pod, strangers) = ByPod::new(joined, &rule.query);
                let (judgements, percent): (Vec<_>, Vec<_>) =
                    discrete::judge(rule, &by_pod, pods).into_iter().unzip();
                let high = Some(f64::from(rule.tolerance));
                let measurements = Measurements { high, ..values(place, pods, percent.iter().copied()) };
                AnswerFindings { judgements, measurements, strangers }
            }
            (Self::Deviation(rule), JoinedAnswer::Vector(joined)) => {
                let (by_pod, strangers) = ByPod::new(joined, &rule.query);
                let (samples, (low, high)) = (by_pod.samples(pods), deviation::range(rule));
                let measurements =
                    Measurements { low, high, ..values(place, pods, samples.iter().map(number)) };
                AnswerFindings { judgements: deviation::judge(rule, &samples), measurements, strangers }
            }
            (Self::Outlier(outlier), answer) => {
                let Some((samples, strangers)) = outlier.samples(answer, pods, scope) else {
                    return AnswerFindings::none(pods.len());
                };
                AnswerFindings {
                    strangers,
                    ..AnswerFindings::compared(outlier, pods, &samples, windows, true, place)
                }
            }
            (Self::Custom(custom), JoinedAnswer::Named(named)) => {
                let (judgements, strangers) = listed::judge(custom, scope, named, pods);
                AnswerFindings { judgements, measurements: Measurements::default(), strangers }
            }
            _ => AnswerFindings::none(pods.len()),
        }
    }
}

impl Outlier {
    /// Each pod's number by an answer, and the parts that belong to none of them; `None`: an answer of another kind.
    fn samples(
        &self,
        answer: JoinedAnswer<'_>,
        pods: &[&Observation],
        scope: &FleetScope,
    ) -> Option<(Vec<Sample>, usize)> {
        match (&self.source, answer) {
            (OutlierSource::Query(query), JoinedAnswer::Vector(joined)) => {
                let (by_pod, strangers) = ByPod::new(joined, query);
                Some((by_pod.samples(pods), strangers))
            }
            (OutlierSource::Custom(custom), JoinedAnswer::Named(named)) => {
                Some(listed::samples(custom, scope, named, pods))
            }
            _ => None,
        }
    }
}
