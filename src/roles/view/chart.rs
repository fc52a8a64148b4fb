//! Pictures as numbers; the templates write them as SVG.
//!
//! No chart crate: `plotters` and `charming` write inline styles or scripts, which the pages' content security policy
//! forbids, and neither marks areas with text for screen readers.

use serde::Serialize;

use super::timeline::{FleetTimeline, LanePhase, Level, REACH};
use crate::decide::measurements::Measurements;

/// Size of the drawing area in units of the SVG; names stand left of it.
pub(in crate::roles) const WIDTH: f64 = 760.0;
pub(in crate::roles) const LEFT: f64 = 190.0;
const LANE: f64 = 13.0;
const FLEET_HEIGHT: f64 = 110.0;
/// Lanes that are drawn: beyond, only pods with a change are.
const LANES: usize = 150;

/// The time line of a fleet.
#[derive(Clone, Debug, Serialize)]
pub(in crate::roles) struct FleetChart {
    width: f64,
    height: f64,
    left: f64,
    /// Where the lanes begin.
    lanes_top: f64,
    ticks: Vec<Tick>,
    serving: String,
    floor: String,
    desired: String,
    panics: Vec<Bar>,
    top: u32,
    lanes: Vec<Lane>,
    /// Pods that are not drawn, because nothing happened to them.
    left_out: usize,
}

/// A mark on the time axis.
#[derive(Clone, Debug, Serialize)]
pub(in crate::roles) struct Tick {
    x: f64,
    label: String,
}

/// One pod.
#[derive(Clone, Debug, Serialize)]
struct Lane {
    /// The pod.
    name: String,
    /// Its name, cut to what fits.
    label: String,
    y: f64,
    bars: Vec<Bar>,
}

/// A span of time in one phase.
#[derive(Clone, Debug, Serialize)]
struct Bar {
    x: f64,
    width: f64,
    style: &'static str,
    sign: &'static str,
    title: String,
}

/// The newest values of one breaker on a line.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Strip {
    width: f64,
    dots: Vec<Dot>,
    low: Option<f64>,
    high: Option<f64>,
    median: Option<f64>,
}

/// One pod's value.
#[derive(Clone, Debug, Serialize)]
struct Dot {
    x: f64,
    bad: bool,
}

/// The drawn time, in Unix seconds.
#[derive(Clone, Copy, Debug)]
pub(in crate::roles) struct TimeAxis {
    from: u32,
    to: u32,
}

impl TimeAxis {
    /// At least a second.
    pub(in crate::roles) fn new(from: u32, to: u32) -> Self {
        Self { from, to: to.max(from.saturating_add(1)) }
    }

    /// It begins with what is known, and at most [`REACH`] ago.
    fn of(timeline: &FleetTimeline, now: u32) -> Self {
        let lanes = timeline.lanes.values().filter_map(|lane| lane.front()).map(|change| change.at);
        let first = lanes.chain(timeline.levels.front().map(|level| level.at)).min().unwrap_or(now);
        let reach = u32::try_from(REACH.as_secs()).unwrap_or(u32::MAX);
        Self::new(first.max(now.saturating_sub(reach)).min(now.saturating_sub(60)), now)
    }

    /// A moment as its labels write it: hours and minutes, with the day where there are several.
    pub(in crate::roles) fn label(&self, at: u32) -> String {
        const DAY: u32 = 86_400;
        if self.to - self.from <= DAY {
            return clock(at);
        }
        let day = jiff::Timestamp::from_second(i64::from(at)).map(|at| at.strftime("%b %d").to_string());
        format!("{} {}", day.unwrap_or_default(), clock(at))
    }

    pub(in crate::roles) fn x(&self, at: u32) -> f64 {
        let (at, span) = (at.clamp(self.from, self.to) - self.from, (self.to - self.from).max(1));
        rounded(LEFT + f64::from(at) / f64::from(span) * WIDTH)
    }

    pub(in crate::roles) fn ticks(&self) -> Vec<Tick> {
        let span = self.to - self.from;
        let steps = [60, 300, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400, 2 * 86_400, 7 * 86_400];
        let step = steps.into_iter().find(|step| span / step <= 8).unwrap_or(60 * 86_400);
        let first = self.from.div_ceil(step) * step;
        let all = (first..=self.to).step_by(usize::try_from(step).unwrap_or(1));
        all.map(|at| Tick { x: self.x(at), label: self.label(at) }).collect()
    }

    fn bar(&self, from: u32, to: u32, phase: LanePhase) -> Bar {
        let (x, end) = (self.x(from), self.x(to));
        Bar {
            x,
            width: rounded((end - x).max(1.0)),
            style: phase.word(),
            sign: if end - x >= 12.0 && phase != LanePhase::Serving { phase.sign() } else { "" },
            title: format!("{} {} to {}", phase.word(), self.label(from), self.label(to)),
        }
    }
}

impl FleetChart {
    /// The last hours.
    pub(super) fn of(timeline: &FleetTimeline, now: u32) -> Self {
        Self::over(timeline, TimeAxis::of(timeline, now))
    }

