//! The answers to one query over a range of time, and the answer at one of its steps.

use std::collections::{BTreeMap, HashMap};

use crate::decide::{
    detect::{
        Observation,
        listed::FleetScope,
        queried::JoinedAnswer,
        series::{JoinedVector, SeriesJoin, Vector, VectorElement},
    },
    time::Timestamp,
};

/// A series has no sample at this step: the bits of Prometheus' stale marker, which no measured value has.
pub const ABSENT: f64 = f64::from_bits(0x7ff0_0000_0000_0002);
/// A native histogram, which is no number.
pub const HISTOGRAM: f64 = f64::from_bits(0x7ff0_0000_0000_0003);

/// What a query gave at `start`, `start + step`, and so on.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeAnswer {
    /// The first step.
    pub start: Timestamp,
    /// Milliseconds between two steps, at least 1.
    pub step: i64,
    /// The number of steps.
    pub steps: usize,
    /// In any order.
    pub series: Vec<RangeSeries>,
}

/// One series over the range.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeSeries {
    /// Its labels; value and time are those of no step.
    pub element: VectorElement,
    /// One for each step: a value, [`ABSENT`] or [`HISTOGRAM`].
    pub values: Vec<f64>,
}

impl RangeAnswer {
    /// The step of `at`; `None` between two steps and outside of the range.
    pub fn index(&self, at: Timestamp) -> Option<usize> {
        let since = at.unix_millis() - self.start.unix_millis();
        if since < 0 || since % self.step != 0 {
            return None;
        }
        usize::try_from(since / self.step).ok().filter(|index| *index < self.steps)
    }

    /// This range and the one that follows it, as one.
    pub fn followed_by(mut self, next: Self) -> Self {
        let identity = |series: &RangeSeries| {
            let VectorElement { pod, namespace, key, labels, .. } = &series.element;
            let labels: BTreeMap<String, String> = labels.clone().into_iter().collect();
            (pod.clone(), namespace.clone(), key.clone(), labels)
        };
        let mut known: HashMap<_, usize> =
            self.series.iter().enumerate().map(|(index, series)| (identity(series), index)).collect();
        let (before, steps) = (self.steps, self.steps + next.steps);
        for series in next.series {
            let index = *known.entry(identity(&series)).or_insert(self.series.len());
            if index == self.series.len() {
                self.series.push(RangeSeries { values: vec![ABSENT; before], element: series.element });
            }
            let place = self.series.get_mut(index);
            place.into_iter().for_each(|place| place.values.extend_from_slice(&series.values));
        }
        self.series.iter_mut().for_each(|series| series.values.resize(steps, ABSENT));
        Self { steps, ..self }
    }

    /// The time of a step.
    pub fn time(&self, index: usize) -> Timestamp {
        let steps = i64::try_from(index).unwrap_or(i64::MAX);
        Timestamp::from_unix_millis(self.start.unix_millis().saturating_add(self.step.saturating_mul(steps)))
    }
}

impl RangeSeries {
    /// The value at a step, if there is a sample.
    pub fn at(&self, index: usize) -> Option<f64> {
        self.values.get(index).copied().filter(|value| value.to_bits() != ABSENT.to_bits())
    }
}

/// The instant answer at one step after the other, joined with the pods. The elements are moved, never copied, and the
/// join is kept while the pods are the same, because a week has millions of samples.
pub(super) struct StepCursor<'a> {
    range: Option<&'a RangeAnswer>,
    answer: Vector,
    /// The series of each element of the answer.
    series: Vec<usize>,
    /// By series: its element, while it has no sample.
    absent: Vec<Option<VectorElement>>,
    join: Option<SeriesJoin>,
}

impl<'a> StepCursor<'a> {
    /// `None`: nothing is ever answered.
    pub(super) fn new(range: Option<&'a RangeAnswer>) -> Self {
        let absent = range.map_or_else(Vec::new, |range| {
            range.series.iter().map(|series| Some(series.element.clone())).collect()
        });
        Self { range, answer: Vector::default(), series: Vec::new(), absent, join: None }
    }

    /// The pods have changed.
    pub(super) fn forget_pods(&mut self) {
        self.join = None;
    }

