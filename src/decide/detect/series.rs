//! The elements of a Prometheus query's answer, grouped by pod.
//!
//! A value is used only if its pod and its age are unambiguous, because a wrong match would withhold a healthy pod: a
//! pod with two elements has no value, an element that matches no pod of this fleet is only counted, and so is one whose
//! namespace is another. A pod that is younger than the query's window has no value either, where the numbers may be
//! those of an earlier pod of the same name.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::{Observation, Query, listed::FleetScope, payload::Sample};
use crate::decide::{time::Timestamp, verdict::NoVerdict};

/// One element of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorElement {
    /// The label with the pod's name, if present.
    pub pod: Option<String>,
    /// The label with the pod's namespace, if present.
    pub namespace: Option<String>,
    /// The label by which a discrete detector counts, if present.
    pub key: Option<String>,
    /// The other labels.
    pub labels: HashMap<String, String>,
    /// The sample's value, possibly not finite; `None` for a native histogram.
    pub value: Option<f64>,
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

/// Which series belong to which pod. It holds for as long as the pods and the series are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesJoin {
    /// For each pod the index of its name, which two pods may share.
    of_pods: Vec<usize>,
    /// For each series the index of the name that it belongs to; `None`: of no pod of this fleet.
    of_series: Vec<Option<usize>>,
    names: usize,
    /// Each name has one series at most.
    unambiguous: bool,
}

/// A vector whose series have found their pods.
#[derive(Clone, Copy, Debug)]
pub struct JoinedVector<'a> {
    /// The vector.
    pub vector: &'a Vector,
    /// Of the judged pods and the series.
    pub join: &'a SeriesJoin,
    /// The series of each element; `None`: each element is one, in the vector's order.
    pub series: Option<&'a [usize]>,
}

/// The elements of a vector by pod.
pub(super) struct ByPod<'a> {
    elements: NamedElements<'a>,
    join: &'a SeriesJoin,
    asked: Timestamp,
    limit: Duration,
    window: Duration,
}

/// The elements of each name.
enum NamedElements<'a> {
    /// One at most.
    Single(Vec<Option<&'a VectorElement>>),
    /// Any number.
    Several {
        /// In order of the names.
        all: Vec<&'a VectorElement>,
        /// For each name the end of its elements.
        ends: Vec<usize>,
    },
}

impl VectorElement {
    /// Why these elements of one pod are ambiguous: they differ in the first of these labels.
    pub(super) fn told_apart(elements: &[&Self]) -> NoVerdict {
        let names: BTreeSet<&str> =
            elements.iter().flat_map(|one| one.labels.keys().map(String::as_str)).collect();
        let differs = |name: &&str| {
            let mut values = elements.iter().map(|one| one.labels.get(*name));
            let first = values.next().flatten();
            values.any(|value| value != first)
        };
        let label = names.into_iter().find(differs).unwrap_or_default().to_owned();
        NoVerdict::SeveralSeries { label }
    }
}

impl SeriesJoin {
    /// `series` are elements with their labels; only these matter.
    pub fn new<'s>(
        series: impl Iterator<Item = &'s VectorElement>,
        pods: &[&Observation],
        scope: &FleetScope,
    ) -> Self {
        let mut names: HashMap<&str, usize> = HashMap::with_capacity(pods.len());
        let mut of_pods = Vec::with_capacity(pods.len());
        for pod in pods {
            let next = names.len();
            of_pods.push(*names.entry(pod.id.as_str()).or_insert(next));
        }
        let place = |element: &VectorElement| {
            let ours = element.namespace.as_ref().is_none_or(|namespace| *namespace == scope.namespace);
            names.get(element.pod.as_deref().filter(|_| ours)?).copied()
        };
        let of_series: Vec<Option<usize>> = series.map(place).collect();
        let mut seen = vec![false; names.len()];
        let mut first = |name: usize| seen.get_mut(name).is_some_and(|seen| !std::mem::replace(seen, true));
        let unambiguous = of_series.iter().flatten().all(|name| first(*name));
        Self { of_pods, of_series, names: names.len(), unambiguous }
    }
}

