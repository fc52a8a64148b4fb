//! A line on a terminal that says how far the replay is, and how long it will take.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::time_range::TimeRange;
use crate::decide::time::Timestamp;

/// How often the line is drawn while nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// The line; nothing is drawn where stderr is no terminal.
pub struct ReportProgress {
    bar: ProgressBar,
    range: TimeRange,
}

impl ReportProgress {
    /// For this range.
    pub fn new(range: TimeRange) -> Self {
        let bar = ProgressBar::new(range.length().as_secs());
        let style = ProgressStyle::with_template("{msg} {bar:30} {percent}% {eta} left");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self { bar, range }
    }

    /// One that is never drawn.
    pub fn hidden(range: TimeRange) -> Self {
        Self { bar: ProgressBar::hidden(), range }
    }

    /// What is being done.
    pub(super) fn says(&self, what: &'static str) {
        self.bar.set_message(what);
    }

    /// Replayed up to there.
    pub(super) fn reached(&self, at: Timestamp) {
        self.says("replaying");
        self.bar.set_position(at.since(self.range.from).as_secs());
    }

    /// Takes the line away.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}