    /// The answer to the query at `now`; `pods` are the same as at the last call, or were forgotten.
    pub(super) fn joined(
        &mut self,
        now: Timestamp,
        pods: &[&Observation],
        scope: &FleetScope,
    ) -> JoinedAnswer<'_> {
        let Some(range) = self.range.filter(|_| self.go_to(now)) else { return JoinedAnswer::Nothing };
        let elements = || range.series.iter().map(|series| &series.element);
        let join = self.join.get_or_insert_with(|| SeriesJoin::new(elements(), pods, scope));
        JoinedAnswer::Vector(JoinedVector { vector: &self.answer, join, series: Some(&self.series) })
    }

    /// Sets the answer to that at `now`. `false`: there is none.
    fn go_to(&mut self, now: Timestamp) -> bool {
        let found = self.range.and_then(|range| Some((range, range.index(now)?)));
        let Some((range, index)) = found else { return false };
        let Vector { asked, elements } = &mut self.answer;
        *asked = now;
        let sample = |series: usize| range.series.get(series).and_then(|series| series.at(index));
        let set = |element: &mut VectorElement, value: f64| {
            (element.at, element.value) = (now, (value.to_bits() != HISTOGRAM.to_bits()).then_some(value));
        };
        let mut place = 0;
        while let (Some(element), Some(series)) = (elements.get_mut(place), self.series.get(place).copied()) {
            if let Some(value) = sample(series) {
                set(element, value);
                place += 1;
            } else {
                self.series.swap_remove(place);
                let gone = elements.swap_remove(place);
                if let Some(slot) = self.absent.get_mut(series) {
                    *slot = Some(gone);
                }
            }
        }
        for (series, slot) in self.absent.iter_mut().enumerate().filter(|(_, slot)| slot.is_some()) {
            let Some(value) = sample(series) else { continue };
            let Some(mut element) = slot.take() else { continue };
            set(&mut element, value);
            elements.push(element);
            self.series.push(series);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(seconds * 1000)
    }

    fn series(pod: &str, values: &[f64]) -> RangeSeries {
        let element = VectorElement {
            pod: Some(pod.into()),
            namespace: None,
            key: None,
            labels: HashMap::new(),
            value: None,
            at: at(0),
        };
        RangeSeries { element, values: values.to_vec() }
    }

    /// Pod and value of each element, sorted.
    fn shown(cursor: &mut StepCursor<'_>, now: Timestamp) -> String {
        let scope = FleetScope { namespace: "shop".into(), by_uid: true };
        let JoinedAnswer::Vector(JoinedVector { vector, .. }) = cursor.joined(now, &[], &scope) else {
            return "nothing".to_owned();
        };
        let one = |element: &VectorElement| {
            assert_eq!(element.at, vector.asked);
            format!("{}={:?}", element.pod.as_deref().unwrap_or_default(), element.value)
        };
        let mut all: Vec<String> = vector.elements.iter().map(one).collect();
        all.sort();
        all.join(" ")
    }

    #[test]
    fn two_ranges_in_a_row_are_one_and_series_keep_their_steps() {
        let range = |start, series| RangeAnswer { start: at(start), step: 5000, steps: 2, series };
        let first = range(100, vec![series("a", &[1.0, 2.0]), series("b", &[3.0, 4.0])]);
        let second = range(110, vec![series("c", &[5.0, 6.0]), series("a", &[7.0, ABSENT])]);
        let both = first.followed_by(second);
        let mut cursor = StepCursor::new(Some(&both));
        let steps: Vec<String> = [100, 105, 110, 115].map(|second| shown(&mut cursor, at(second))).to_vec();
        assert_eq!(
            steps,
            ["a=Some(1.0) b=Some(3.0)", "a=Some(2.0) b=Some(4.0)", "a=Some(7.0) c=Some(5.0)", "c=Some(6.0)"]
        );
    }

    #[test]
    fn each_step_has_the_samples_of_its_time_and_no_others() {
        let range = RangeAnswer {
            start: at(100),
            step: 5000,
            steps: 4,
            series: vec![
                series("a", &[1.0, ABSENT, 3.0, f64::NAN]),
                series("b", &[ABSENT, ABSENT, 7.0, HISTOGRAM]),
            ],
        };
        let mut cursor = StepCursor::new(Some(&range));
        assert_eq!(shown(&mut cursor, at(100)), "a=Some(1.0)");
        assert_eq!(shown(&mut cursor, at(105)), "", "an answer without a sample is empty, not missing");
        assert_eq!(shown(&mut cursor, at(110)), "a=Some(3.0) b=Some(7.0)");
        assert_eq!(shown(&mut cursor, at(115)), "a=Some(NaN) b=None", "NaN is a sample");
        assert_eq!(shown(&mut cursor, at(120)), "nothing", "behind the range");
        assert_eq!(shown(&mut cursor, at(95)), "nothing", "before the range");
        assert_eq!(shown(&mut cursor, at(103)), "nothing", "between two steps");
        assert_eq!(shown(&mut StepCursor::new(None), at(100)), "nothing");
    }
}
