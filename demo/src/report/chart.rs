//! The timeline in drawing coordinates: a row for each app, the fleet against its floor, failures per second.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    stage::{APPS, name},
    story::{AppState, Kind, Record, Sample},
};

const WIDTH: f64 = 1000.0;
/// Width of the names on the left.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const ACTS: f64 = 34.0;
const ROW: f64 = 13.0;
const GAP: f64 = 34.0;
const FLEET: f64 = 120.0;
const FAILURES: f64 = 110.0;
const EVENTS: f64 = 16.0;

/// The template's values.
#[derive(Debug, Serialize)]
pub(super) struct Chart {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    bands: Vec<Band>,
    ticks: Vec<Tick>,
    apps: Vec<Tick>,
    runs: Vec<Run>,
    away: Vec<Run>,
    panics: Vec<Run>,
    fleet: Panel,
    serving: String,
    withheld: String,
    floor: String,
    failures: Panel,
    failed: String,
    marks: Vec<Mark>,
    marks_y: f64,
}

/// An act.
#[derive(Debug, Serialize)]
struct Band {
    number: usize,
    title: &'static str,
    x: f64,
    width: f64,
    held: bool,
}

#[derive(Debug, Serialize)]
struct Tick {
    at: f64,
    label: String,
}

/// One app (or the master) in one state for a while.
#[derive(Debug, Serialize)]
struct Run {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    class: &'static str,
    title: String,
}

/// A frame with a scale.
#[derive(Debug, Serialize)]
struct Panel {
    top: f64,
    bottom: f64,
    lines: Vec<Tick>,
}

/// An event.
#[derive(Debug, Serialize)]
struct Mark {
    x: f64,
    kind: Kind,
    title: String,
}

/// Seconds to x.
#[derive(Clone, Copy)]
struct Time {
    last: f64,
}

impl Time {
    fn x(self, at: f64) -> f64 {
        let share = (at / self.last).clamp(0.0, 1.0);
        rounded(LEFT + share * (WIDTH - LEFT - RIGHT))
    }
}

impl Panel {
    fn new(top: f64, height: f64, steps: &[f64]) -> Self {
        let most = steps.last().copied().unwrap_or(1.0);
        let mut panel = Self { top, bottom: top + height, lines: Vec::new() };
        panel.lines =
            steps.iter().map(|&step| Tick { at: panel.y(step, most), label: format!("{step}") }).collect();
        panel
    }

    fn y(&self, value: f64, most: f64) -> f64 {
        rounded(self.bottom - (value / most).clamp(0.0, 1.0) * (self.bottom - self.top))
    }
}

