//! What the page draws, sampled down while the replay goes on: a week has more steps than a screen has points.

use std::collections::BTreeMap;

use crate::decide::{
    fleet::Uid,
    measurements::{Measurement, Measurements},
    time::Timestamp,
};

use super::time_range::TimeRange;

/// Points in time of each breaker's values.
pub const BUCKETS: usize = 480;
/// Changes of the fleet's numbers that are kept; beyond, changes close to each other are merged.
const LEVELS: usize = 4000;
/// Pods whose values are kept, for the lines of single pods.
const LINES: usize = 400;

/// The fleet's numbers from then on, in pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetLevel {
    /// Since when.
    pub at: Timestamp,
    /// Pods that serve.
    pub serving: u32,
    /// Pods that must serve.
    pub floor: u32,
    /// Pods that there should be.
    pub desired: u32,
    /// Nothing is withheld because most of the fleet looks bad.
    pub panic: bool,
}

/// What a pod was from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// It existed and was Ready.
    Ready,
    /// It existed and was not Ready.
    Unready,
    /// A breaker objected to it, and it went on serving.
    Objected,
    /// It did not exist.
    Gone,
}

/// One pod's past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodPast {
    /// Its name.
    pub name: String,
    /// Its phases, in order of time.
    pub phases: Vec<(Timestamp, PodPhase)>,
}

/// The fleet over time.
#[derive(Clone, Debug, Default)]
pub struct FleetPicture {
    /// Its numbers, in order of time.
    pub levels: Vec<FleetLevel>,
    /// Its pods.
    pub pods: BTreeMap<Uid, PodPast>,
}

impl FleetPicture {
    /// Adds the numbers of a moment.
    pub(super) fn level(&mut self, level: FleetLevel) {
        match self.levels.last_mut() {
            Some(last) if FleetLevel { at: level.at, ..*last } == level => {}
            // Two plans at one moment.
            Some(last) if last.at == level.at => *last = level,
            _ => self.levels.push(level),
        }
        if self.levels.len() > 2 * LEVELS {
            self.thin();
        }
    }

    /// Merges pairs of neighbours; the lower serving number of both is kept.
    fn thin(&mut self) {
        let pairs = self.levels.chunks(2).filter_map(|pair| {
            let (first, last) = (pair.first()?, pair.last()?);
            let worse = if last.serving < first.serving { last } else { first };
            Some(FleetLevel { at: first.at, panic: first.panic || last.panic, ..*worse })
        });
        self.levels = pairs.collect();
    }

    /// Notes what a pod is from `at` on.
    pub(super) fn phase(&mut self, uid: &Uid, name: &str, at: Timestamp, phase: PodPhase) {
        if !self.pods.contains_key(uid) {
            self.pods.insert(uid.clone(), PodPast { name: name.to_owned(), phases: Vec::new() });
        }
        let Some(past) = self.pods.get_mut(uid) else { return };
        match past.phases.last_mut() {
            Some((_, last)) if *last == phase => {}
            Some((since, last)) if *since == at => *last = phase,
            _ => past.phases.push((at, phase)),
        }
    }
}

/// A breaker's values over time.
#[derive(Clone, Debug)]
pub struct BreakerPicture {
    /// The breaker.
    pub breaker: String,
    range: TimeRange,
    /// Of the whole fleet.
    pub spread: Vec<ValueSpread>,
    /// Of single pods, in order of the UID: in each bucket the value nearest to the bad side.
    lines: Vec<(Uid, Vec<f32>)>,
    /// Pods beyond those whose values are kept.
    pub more_pods: bool,
}

/// The values of a bucket; NaN where there are none.
#[derive(Clone, Copy, Debug)]
pub struct ValueSpread {
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
    /// The last median.
    pub median: f64,
    /// Values below are bad.
    pub low: f64,
    /// Values above are bad.
    pub high: f64,
}

impl ValueSpread {
    const NONE: Self =
        Self { least: f64::NAN, most: f64::NAN, median: f64::NAN, low: f64::NAN, high: f64::NAN };
}

impl BreakerPicture {
    pub(super) fn new(breaker: &str, range: TimeRange) -> Self {
        Self {
            breaker: breaker.to_owned(),
            range,
            spread: vec![ValueSpread::NONE; BUCKETS],
            lines: Vec::new(),
            more_pods: false,
        }
    }

    /// When a bucket begins.
    pub(super) fn time(&self, bucket: usize) -> Timestamp {
        let (bucket, all) =
            (u32::try_from(bucket).unwrap_or(u32::MAX), u32::try_from(BUCKETS).unwrap_or(u32::MAX));
        self.range.from + self.range.length() / all * bucket
    }

    /// The bucket of a moment.
    pub(super) fn bucket(&self, at: Timestamp) -> usize {
        let share = at.since(self.range.from).as_secs_f64() / self.range.length().as_secs_f64();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of 480"
        )]
        let bucket = (share * BUCKETS as f64) as usize;
        bucket.min(BUCKETS - 1)
    }

    /// The values of a pod, if they are kept.
    pub(super) fn line(&self, uid: &Uid) -> Option<&[f32]> {
        let at = self.lines.binary_search_by(|(kept, _)| kept.cmp(uid)).ok()?;
        self.lines.get(at).map(|(_, line)| &**line)
    }

    /// Adds the values of an evaluation.
    pub(super) fn add(&mut self, at: Timestamp, measured: &Measurements) {
        let bucket = self.bucket(at);
        let Some(spread) = self.spread.get_mut(bucket) else { return };
        let keep = |slot: &mut f64, value: Option<f64>| *slot = value.unwrap_or(*slot);
        keep(&mut spread.low, measured.low);
        keep(&mut spread.high, measured.high);
        keep(&mut spread.median, measured.median);
        // The side that is watched; with both, the one that is farther from the median.
        let far = |value: f64| match (measured.low, measured.high) {
            (Some(_), None) => -value,
            (Some(low), Some(high)) => (value - f64::midpoint(low, high)).abs(),
            _ => value,
        };
        let mut strange: Vec<&Measurement> = Vec::new();
        // Lines and values are both in order of the UID.
        let mut at = 0;
        for one in &*measured.values {
            (spread.least, spread.most) = (spread.least.min(one.value), spread.most.max(one.value));
            while self.lines.get(at).is_some_and(|(uid, _)| *uid != one.uid && *uid < one.uid) {
                at += 1;
            }
            match self.lines.get_mut(at) {
                Some((uid, line)) if *uid == one.uid => keep_worst(line, bucket, one.value, far),
                _ => strange.push(one),
            }
        }
        for one in strange {
            let at = match self.lines.binary_search_by(|(uid, _)| uid.cmp(&one.uid)) {
                Ok(at) => at,
                Err(at) if self.lines.len() < LINES => {
                    self.lines.insert(at, (one.uid.clone(), vec![f32::NAN; BUCKETS]));
                    at
                }
                Err(_) => {
                    self.more_pods = true;
                    continue;
                }
            };
            let line = self.lines.get_mut(at);
            line.into_iter().for_each(|(_, line)| keep_worst(line, bucket, one.value, far));
        }
    }
}

/// Keeps the value if it is nearer to the bad side than the bucket's one.
fn keep_worst(line: &mut [f32], bucket: usize, value: f64, far: impl Fn(f64) -> f64) {
    let slot = line.get_mut(bucket);
    #[allow(clippy::cast_possible_truncation, reason = "a picture needs no more digits")]
    if let Some(slot) = slot.filter(|slot| slot.is_nan() || far(value) > far(f64::from(**slot))) {
        *slot = value as f32;
    }
}