impl<'a> NamedElements<'a> {
    /// By the name that `place` gives for an element's index, and the number of those without one.
    fn single(vector: &'a Vector, names: usize, place: impl Fn(usize) -> Option<usize>) -> (Self, usize) {
        let (mut slots, mut strangers) = (vec![None; names], 0);
        for (index, element) in vector.elements.iter().enumerate() {
            match place(index).and_then(|place| slots.get_mut(place)) {
                Some(slot) => *slot = Some(element),
                None => strangers += 1,
            }
        }
        (Self::Single(slots), strangers)
    }

    /// As [`Self::single`].
    fn several(vector: &'a Vector, names: usize, place: impl Fn(usize) -> Option<usize>) -> (Self, usize) {
        let (mut starts, mut strangers) = (vec![0; names + 1], 0);
        for index in 0..vector.elements.len() {
            match place(index).and_then(|place| starts.get_mut(place + 1)) {
                Some(count) => *count += 1,
                None => strangers += 1,
            }
        }
        let mut count = 0;
        for start in &mut starts {
            count += *start;
            *start = count;
        }
        let mut all: Vec<&VectorElement> = vector.elements.iter().take(count).collect();
        for (index, element) in vector.elements.iter().enumerate() {
            let Some(next) = place(index).and_then(|place| starts.get_mut(place)) else { continue };
            all.get_mut(*next).into_iter().for_each(|slot| *slot = element);
            *next += 1;
        }
        // Each start has moved to its end.
        (Self::Several { all, ends: starts }, strangers)
    }

    fn of(&self, name: usize) -> Option<&[&'a VectorElement]> {
        match self {
            Self::Single(slots) => slots.get(name).map(Option::as_slice),
            Self::Several { all, ends } => {
                let start = name.checked_sub(1).map_or(Some(0), |before| ends.get(before).copied())?;
                all.get(start..*ends.get(name)?)
            }
        }
    }
}

impl<'a> ByPod<'a> {
    /// The elements that match the pods, and the number of those that do not.
    pub(super) fn new(joined: JoinedVector<'a>, query: &Query) -> (Self, usize) {
        let JoinedVector { vector, join, series } = joined;
        let place = |index: usize| {
            let series = series.map_or(Some(index), |series| series.get(index).copied())?;
            join.of_series.get(series).copied().flatten()
        };
        let (elements, strangers) = match join.unambiguous {
            true => NamedElements::single(vector, join.names, place),
            false => NamedElements::several(vector, join.names, place),
        };
        let (asked, limit, window) = (vector.asked, query.max_sample_age, query.min_pod_age);
        (Self { elements, join, asked, limit, window }, strangers)
    }

    /// The elements of the pod with this index, in no order.
    pub(super) fn of(&self, index: usize, pod: &Observation) -> Result<&[&'a VectorElement], NoVerdict> {
        if let Some(cause) = pod.too_young(self.window) {
            return Err(cause);
        }
        match self.own(index).unwrap_or_default() {
            [] => Err(NoVerdict::NoSeries),
            elements if elements.iter().all(|one| self.is_stale(one)) => {
                Err(NoVerdict::TooOld { seconds: self.limit.as_secs() })
            }
            elements => Ok(elements),
        }
    }

    fn own(&self, index: usize) -> Option<&[&'a VectorElement]> {
        self.elements.of(*self.join.of_pods.get(index)?)
    }

    /// Each pod's single value, in their order.
    pub(super) fn samples(&self, pods: &[&Observation]) -> Vec<Sample> {
        pods.iter().enumerate().map(|(index, pod)| self.sample(index, pod)).collect()
    }

    /// Whether the sample is older than the limit at the time of the query, so that a slow answer makes none stale.
    pub(super) fn is_stale(&self, element: &VectorElement) -> bool {
        self.asked.since(element.at) > self.limit
    }