impl Chart {
    pub(super) fn of(record: &Record) -> Self {
        let samples = &record.samples;
        let last = samples.last().map_or(1.0, |sample| sample.at).max(1.0);
        let time = Time { last };
        let rows = ACTS + EVENTS;
        let fleet_top = rows + APPS as f64 * ROW + GAP;
        let fleet = Panel::new(fleet_top, FLEET, &[0.0, 3.0, 6.0, 9.0, 12.0]);
        let steps = steps(samples.iter().map(|sample| sample.failures).fold(1.0, f64::max));
        let failures = Panel::new(fleet.bottom + GAP, FAILURES, &steps);
        let (most, all) = (steps.last().copied().unwrap_or(1.0), APPS as f64);
        let listed = |sample: &Sample| fleet.y(sample.listed as f64, all);
        // An app that has not joined yet is not withheld.
        let complete = samples.iter().find(|sample| sample.listed == APPS).map_or(last, |sample| sample.at);
        let out = |sample: &Sample| {
            let out = if sample.at < complete { 0 } else { APPS.saturating_sub(sample.listed) };
            fleet.y(out as f64, all)
        };
        let marks = record.events().into_iter().map(|event| Mark {
            x: time.x(event.at),
            kind: event.kind,
            title: format!("{:.1} s: {}", event.at, event.text),
        });
        Self {
            width: WIDTH,
            height: failures.bottom + 28.0,
            left: LEFT,
            right: WIDTH - RIGHT,
            top: rows,
            bottom: failures.bottom,
            bands: bands(record, time),
            ticks: (0..)
                .map(|n| f64::from(n) * 5.0)
                .take_while(|&at| at <= last)
                .map(|at| tick(time, at))
                .collect(),
            apps: (0..APPS).map(|app| Tick { at: row(app) + ROW * 0.72, label: name(app) }).collect(),
            runs: (0..APPS).flat_map(|app| runs_of(samples, app, time)).collect(),
            away: spans(samples, time, &fleet, "away", "the master is away", |sample| !sample.master),
            panics: spans(samples, time, &fleet, "panic", "panic", |sample| sample.panic),
            serving: steps_path(samples, time, listed),
            withheld: area(steps_path(samples, time, out), samples, time, fleet.bottom),
            floor: steps_path(samples, time, |sample| fleet.y(sample.floor as f64, all)),
            failed: area(
                line_path(samples, time, |sample| failures.y(sample.failures, most)),
                samples,
                time,
                failures.bottom,
            ),
            marks: marks.collect(),
            marks_y: ACTS + EVENTS / 2.0,
            fleet,
            failures,
        }
    }
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn row(app: usize) -> f64 {
    ACTS + EVENTS + app as f64 * ROW
}

fn tick(time: Time, at: f64) -> Tick {
    Tick { at: time.x(at), label: format!("{at} s") }
}

/// Four round steps up to at least `most`.
fn steps(most: f64) -> [f64; 4] {
    let third = most / 3.0;
    let power = 10f64.powf(third.log10().floor());
    let step = [1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 10.0]
        .into_iter()
        .map(|n| n * power)
        .find(|step| *step >= third)
        .unwrap_or(third);
    let step = step.max(1.0);
    [0.0, step, 2.0 * step, 3.0 * step]
}

fn bands(record: &Record, time: Time) -> Vec<Band> {
    let band = |act: &crate::story::Act| {
        let (from, to) = (time.x(act.from), time.x(act.to.unwrap_or(time.last)));
        Band {
            number: act.number,
            title: act.title,
            x: from,
            width: rounded(to - from),
            held: act.verdict.as_ref().is_some_and(|verdict| verdict.held),
        }
    };
    record.acts.iter().map(band).collect()
}

/// The spans over which `of` stays the same: (value, from, to).
fn stretches<T: PartialEq>(samples: &[Sample], of: impl Fn(&Sample) -> Option<T>) -> Vec<(T, f64, f64)> {
    let mut stretches: Vec<(T, f64, f64)> = Vec::new();
    let mut before = 0.0;
    for sample in samples {
        if let Some(value) = of(sample) {
            match stretches.last_mut() {
                Some((last, _, to)) if *last == value && (*to - before).abs() < f64::EPSILON => {
                    *to = sample.at
                }
                _ => stretches.push((value, before, sample.at)),
            }
        }
        before = sample.at;
    }
    stretches
}

fn runs_of(samples: &[Sample], app: usize, time: Time) -> Vec<Run> {
    let run = |(state, from, to): (AppState, f64, f64)| {
        let (class, what) = match state {
            AppState::Serving => ("serving", "serves"),
            AppState::Bad => ("bad", "bad, still listed"),
            AppState::Withheld => ("withheld", "withheld"),
            AppState::Waiting => ("waiting", "fine, not listed yet"),
            AppState::Dead => ("dead", "dead"),
        };
        Run {
            x: time.x(from),
            y: row(app) + 1.0,
            width: rounded(time.x(to) - time.x(from)),
            height: ROW - 2.0,
            class,
            title: format!("{}: {what}, {from:.1} s to {to:.1} s", name(app)),
        }
    };
    stretches(samples, |sample| sample.apps.get(app).copied()).into_iter().map(run).collect()
}

fn spans(
    samples: &[Sample],
    time: Time,
    panel: &Panel,
    class: &'static str,
    what: &str,
    is: impl Fn(&Sample) -> bool,
) -> Vec<Run> {
    let span = |((), from, to): ((), f64, f64)| Run {
        x: time.x(from),
        y: panel.top,
        width: rounded(time.x(to) - time.x(from)),
        height: panel.bottom - panel.top,
        class,
        title: format!("{what}, {from:.1} s to {to:.1} s"),
    };
    stretches(samples, |sample| is(sample).then_some(())).into_iter().map(span).collect()
}

/// A path of steps.
fn steps_path(samples: &[Sample], time: Time, y: impl Fn(&Sample) -> f64) -> String {
    let mut path = String::new();
    for (index, sample) in samples.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = match index {
            0 => write!(path, "M{},{}", time.x(0.0), y(sample)),
            _ => write!(path, "V{}", y(sample)),
        };
        let _ = write!(path, "H{}", time.x(sample.at));
    }
    path
}

/// A path from point to point.
fn line_path(samples: &[Sample], time: Time, y: impl Fn(&Sample) -> f64) -> String {
    let mut path = String::new();
    for (index, sample) in samples.iter().enumerate() {
        let _ = write!(path, "{}{},{}", if index == 0 { 'M' } else { 'L' }, time.x(sample.at), y(sample));
    }
    path
}

/// The surface under a path.
fn area(mut path: String, samples: &[Sample], time: Time, bottom: f64) -> String {
    if let (Some(first), Some(last)) = (samples.first(), samples.last()) {
        let _ = write!(path, "L{},{bottom}L{},{bottom}Z", time.x(last.at), time.x(first.at));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_above_the_highest_value_in_round_steps() {
        assert_eq!(steps(1.0), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(steps(41.0), [0.0, 20.0, 40.0, 60.0]);
        assert_eq!(steps(130.0), [0.0, 50.0, 100.0, 150.0]);
    }

    #[test]
    fn equal_neighbours_are_one_stretch() {
        let sample = |at, listed| Sample {
            at,
            requests: 0,
            failures: 0.0,
            listed,
            floor: 0,
            panic: false,
            master: true,
            apps: Vec::new(),
        };
        let samples = [sample(1.0, 12), sample(2.0, 12), sample(3.0, 9), sample(4.0, 12)];
        assert_eq!(
            stretches(&samples, |sample| Some(sample.listed)),
            [(12, 0.0, 2.0), (9, 2.0, 3.0), (12, 3.0, 4.0)]
        );
        assert_eq!(stretches(&samples, |sample| (sample.listed == 9).then_some(())), [((), 2.0, 3.0)]);
    }
}
