//! The table: a figure, its goal, and the yardstick of the same run that says what this machine could do.

use std::{fs, path::PathBuf};

use anyhow::Context;
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

/// What is promised.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// One row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    value: f64,
    goal: Option<Goal>,
    met: Option<bool>,
    yardstick: Option<Yardstick>,
    note: String,
}

/// What the figure is divided by.
#[derive(Clone, Debug, Serialize)]
struct Yardstick {
    name: String,
    value: f64,
    ratio: f64,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        let name = name.into();
        Self { name, unit, value, goal: None, met: None, yardstick: None, note: String::new() }
    }

    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        (self.goal, self.met) = (Some(goal), Some(goal.is_met_by(self.value)));
        self
    }

    pub(crate) fn beside(mut self, name: &str, value: f64) -> Self {
        self.yardstick = Some(Yardstick { name: name.to_owned(), value, ratio: self.value / value });
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// All rows so far.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    figures: Vec<Figure>,
}

/// Where it was measured, and how busy that was.
#[derive(Debug, Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    load_before: String,
}

impl Default for Machine {
    fn default() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            processor: model.map(|(_, name)| name.to_owned()).unwrap_or_default(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: read("/proc/sys/kernel/osrelease"),
            load_before: read("/proc/loadavg"),
        }
    }
}

impl Report {
    pub(crate) fn add(&mut self, figure: Figure) {
        let (value, unit) = (short(figure.value), figure.unit);
        eprintln!("  {}: {value} {unit}  {}", figure.name, figure.note);
        self.figures.push(figure);
    }

    /// The table on stdout, and everything in `target/bench.json`.
    pub(crate) fn publish(&self) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["figure", "measured", "goal", "", "yardstick", "ratio", "note"]);
        for figure in &self.figures {
            table.add_row(row(figure));
        }
        println!("{table}");
        let Machine { processor, cores, kernel, load_before } = &self.machine;
        println!("{processor}, {cores} cores, Linux {kernel}; load before: {load_before}");
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench.json");
        let json = serde_json::to_vec_pretty(self)?;
        fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn row(figure: &Figure) -> [String; 7] {
    let goal = figure.goal.map_or_else(String::new, |goal| match goal {
        Goal::AtLeast(least) => format!(">= {}", short(least)),
        Goal::AtMost(most) => format!("<= {}", short(most)),
    });
    let met = figure.met.map_or("", |met| if met { "met" } else { "MISSED" });
    let yardstick = figure.yardstick.as_ref();
    [
        figure.name.clone(),
        format!("{} {}", short(figure.value), figure.unit),
        goal,
        met.to_owned(),
        yardstick.map_or_else(String::new, |by| format!("{}: {}", by.name, short(by.value))),
        yardstick.map_or_else(String::new, |by| format!("{:.2}", by.ratio)),
        figure.note.clone(),
    ]
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 0.1 || small == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The middle one; 0 of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    percentile(values, 0.5)
}

/// The one below which that share of them lies; sorts.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    values.get(at).copied().unwrap_or_default()
}
