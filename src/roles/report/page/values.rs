//! A breaker's values over time: the fleet's spread, the threshold, the median, and the pods that would have been withheld.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::{
    model::ReplayEpisode,
    picture::{BreakerPicture, ValueSpread},
};
use crate::{
    decide::fleet::Uid,
    roles::{
        output::number,
        view::{
            chart::{LEFT, Tick, TimeAxis, WIDTH, rounded},
            timeline::seconds,
        },
    },
};

const HEIGHT: f64 = 120.0;
const TOP: f64 = 10.0;
/// A value beyond so many times the range of thresholds and medians is drawn at the edge.
const BEYOND: f64 = 8.0;

/// The picture of one breaker.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ValueChart {
    width: f64,
    height: f64,
    bottom: f64,
    left: f64,
    ticks: Vec<Tick>,
    most: String,
    least: String,
    /// Values beyond the edges.
    cut: bool,
    /// From the least to the greatest value of all pods.
    spread: String,
    median: String,
    low: String,
    high: String,
    pods: Vec<PodLine>,
    /// Pods that were withheld and are not drawn.
    more_pods: usize,
}

/// The values of a pod that would have been withheld.
#[derive(Clone, Debug, Serialize)]
struct PodLine {
    name: String,
    line: String,
    /// The same, while it would have been withheld.
    withheld: String,
}

/// Values → heights.
struct Scale {
    least: f64,
    most: f64,
}

impl Scale {
    /// Holds every value, unless some are so far away that nothing else could be seen.
    fn of(spread: &[ValueSpread]) -> Option<(Self, bool)> {
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let finite = values.filter(|value| value.is_finite());
            finite.fold(None, |range, value| {
                let (least, most) = range.unwrap_or((value, value));
                Some((value.min(least), value.max(most)))
            })
        };
        let (least, most) = range(&mut spread.iter().flat_map(|one| [one.least, one.most, one.median]))?;
        let usual = range(&mut spread.iter().flat_map(|one| [one.low, one.high, one.median]));
        let (low, high) = usual.filter(|(low, high)| high > low).unwrap_or((least, most));
        let room = (high - low) * BEYOND;
        let (bottom, top) = (least.max(low - room).min(low), most.min(high + room).max(high));
        let cut = least < bottom || most > top;
        Some((Self { least: bottom, most: if top > bottom { top } else { bottom + 1.0 } }, cut))
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value.clamp(self.least, self.most) - self.least) / (self.most - self.least);
        rounded(TOP + (1.0 - share) * HEIGHT)
    }
}

impl ValueChart {
    /// `None` without a value. `episodes` are those of this breaker; of their pods `most_pods` have a line.
    pub(super) fn of(
        picture: &BreakerPicture,
        axis: TimeAxis,
        episodes: &[&ReplayEpisode],
        most_pods: usize,
    ) -> Option<Self> {
        let (scale, cut) = Scale::of(&picture.spread)?;
        let x = |bucket: usize| axis.x(seconds(picture.time(bucket)));
        let line = |values: &mut dyn Iterator<Item = f64>| path(values, &x, &scale);
        let of = |field: fn(&ValueSpread) -> f64| line(&mut picture.spread.iter().map(field));
        let withheld = by_pod(episodes);
        let drawn = withheld.iter().filter_map(|own| {
            let first = own.first()?;
            let values = picture.line(&Uid::from(first.uid.as_str()))?;
            let all = || values.iter().map(|value| f64::from(*value));
            let mut out = vec![false; values.len()];
            for episode in own {
                let span = picture.bucket(episode.from)..=picture.bucket(episode.to);
                out.get_mut(span).unwrap_or_default().fill(true);
            }
            let mut out = all().zip(out).map(|(value, out)| if out { value } else { f64::NAN });
            Some(PodLine { name: first.pod.clone(), line: line(&mut all()), withheld: line(&mut out) })
        });
        let pods: Vec<PodLine> = drawn.take(most_pods).collect();
        Some(Self {
            width: LEFT + WIDTH + 10.0,
            height: TOP + HEIGHT + 20.0,
            bottom: TOP + HEIGHT,
            left: LEFT,
            ticks: axis.ticks(),
            most: number(scale.most),
            least: number(scale.least),
            cut,
            spread: area(&picture.spread, &x, &scale),
            median: of(|one| one.median),
            low: of(|one| one.low),
            high: of(|one| one.high),
            more_pods: withheld.len() - pods.len(),
            pods,
        })
    }
}

