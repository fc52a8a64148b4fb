//! The page of one pod: the gate's explanation step by step, its values, its history.

use serde::Serialize;

use super::{
    chart::FleetChart,
    timeline::{FleetTimeline, LanePhase, seconds},
};
use crate::{
    decide::{fleet::Traffic, time::Timestamp},
    roles::{
        gate::snapshot::{GateSnapshot, PodSnapshot},
        output::number,
    },
};

/// Everything that the template writes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PodPage {
    namespace: String,
    fleet: String,
    name: String,
    uid: String,
    address: Option<String>,
    style: &'static str,
    sign: &'static str,
    at: String,
    steps: Vec<Step>,
    chart: FleetChart,
    history: Vec<HistoryRow>,
}

/// One step of the decision: the question, and the answer for this pod.
#[derive(Clone, Debug, Serialize)]
struct Step {
    question: &'static str,
    answer: String,
    /// `yes`: nothing keeps it from traffic here; `no`: something does; `soft`: neither.
    style: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct HistoryRow {
    at: String,
    what: &'static str,
    breaker: String,
    reason: String,
}

impl PodPage {
    pub(super) fn of(
        fleet: &GateSnapshot,
        pod: &PodSnapshot,
        timeline: &FleetTimeline,
        now: Timestamp,
    ) -> Self {
        let phase = LanePhase::of(pod);
        let own = FleetTimeline {
            lanes: timeline
                .lanes
                .get_key_value(pod.id.as_str())
                .map(|(name, lane)| (name.clone(), lane.clone()))
                .into_iter()
                .collect(),
            levels: timeline.levels.clone(),
        };
        let history = pod.history.iter().rev().map(|entry| HistoryRow {
            at: entry.at.to_string(),
            what: entry.what,
            breaker: entry.breaker.clone(),
            reason: entry.reason.clone(),
        });
        Self {
            namespace: fleet.namespace.clone(),
            fleet: fleet.name.clone(),
            name: pod.id.clone(),
            uid: pod.uid.to_string(),
            address: pod.detail.as_ref().and_then(|detail| detail.address).map(|address| address.to_string()),
            style: phase.word(),
            sign: phase.sign(),
            at: fleet.at.to_string(),
            steps: steps(fleet, pod),
            chart: FleetChart::of(&own, seconds(now)),
            history: history.collect(),
        }
    }
}

fn step(question: &'static str, style: &'static str, answer: impl Into<String>) -> Step {
    Step { question, style, answer: answer.into() }
}

/// In the order of the gate.
fn steps(fleet: &GateSnapshot, pod: &PodSnapshot) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.push(match pod.ready {
        true => step("Is it ready, and of the fleet?", "yes", "yes"),
        false => step("Is it ready, and of the fleet?", "no", "no: it does not count as serving"),
    });
    let (style, traffic) = match pod.traffic {
        Traffic::Yes => ("yes", "yes: it may get traffic"),
        Traffic::No => ("no", "no: it is withheld"),
        Traffic::Pause => ("no", "pause: withheld until a person or a callback admits it"),
        Traffic::Unlabelled => ("soft", "none yet"),
        Traffic::Other => ("no", "a value that is neither yes, no nor pause"),
    };
    steps.push(step("What does its traffic switch say?", style, traffic));
    if let Some(note) = pod.detail.as_ref().and_then(|detail| detail.note.as_ref()) {
        steps.push(step("Is anything else known?", "soft", note.clone()));
    }
    steps.extend(measured(fleet, pod));
    let explanation = pod.explanation.as_ref();
    steps.push(match explanation.and_then(|it| Some((it.breaker.as_ref()?, it.why.as_ref()))) {
        Some((breaker, Some(why))) => {
            step("Does a breaker or the callback object?", "no", format!("{breaker}: {why}"))
        }
        Some((breaker, None)) => step("Does a breaker or the callback object?", "no", breaker.clone()),
        None => step("Does a breaker or the callback object?", "yes", "no"),
    });
    if let Some(hold) = fleet.plan.as_ref().and_then(|plan| plan.hold.as_ref()) {
        steps.push(step("May anything be withheld now?", "soft", format!("no: {hold}")));
    }
    steps.push(step("How many more may be withheld?", "soft", fleet.floor.formula.clone()));
    let decision = explanation.map_or("it serves, and nothing objects", |it| it.decision);
    steps.push(step(
        "What follows for this pod?",
        if explanation.is_some() { "no" } else { "yes" },
        decision,
    ));
    if let Some(next) = explanation.and_then(|it| it.next.as_ref()) {
        let at = next.at.map(|at| format!(" at {at}")).unwrap_or_default();
        steps.push(step("What is next?", "soft", format!("{}{at}", next.what)));
    }
    if pod.retry_count > 0 {
        steps.push(step("How often was it withheld?", "soft", pod.retry_count.to_string()));
    }
    steps
}

/// What each breaker measured at it, beside the range of the good values.
fn measured(fleet: &GateSnapshot, pod: &PodSnapshot) -> Vec<Step> {
    let answer = |reading: &crate::roles::gate::snapshot::BreakerReading| {
        let measured = &reading.measurements;
        let value = measured.of(pod.uid.as_str())?;
        let low = measured.low.filter(|low| value < *low);
        let high = measured.high.filter(|high| value > *high);
        let range = match (measured.low, measured.high) {
            (Some(low), Some(high)) => format!("good from {} to {}", number(low), number(high)),
            (Some(low), None) => format!("good from {}", number(low)),
            (None, Some(high)) => format!("good up to {}", number(high)),
            (None, None) => "no threshold".to_owned(),
        };
        let median = measured.median.map(|median| format!(", median {}", number(median))).unwrap_or_default();
        let style = if low.or(high).is_some() { "no" } else { "yes" };
        let text = format!("{}: {} ({range}{median})", reading.breaker, number(value));
        Some(step("What was measured?", style, text))
    };
    fleet.readings.iter().filter_map(answer).collect()
}
