//! The fleet as the queries' own series show it, where nothing else tells about it.
//!
//! A pod is there from its first sample to its last one, gaps included. Between two parts of the history the next one is
//! looked at too, so that a gap at the edge is no end. When no pod has samples, the server has a hole, and the fleet stays
//! as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::time_range::TimeRange;
use crate::decide::{
    fleet::Uid,
    replay::{
        answers::RangeAnswer,
        history::{FleetChange, FleetEvent, HistoricPod},
    },
    time::Timestamp,
};

/// Samples that are missing for less at the end of the history are no end of a pod: as long as Prometheus itself repeats
/// an old sample.
const GONE_AFTER: Duration = Duration::from_secs(300);

/// Which pods there are, part after part.
#[derive(Debug, Default)]
pub(super) struct SeriesFleet {
    namespace: String,
    /// With the end of each one's last sample.
    present: BTreeMap<String, Timestamp>,
    /// Events behind the part that they were found in.
    pending: Vec<FleetEvent>,
    seen: BTreeSet<String>,
}

/// First and last sample of each pod in a part.
type Sightings<'a> = BTreeMap<&'a str, (Timestamp, Timestamp)>;

impl SeriesFleet {
    pub(super) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..Self::default() }
    }

    /// All pods so far.
    pub(super) fn count(&self) -> usize {
        self.seen.len()
    }

    /// The changes within `part`, whose answers are `current`; `next` are those of the part behind it, if there is one.
    pub(super) fn events(
        &mut self,
        part: TimeRange,
        current: &[&RangeAnswer],
        next: Option<&[&RangeAnswer]>,
    ) -> Vec<FleetEvent> {
        let (now, later) =
            (self.sightings(current), next.map(|next| self.sightings(next)).unwrap_or_default());
        let end = now.values().map(|(_, last)| *last).max();
        let mut events = std::mem::take(&mut self.pending);
        let mut present = std::mem::take(&mut self.present);
        for (name, (first, last)) in &now {
            if present.insert((*name).to_owned(), *last).is_none() {
                self.seen.insert((*name).to_owned());
                events.push(FleetEvent { at: *first, change: FleetChange::Appears(pod(name)) });
            }
        }
        present.retain(|name, last| {
            let ended = match (end, later.is_empty()) {
                (None, _) => false,
                (Some(_), false) => !later.contains_key(name.as_str()),
                (Some(end), true) => end.since(*last) > GONE_AFTER,
            };
            if ended {
                let at = (*last).max(part.from);
                events.push(FleetEvent { at, change: FleetChange::Leaves(Uid::from(name.as_str())) });
            }
            !ended
        });
        self.present = present;
        events.sort_by_key(|event| event.at);
        self.pending = events.split_off(events.partition_point(|event| event.at < part.to));
        events
    }

    fn sightings<'a>(&self, answers: &[&'a RangeAnswer]) -> Sightings<'a> {
        let mut all = Sightings::new();
        for answer in answers {
            for series in &answer.series {
                let ours =
                    series.element.namespace.as_ref().is_none_or(|namespace| *namespace == self.namespace);
                let Some(name) = series.element.pod.as_deref().filter(|name| ours && !name.is_empty()) else {
                    continue;
                };
                let has_sample = |index: &usize| series.at(*index).is_some();
                let Some(first) = (0..answer.steps).find(has_sample) else { continue };
                let last = (first..answer.steps).rev().find(has_sample).unwrap_or(first);
                // It lasts until the step after its last sample.
                let (first, last) = (answer.time(first), answer.time(last + 1));
                let known = all.entry(name).or_insert((first, last));
                *known = (known.0.min(first), known.1.max(last));
            }
        }
        all
    }
}

fn pod(name: &str) -> HistoricPod {
    HistoricPod {
        uid: name.into(),
        name: name.to_owned(),
        created: None,
        reusable_name: false,
        has_controller: true,
        node: None,
        ready: true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::decide::{
        detect::series::VectorElement,
        replay::answers::{ABSENT, RangeSeries},
    };

    const STEP: i64 = 60;

    fn at(step: i64) -> Timestamp {
        Timestamp::from_unix_millis(step * STEP * 1000)
    }

    /// `x` a sample, `.` none; one part for each text, all of the same length.
    fn events(pods: &[(&str, &[&str])]) -> Vec<String> {
        let length = pods[0].1[0].len();
        let part = |number: usize| {
            let series = |(name, texts): &(&str, &[&str])| RangeSeries {
                element: VectorElement {
                    pod: Some((*name).into()),
                    namespace: None,
                    key: None,
                    labels: HashMap::new(),
                    value: None,
                    at: at(0),
                },
                values: texts[number].chars().map(|c| if c == 'x' { 1.0 } else { ABSENT }).collect(),
            };
            let start = at(i64::try_from(number * length).unwrap());
            vec![RangeAnswer {
                start,
                step: STEP * 1000,
                steps: length,
                series: pods.iter().map(series).collect(),
            }]
        };
        let (mut fleet, parts) = (SeriesFleet::new("shop"), pods[0].1.len());
        let mut all = Vec::new();
        for number in 0..parts {
            let next = (number + 1 < parts).then(|| part(number + 1));
            let step = |step: usize| at(i64::try_from(step).unwrap());
            let range = TimeRange { from: step(number * length), to: step((number + 1) * length) };
            let current = part(number);
            let next: Option<Vec<&RangeAnswer>> = next.as_ref().map(|next| next.iter().collect());
            for event in fleet.events(range, &current.iter().collect::<Vec<_>>(), next.as_deref()) {
                assert!(event.at < range.to);
                let step = event.at.unix_millis() / 1000 / STEP;
                all.push(match event.change {
                    FleetChange::Appears(pod) => format!("{step}+{}", pod.name),
                    FleetChange::Leaves(uid) => format!("{step}-{uid}"),
                    other => format!("{other:?}"),
                });
            }
        }
        all
    }

    #[test]
    fn a_pod_is_there_from_its_first_sample_to_its_last_and_gaps_are_no_end() {
        let found = events(&[
            ("a", &["xxxxxxxxxx", "xxxxxxxxxx"]),
            ("b", &["..xx......", ".xx......."]),
            ("c", &["xx........", ".........."]),
        ]);
        assert_eq!(found, ["0+a", "0+c", "2+b", "2-c", "13-b"]);
    }

    #[test]
    fn a_hole_of_the_whole_server_ends_no_pod() {
        let found = events(&[("a", &["xxxx", "....", "xxxx"]), ("b", &["xxxx", "....", "xxxx"])]);
        assert_eq!(found, ["0+a", "0+b"]);
        assert_eq!(
            events(&[("a", &["xxxxxxxx", "xx......"]), ("b", &["xxxxxxxx", "xx......"])]),
            ["0+a", "0+b"]
        );
    }

    #[test]
    fn a_pod_that_ends_with_its_part_ends_at_its_last_sample_and_may_come_again() {
        let found = events(&[("a", &["xxxx", "xxxx", "xxxx"]), ("b", &["xxxx", "....", "..xx"])]);
        assert_eq!(found, ["0+a", "0+b", "4-b", "10+b"]);
    }
}