    /// The row of a pod, if it is drawn.
    pub(in crate::roles) fn row(&self, pod: &str) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.name == pod)
    }

    /// What is known of the time of an axis.
    pub(in crate::roles) fn over(timeline: &FleetTimeline, axis: TimeAxis) -> Self {
        let many = timeline.lanes.len() > LANES;
        let drawn = timeline.lanes.iter().filter(|(_, lane)| {
            !many || lane.len() > 1 || lane.back().is_some_and(|last| last.phase != LanePhase::Serving)
        });
        let lanes_top = FLEET_HEIGHT + 30.0;
        let lanes: Vec<Lane> = drawn
            .take(LANES)
            .zip(0u16..)
            .map(|((name, changes), row)| {
                let ends = changes.iter().skip(1).map(|next| next.at).chain([axis.to]);
                let spans = changes.iter().zip(ends).filter(|(_, end)| *end >= axis.from);
                let bars = spans.map(|(change, end)| axis.bar(change.at, end, change.phase)).collect();
                Lane {
                    name: name.to_string(),
                    label: label(name),
                    y: lanes_top + f64::from(row) * LANE,
                    bars,
                }
            })
            .collect();
        let levels: Vec<Level> = timeline.levels.iter().copied().collect();
        let top = levels.iter().map(|level| level.desired.max(level.serving)).max().unwrap_or(1).max(1);
        let line = |number: fn(&Level) -> u32| path(&axis, &levels, top, number);
        let height = lanes_top + LANE * f64::from(u16::try_from(lanes.len()).unwrap_or(u16::MAX)) + 6.0;
        Self {
            width: LEFT + WIDTH + 10.0,
            height,
            left: LEFT,
            lanes_top,
            ticks: axis.ticks(),
            serving: line(|level| level.serving),
            floor: line(|level| level.floor),
            desired: line(|level| level.desired),
            panics: panics(&axis, &levels),
            top,
            left_out: timeline.lanes.len() - lanes.len(),
            lanes,
        }
    }
}

impl Strip {
    /// `None` without a value.
    pub(super) fn of(measured: &Measurements) -> Option<Self> {
        const WIDTH: f64 = 420.0;
        const MARGIN: f64 = 8.0;
        let values = measured.values.iter().map(|one| one.value);
        let bounds = [measured.low, measured.high, measured.median].into_iter().flatten();
        let all: Vec<f64> = values.clone().chain(bounds).collect();
        let (least, most) = (all.iter().copied().reduce(f64::min)?, all.iter().copied().reduce(f64::max)?);
        let span = if most > least { most - least } else { 1.0 };
        let x = |value: f64| rounded(MARGIN + (value - least) / span * (WIDTH - 2.0 * MARGIN));
        let bad = |value: f64| {
            measured.low.is_some_and(|low| value < low) || measured.high.is_some_and(|high| value > high)
        };
        Some(Self {
            width: WIDTH,
            dots: values.take(1000).map(|value| Dot { x: x(value), bad: bad(value) }).collect(),
            low: measured.low.map(x),
            high: measured.high.map(x),
            median: measured.median.map(x),
        })
    }
}

/// A step line of one of the numbers.
fn path(axis: &TimeAxis, levels: &[Level], top: u32, number: fn(&Level) -> u32) -> String {
    let y = |level: &Level| {
        let share = f64::from(number(level)) / f64::from(top);
        rounded(FLEET_HEIGHT - share * (FLEET_HEIGHT - 14.0))
    };
    let mut path = String::new();
    for level in levels {
        let (x, y) = (axis.x(level.at), y(level));
        path.push_str(&if path.is_empty() { format!("M{x} {y}") } else { format!("H{x}V{y}") });
    }
    if !path.is_empty() {
        path.push_str(&format!("H{}", axis.x(axis.to)));
    }
    path
}

fn panics(axis: &TimeAxis, levels: &[Level]) -> Vec<Bar> {
    let ends = levels.iter().skip(1).map(|next| next.at).chain([axis.to]);
    let spans = levels.iter().zip(ends).filter(|(level, _)| level.panic);
    let bar = |(level, end): (&Level, u32)| Bar {
        style: "panic",
        title: format!("panic {} to {}", axis.label(level.at), axis.label(end)),
        ..axis.bar(level.at, end, LanePhase::Serving)
    };
    spans.map(bar).collect()
}

/// Hours and minutes, UTC.
pub(super) fn clock(at: u32) -> String {
    format!("{:02}:{:02}", at / 3600 % 24, at / 60 % 60)
}

fn label(name: &str) -> String {
    const FITTING: usize = 28;
    match name.char_indices().nth(FITTING) {
        // The end tells pods of one owner apart.
        Some(_) => {
            let skipped = name.chars().count() - FITTING + 1;
            format!("\u{2026}{}", name.chars().skip(skipped).collect::<String>())
        }
        None => name.to_owned(),
    }
}

/// A tenth of a unit is finer than a screen.
pub(in crate::roles) fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