    /// A pod's single value.
    pub(super) fn sample(&self, index: usize, pod: &Observation) -> Sample {
        match self.of(index, pod) {
            Err(cause) => Sample::None(cause),
            Ok([only]) => match only.value {
                Some(value) if value.is_finite() => Sample::Number { value, withheld: pod.withheld },
                Some(_) => Sample::None(NoVerdict::NoNumber),
                None => Sample::None(NoVerdict::Histogram),
            },
            Ok(several) => Sample::None(VectorElement::told_apart(several)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decide::detect::{LifeStatus, metric_source::MetricSource};

    pub(in crate::decide::detect) fn scope() -> FleetScope {
        FleetScope { namespace: "shop".into(), by_uid: true }
    }

    pub(in crate::decide::detect) fn pod(id: &str) -> Observation {
        Observation {
            uid: format!("uid-{id}").as_str().into(),
            id: id.into(),
            age: Duration::ZERO,
            status: LifeStatus::Live,
            heard: true,
            withheld: false,
            name_age: None,
            payload: Arc::default(),
        }
    }

    pub(in crate::decide::detect) fn query() -> Query {
        Query {
            source: Arc::new(MetricSource::at("prometheus:9090")),
            promql: "x".into(),
            pod_name_key: "pod".into(),
            namespace_key: "namespace".into(),
            min_pod_age: Duration::from_secs(30),
            max_sample_age: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
        }
    }

    /// A vector of (pod, key, value), queried at second 1000, with samples of that second.
    pub(in crate::decide::detect) fn vector(elements: &[(&str, &str, f64)]) -> Vector {
        let at = Timestamp::from_unix_millis(1_000_000);
        let element = |&(pod, key, value): &(&str, &str, f64)| VectorElement {
            pod: Some(pod.into()),
            namespace: None,
            key: Some(key.into()),
            labels: HashMap::new(),
            value: Some(value),
            at,
        };
        Vector { asked: at, elements: elements.iter().map(element).collect() }
    }

    /// What `of` makes of the elements by pod, and the number of those that match none.
    pub(in crate::decide::detect) fn by_pod<T>(
        vector: &Vector,
        pods: &[&Observation],
        of: impl FnOnce(&ByPod<'_>) -> T,
    ) -> (T, usize) {
        let join = SeriesJoin::new(vector.elements.iter(), pods, &scope());
        let (by_pod, strangers) = ByPod::new(JoinedVector { vector, join: &join, series: None }, &query());
        (of(&by_pod), strangers)
    }

    fn samples(vector: &Vector, pods: &[Observation]) -> (Vec<Sample>, usize) {
        let pods: Vec<&Observation> = pods.iter().collect();
        by_pod(vector, &pods, |by_pod| by_pod.samples(&pods))
    }

    #[test]
    fn each_pod_gets_its_own_number_and_strangers_are_counted() {
        let mut vector = vector(&[("b", "", 0.25), ("a", "", -7.0), ("stranger", "", 1.0)]);
        vector.elements.push(VectorElement { pod: None, ..vector.elements[0].clone() });
        let number = |value| Sample::Number { value, withheld: false };
        let (found, strangers) = samples(&vector, &[pod("a"), pod("b"), pod("c")]);
        assert_eq!(found, [number(-7.0), number(0.25), Sample::None(NoVerdict::NoSeries)]);
        assert_eq!(strangers, 2);
    }

    #[test]
    fn a_pod_with_two_elements_has_no_value_even_if_they_are_equal_or_one_is_nan() {
        let vector = vector(&[("a", "", 1.0), ("a", "", 1.0), ("b", "", 1.0), ("b", "", f64::NAN)]);
        let ambiguous = |label: &str| Sample::None(NoVerdict::SeveralSeries { label: label.into() });
        assert_eq!(samples(&vector, &[pod("a"), pod("b")]).0, [ambiguous(""), ambiguous("")]);
        let mut vector = vector;
        for (element, code) in vector.elements.iter_mut().zip(["200", "500"]) {
            element.labels = [("job".into(), "web".into()), ("code".into(), code.into())].into();
        }
        assert_eq!(samples(&vector, &[pod("a")]).0, [ambiguous("code")]);
    }

    #[test]
    fn what_is_no_finite_number_is_discarded() {
        let vector = vector(&[("a", "", f64::NAN), ("b", "", f64::INFINITY), ("c", "", f64::NEG_INFINITY)]);
        assert_eq!(
            samples(&vector, &[pod("a"), pod("b"), pod("c")]).0,
            [const { Sample::None(NoVerdict::NoNumber) }; 3]
        );
        let mut histogram = self::vector(&[("a", "", 1.0)]);
        histogram.elements[0].value = None;
        assert_eq!(samples(&histogram, &[pod("a")]).0, [Sample::None(NoVerdict::Histogram)]);
    }

    #[test]
    fn a_join_holds_for_every_vector_of_the_same_series_and_two_pods_may_share_a_name() {
        let all = vector(&[("b", "", 2.0), ("stranger", "", 9.0), ("a", "", 1.0)]);
        let twin = Observation { uid: "uid-twin".into(), ..pod("a") };
        let pods = [&pod("a"), &twin, &pod("b")];
        let join = SeriesJoin::new(all.elements.iter(), &pods, &scope());
        let of = |series: &[usize]| {
            let elements = series.iter().map(|series| all.elements[*series].clone()).collect();
            let vector = Vector { elements, ..all.clone() };
            let joined = JoinedVector { vector: &vector, join: &join, series: Some(series) };
            let (by_pod, strangers) = ByPod::new(joined, &query());
            let value = |sample| match sample {
                Sample::Number { value, .. } => value,
                Sample::None(_) => f64::NEG_INFINITY,
            };
            (by_pod.samples(&pods).into_iter().map(value).collect::<Vec<_>>(), strangers)
        };
        assert_eq!(of(&[2, 1, 0]), (vec![1.0, 1.0, 2.0], 1));
        assert_eq!(of(&[0]), (vec![f64::NEG_INFINITY, f64::NEG_INFINITY, 2.0], 0));
        assert_eq!(of(&[]), (vec![f64::NEG_INFINITY; 3], 0));
    }

    #[test]
    fn a_series_of_another_namespace_is_a_stranger() {
        let mut vector = vector(&[("a", "", 1.0), ("b", "", 2.0)]);
        vector.elements[0].namespace = Some("dev".into());
        vector.elements[1].namespace = Some("shop".into());
        let (found, strangers) = samples(&vector, &[pod("a"), pod("b")]);
        let number = Sample::Number { value: 2.0, withheld: false };
        assert_eq!((found, strangers), (vec![Sample::None(NoVerdict::NoSeries), number], 1));
    }

    #[test]
    fn a_pod_whose_name_another_had_has_no_value_until_it_is_as_old_as_the_window() {
        let vector = vector(&[("a", "", 1.0)]);
        let of_age = |seconds| {
            let pod = Observation { name_age: Some(Duration::from_secs(seconds)), ..pod("a") };
            samples(&vector, &[pod]).0.remove(0)
        };
        assert_eq!(of_age(29), Sample::None(NoVerdict::TooYoung { seconds: 30 }));
        assert_eq!(of_age(30), Sample::Number { value: 1.0, withheld: false });
    }

    #[test]
    fn a_sample_is_stale_beyond_the_age_limit_only() {
        let mut vector = vector(&[("a", "", 1.0), ("b", "", 1.0), ("c", "", 1.0)]);
        vector.elements[0].at = Timestamp::from_unix_millis(1_000_000 - 60_000);
        vector.elements[1].at = Timestamp::from_unix_millis(1_000_000 - 60_001);
        vector.elements[2].at = Timestamp::from_unix_millis(1_000_000 + 5_000);
        let (found, _) = samples(&vector, &[pod("a"), pod("b"), pod("c")]);
        let number = || Sample::Number { value: 1.0, withheld: false };
        let old = Sample::None(NoVerdict::TooOld { seconds: 60 });
        assert_eq!(found, [number(), old, number()], "ahead of our clock is not old");
    }
}