/// The episodes of each pod, the pod that would have been withheld longest first.
fn by_pod<'e>(episodes: &[&'e ReplayEpisode]) -> Vec<Vec<&'e ReplayEpisode>> {
    let mut all: BTreeMap<&str, Vec<&ReplayEpisode>> = BTreeMap::new();
    for episode in episodes {
        all.entry(&episode.uid).or_default().push(episode);
    }
    let mut all: Vec<_> = all.into_values().collect();
    let length = |own: &[&ReplayEpisode]| own.iter().map(|episode| episode.minutes()).sum::<f64>();
    all.sort_by(|a, b| length(b).total_cmp(&length(a)));
    all
}

/// A line with gaps where there are no values. A value alone is a point, which a round cap makes visible.
fn path(values: &mut dyn Iterator<Item = f64>, x: &dyn Fn(usize) -> f64, scale: &Scale) -> String {
    let (mut path, mut drawing) = (String::new(), false);
    for (bucket, value) in values.enumerate() {
        if value.is_finite() {
            let verb = if drawing { 'L' } else { 'M' };
            path.push_str(&format!("{verb}{} {}", x(bucket), scale.y(value)));
            if !drawing {
                path.push_str("h.1");
            }
        }
        drawing = value.is_finite();
    }
    path
}

/// The area between the least and the greatest values, a piece for each span without a gap.
fn area(spread: &[ValueSpread], x: &dyn Fn(usize) -> f64, scale: &Scale) -> String {
    let buckets: Vec<(usize, &ValueSpread)> = spread.iter().enumerate().collect();
    let mut path = String::new();
    for piece in buckets.split(|(_, one)| !one.least.is_finite()).filter(|piece| !piece.is_empty()) {
        let there = piece.iter().map(|(bucket, one)| (x(*bucket), scale.y(one.most)));
        let back = piece.iter().rev().map(|(bucket, one)| (x(*bucket), scale.y(one.least)));
        for (index, (x, y)) in there.chain(back).enumerate() {
            path.push_str(&format!("{}{x} {y}", if index == 0 { 'M' } else { 'L' }));
        }
        path.push('Z');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(least: f64, most: f64, high: f64) -> ValueSpread {
        ValueSpread { least, most, median: least, low: f64::NAN, high }
    }

    #[test]
    fn one_value_far_away_leaves_the_threshold_to_be_seen() {
        let usual = [spread(1.0, 2.0, 4.0), spread(1.0, 3.0, 5.0)];
        let (scale, cut) = Scale::of(&usual).unwrap();
        assert_eq!((scale.least, scale.most, cut), (1.0, 5.0, false));
        let (scale, cut) = Scale::of(&[usual[0], spread(1.0, 1e9, 5.0)]).unwrap();
        assert_eq!((scale.most, cut), (37.0, true));
        assert_eq!(scale.y(1e9), TOP);
        assert!(Scale::of(&[spread(f64::NAN, f64::NAN, f64::NAN)]).is_none());
        let (flat, _) = Scale::of(&[spread(2.0, 2.0, f64::NAN)]).unwrap();
        assert_eq!(flat.y(2.0), TOP + HEIGHT);
    }

    #[test]
    fn a_gap_in_the_values_is_a_gap_in_the_line() {
        let scale = Scale { least: 0.0, most: 1.0 };
        let x = |bucket: usize| f64::from(u8::try_from(bucket).unwrap());
        let line = path(&mut [0.0, 1.0, f64::NAN, 0.0].into_iter(), &x, &scale);
        assert_eq!(line, "M0 130h.1L1 10M3 130h.1");
        let spread = [spread(0.0, 1.0, 2.0), spread(f64::NAN, f64::NAN, 2.0), spread(0.0, 0.0, 2.0)];
        assert_eq!(area(&spread, &x, &scale), "M0 10L0 130ZM2 130L2 130Z");
    }
}
