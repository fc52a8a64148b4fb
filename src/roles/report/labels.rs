//! Known incidents (`--labels`), and what a policy's verdicts are worth against them.
//!
//! What is counted are pods at evaluations: found is a pod that a breaker judges bad, or that is withheld. The first
//! [`TOLERANCE`] evaluations of an incident and as many after its end are not counted, because a verdict is over several
//! evaluations; neither is a miss where there is no verdict, because nothing can be found in nothing.

use std::{collections::HashMap, path::Path, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::{model::LabelScore, time_range};
use crate::{api, decide::time::Timestamp, exit::Exit};

/// Evaluations at the edges of an incident that are not counted: the default window of `outlier`.
pub const TOLERANCE: u32 = 5;

/// The incidents by pod.
#[derive(Clone, Debug, Default)]
pub struct IncidentLabels {
    incidents: HashMap<String, Vec<Incident>>,
    /// [`TOLERANCE`] evaluations.
    tolerance: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Incident {
    from: Timestamp,
    to: Timestamp,
}

/// One row of the file.
#[derive(Debug, Deserialize)]
struct LabelRow {
    pod: String,
    from: Value,
    to: Value,
}

/// What the labels say of a pod at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LabelTruth {
    /// It was well.
    Well,
    /// It was bad.
    Bad,
    /// Either verdict is right.
    Unclear,
}

/// The counts so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LabelCount {
    hits: u64,
    misses: u64,
    false_alarms: u64,
}

impl IncidentLabels {
    /// Reads a file: a YAML or JSON list of `{pod, from, to}`, or lines of `pod,from,to`.
    ///
    /// # Errors
    /// 2 with the line or item that is wrong.
    pub fn load(path: &Path, now: Timestamp) -> Result<Self, Exit> {
        let text = api::text_of(path).map_err(|problems| Exit::Usage(problems.to_string()))?;
        Self::read(&text, now).map_err(|what| Exit::Usage(format!("{}: {what}", path.display())))
    }

    fn read(text: &str, now: Timestamp) -> Result<Self, String> {
        let mut labels = Self::default();
        let rows = match text.trim_start().starts_with(['[', '-', '{']) {
            true => serde_saphyr::from_str::<Vec<LabelRow>>(text)
                .map_err(|error| format!("is no list of {{pod, from, to}}: {error}"))?,
            false => lines(text)?,
        };
        for (index, LabelRow { pod, from, to }) in rows.into_iter().enumerate() {
            let time = |value: &Value| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                time_range::moment(&text, now).ok_or_else(|| {
                    format!(
                        "incident {}: {text:?} is no time; write one such as 2026-07-01T12:00:00Z",
                        index + 1
                    )
                })
            };
            let (from, to) = (time(&from)?, time(&to)?);
            if pod.is_empty() || from >= to {
                return Err(format!(
                    "incident {}: write a pod, and a from that is earlier than to",
                    index + 1
                ));
            }
            labels.incidents.entry(pod).or_default().push(Incident { from, to });
        }
        if labels.incidents.is_empty() {
            return Err("has no incident; write lines of pod,from,to".to_owned());
        }
        Ok(labels)
    }

    /// With evaluations of this period.
    pub(super) fn every(mut self, period: Duration) -> Self {
        self.tolerance = period * TOLERANCE;
        self
    }

    pub(super) fn truth(&self, pod: &str, at: Timestamp) -> LabelTruth {
        let incidents = self.incidents.get(pod).map_or(&[][..], Vec::as_slice);
        let bad = |incident: &Incident| incident.from + self.tolerance <= at && at < incident.to;
        let near = |incident: &Incident| incident.from <= at && at < incident.to + self.tolerance;
        match (incidents.iter().any(bad), incidents.iter().any(near)) {
            (true, _) => LabelTruth::Bad,
            (false, true) => LabelTruth::Unclear,
            (false, false) => LabelTruth::Well,
        }
    }
}

/// `pod,from,to`; empty lines, comments with `#`, and a header of these words are skipped.
fn lines(text: &str) -> Result<Vec<LabelRow>, String> {
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let is_header = rows.is_empty() && line.replace(' ', "") == "pod,from,to";
        if line.is_empty() || line.starts_with('#') || is_header {
            continue;
        }
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [pod, from, to] = fields.as_slice() else {
            return Err(format!("line {}: {line:?} is no incident; write pod,from,to", index + 1));
        };
        rows.push(LabelRow { pod: (*pod).to_owned(), from: (*from).into(), to: (*to).into() });
    }
    Ok(rows)
}

impl LabelCount {
    pub(super) fn add(&mut self, truth: LabelTruth, found: bool, judged: bool) {
        match truth {
            LabelTruth::Bad if found => self.hits += 1,
            LabelTruth::Bad if judged => self.misses += 1,
            LabelTruth::Well if found => self.false_alarms += 1,
            _ => {}
        }
    }

    pub(super) fn score(self) -> LabelScore {
        LabelScore::new(self.hits, self.misses, self.false_alarms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_millis(1_700_000_000_000);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_millis((1_699_999_000 + second) * 1000)
    }

    #[test]
    fn incidents_are_read_from_lines_from_yaml_and_from_json() {
        for text in [
            "pod,from,to\n# one\nweb-1, 1699999100, 1699999200\n",
            "- {pod: web-1, from: 1699999100, to: 2023-11-14T22:00:00Z}",
            r#"[{"pod": "web-1", "from": "1699999100", "to": 1699999200}]"#,
        ] {
            let labels = IncidentLabels::read(text, NOW).unwrap().every(Duration::from_secs(10));
            let truths =
                [99, 100, 149, 150, 199, 200, 249, 250].map(|second| labels.truth("web-1", at(second)));
            use LabelTruth::{Bad, Unclear, Well};
            assert_eq!(truths, [Well, Unclear, Unclear, Bad, Bad, Unclear, Unclear, Well], "{text}");
            assert_eq!(labels.truth("web-2", at(150)), Well);
        }
    }

    #[test]
    fn what_is_no_incident_is_named_with_its_line() {
        for (text, words) in [
            ("web-1,1", "line 1"),
            ("pod,from,to\nweb-1,soon,1699999200", "\"soon\" is no time"),
            ("web-1,1699999200,1699999100", "earlier"),
            ("", "no incident"),
            ("[1", "no list"),
            ("- {pod: a}", "no list"),
        ] {
            let error = IncidentLabels::read(text, NOW).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn hits_misses_and_false_alarms_make_the_score() {
        let mut count = LabelCount::default();
        for (truth, found, judged) in [
            (LabelTruth::Bad, true, true),
            (LabelTruth::Bad, true, false),
            (LabelTruth::Bad, false, true),
            (LabelTruth::Bad, false, false),
            (LabelTruth::Well, true, true),
            (LabelTruth::Well, false, true),
            (LabelTruth::Unclear, true, true),
        ] {
            count.add(truth, found, judged);
        }
        let score = count.score();
        assert_eq!((score.hits, score.misses, score.false_alarms), (2, 1, 1));
        assert_eq!(score.f1, Some(100.0 * 4.0 / 6.0));
        assert_eq!(LabelCount::default().score().f1, None);
    }
}
