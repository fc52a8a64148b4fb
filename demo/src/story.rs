//! Everything that was observed and promised, in the order of time. Terminal, report and exit code are made from it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use kubervisor::{clock::Clock, decide::time::Timestamp};

/// An app's state as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AppState {
    /// Listed, and reports no errors.
    Serving,
    /// Listed, although it reports errors.
    Bad,
    /// Not listed, and reports errors.
    Withheld,
    /// Not listed, although it reports no errors (any more).
    Waiting,
    /// Its process is dead.
    Dead,
}

/// The state of the fleet at one time.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    /// Seconds since the start.
    pub(super) at: f64,
    /// Requests within the sample's span.
    pub(super) requests: usize,
    /// Failures among them, scaled to one second.
    pub(super) failures: f64,
    /// Addresses in the endpoints file.
    pub(super) listed: usize,
    /// From the master's page; the last one while the master is away.
    pub(super) floor: usize,
    /// Panic, from the master's page.
    pub(super) panic: bool,
    /// The admin page answers.
    pub(super) master: bool,
    /// One for each app.
    pub(super) apps: Vec<AppState>,
}

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// A fault that the demo made.
    Fault,
    /// The gate took traffic away.
    Out,
    /// The gate gave traffic back.
    Back,
    /// An alarm.
    Alarm,
    /// Anything else.
    Note,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Event {
    pub(super) at: f64,
    pub(super) kind: Kind,
    pub(super) text: String,
}

/// One act, from its beginning to its verdict.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Act {
    pub(super) number: usize,
    pub(super) title: &'static str,
    pub(super) promise: &'static str,
    pub(super) from: f64,
    pub(super) to: Option<f64>,
    pub(super) verdict: Option<Verdict>,
}

/// Whether a promise held, in figures.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) held: bool,
    pub(super) figures: String,
}

/// What is printed, in this order.
#[derive(Clone, Debug)]
pub(super) enum Line {
    Act { number: usize, title: &'static str },
    Event(Event),
    Verdict(Verdict),
}

/// All samples, acts and lines so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) samples: Vec<Sample>,
    pub(super) acts: Vec<Act>,
    pub(super) lines: Vec<Line>,
}

/// The record that is being written; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Story {
    clock: Clock,
    origin: Timestamp,
    record: Arc<Mutex<Record>>,
}

impl Story {
    pub(super) fn begin() -> Self {
        let clock = Clock::start();
        Self { clock, origin: clock.wall(), record: Arc::default() }
    }

    /// Seconds since the start.
    pub(super) fn now(&self) -> f64 {
        self.clock.now().since_origin().as_secs_f64()
    }

    /// The wall clock's `at` as seconds since the start.
    pub(super) fn at(&self, at: Timestamp) -> f64 {
        (at.unix_millis() - self.origin.unix_millis()) as f64 / 1000.0
    }

    /// When the story began, on the wall clock.
    pub(super) fn origin(&self) -> Timestamp {
        self.origin
    }

    /// Adds an event of now.
    pub(super) fn note(&self, kind: Kind, text: impl Into<String>) {
        self.note_at(self.now(), kind, text);
    }

    /// Adds an event of the time `at`.
    pub(super) fn note_at(&self, at: f64, kind: Kind, text: impl Into<String>) {
        self.lock().lines.push(Line::Event(Event { at, kind, text: text.into() }));
    }

    pub(super) fn sample(&self, sample: Sample) {
        self.lock().samples.push(sample);
    }

    pub(super) fn begin_act(&self, title: &'static str, promise: &'static str) {
        let from = self.now();
        let mut record = self.lock();
        let number = record.acts.len() + 1;
        record.acts.push(Act { number, title, promise, from, to: None, verdict: None });
        record.lines.push(Line::Act { number, title });
    }

    pub(super) fn end_act(&self, verdict: Verdict) {
        let to = self.now();
        let mut record = self.lock();
        record.lines.push(Line::Verdict(verdict.clone()));
        if let Some(act) = record.acts.last_mut() {
            (act.to, act.verdict) = (Some(to), Some(verdict));
        }
    }

    /// The lines after the first `seen`.
    pub(super) fn lines_after(&self, seen: usize) -> Vec<Line> {
        self.lock().lines.get(seen..).map(<[Line]>::to_vec).unwrap_or_default()
    }

    /// The newest sample.
    pub(super) fn newest(&self) -> Option<Sample> {
        self.lock().samples.last().cloned()
    }

    /// A copy of all samples, acts and lines so far.
    pub(super) fn record(&self) -> Record {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// Whether every promise held, and there were `acts` of them.
    pub(super) fn all_held(&self, acts: usize) -> bool {
        let held = |act: &Act| act.verdict.as_ref().is_some_and(|verdict| verdict.held);
        self.acts.len() == acts && self.acts.iter().all(held)
    }

    /// In the order of time.
    pub(super) fn events(&self) -> Vec<&Event> {
        let mut events: Vec<&Event> = self
            .lines
            .iter()
            .filter_map(|line| match line {
                Line::Event(event) => Some(event),
                Line::Act { .. } | Line::Verdict(_) => None,
            })
            .collect();
        events.sort_by(|a, b| a.at.total_cmp(&b.at));
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_broken_promise_or_a_missing_act_is_not_all_held() {
        let story = Story::begin();
        let verdict = |held| Verdict { held, figures: String::new() };
        story.begin_act("one", "");
        assert!(!story.record().all_held(1), "no verdict yet");
        story.end_act(verdict(true));
        assert!(story.record().all_held(1));
        assert!(!story.record().all_held(2));
        story.begin_act("two", "");
        story.end_act(verdict(false));
        assert!(!story.record().all_held(2));
        assert_eq!(story.lines_after(2).len(), 2);
        assert_eq!(story.lines_after(9).len(), 0);
    }
}
