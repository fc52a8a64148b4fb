//! The page of one resource: numbers, time line, breakers, ledger, decisions, pods.

use serde::Serialize;

use super::{
    chart::{FleetChart, Strip},
    overview::OverviewRow,
    timeline::{FleetTimeline, LanePhase, seconds},
};
use crate::{
    alarms::AlarmChange,
    decide::{
        gate::{
            Plan,
            action::Verb,
            ledger::{Entry, EntryState},
        },
        time::Timestamp,
    },
    roles::{
        gate::{
            episodes::{Episode, EpisodeKind},
            snapshot::{BreakerReading, GateSnapshot, PodSnapshot},
        },
        output::number,
    },
};

/// Everything that the template writes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FleetPage {
    row: OverviewRow,
    at: String,
    frozen: Option<String>,
    hold: Option<String>,
    hindrance: Option<String>,
    process_dry_run: bool,
    panic: bool,
    floor: FloorNumbers,
    chart: FleetChart,
    breakers: Vec<BreakerRow>,
    ledger: Vec<LedgerRow>,
    decided: Option<Decisions>,
    would: Option<Decisions>,
    alarms: Vec<AlarmRow>,
    episodes: Vec<EpisodeRow>,
    pods: Vec<FleetPodRow>,
}

/// The floor's arithmetic, in pods.
#[derive(Clone, Debug, Serialize)]
struct FloorNumbers {
    desired: u32,
    existing: u32,
    floor: u32,
    serving: u32,
    joining: u32,
    entries: u32,
    may_withhold: u32,
    formula: String,
}

#[derive(Clone, Debug, Serialize)]
struct BreakerRow {
    name: String,
    at: String,
    measured: usize,
    low: Option<String>,
    high: Option<String>,
    median: Option<String>,
    least: Option<String>,
    most: Option<String>,
    beyond: usize,
    strip: Option<Strip>,
}

#[derive(Clone, Debug, Serialize)]
struct LedgerRow {
    pod: String,
    state: &'static str,
    breaker: String,
    reason: String,
    since: String,
    retry_count: u32,
}

/// The actions of a plan.
#[derive(Clone, Debug, Serialize)]
struct Decisions {
    at: String,
    actions: Vec<ActionRow>,
}

#[derive(Clone, Debug, Serialize)]
struct ActionRow {
    verb: &'static str,
    pod: String,
    breaker: String,
    reason: String,
}

/// An alarm that is up.
#[derive(Clone, Debug, Serialize)]
pub(super) struct AlarmRow {
    reason: &'static str,
    of: String,
    message: String,
    since: String,
}

/// A time without traffic, or what a dry run would have made one.
#[derive(Clone, Debug, Serialize)]
struct EpisodeRow {
    would: bool,
    pod: String,
    breaker: String,
    reason: String,
    from: String,
    /// Empty while it lasts.
    to: String,
    /// Whole seconds.
    seconds: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
struct FleetPodRow {
    name: String,
    style: &'static str,
    sign: &'static str,
    breaker: String,
    summary: String,
}

impl From<&AlarmChange> for AlarmRow {
    fn from(alarm: &AlarmChange) -> Self {
        Self {
            reason: alarm.reason.as_str(),
            of: alarm.of.to_string(),
            message: alarm.message.clone(),
            since: alarm.at.to_string(),
        }
    }
}

impl FloorNumbers {
    fn of(fleet: &GateSnapshot) -> Self {
        let budget = fleet.floor.budget;
        Self {
            desired: budget.desired,
            existing: budget.existing,
            floor: budget.floor,
            serving: budget.serving,
            joining: budget.joining,
            entries: budget.entries,
            may_withhold: fleet.floor.may_withhold,
            formula: fleet.floor.formula.clone(),
        }
    }
}

impl FleetPage {
    pub(super) fn of(
        fleet: &GateSnapshot,
        up: &[AlarmChange],
        timeline: &FleetTimeline,
        now: Timestamp,
    ) -> Self {
        let of = format!("{}/{}", fleet.namespace, fleet.name);
        let alarms: Vec<AlarmRow> = up.iter().filter(|alarm| *alarm.of == *of).map(AlarmRow::from).collect();
        let entries = fleet.ledger.iter().flat_map(|ledger| ledger.entries.values());
        let real = |plan: &Plan| !fleet.dry_run && !plan.actions.is_empty();
        Self {
            row: OverviewRow::of(fleet, alarms.len()),
            at: fleet.at.to_string(),
            frozen: fleet.frozen.clone(),
            hold: fleet.hold.clone(),
            hindrance: fleet.hindrance.as_ref().map(ToString::to_string),
            process_dry_run: fleet.dry_run,
            panic: fleet.panic,
            floor: FloorNumbers::of(fleet),
            chart: FleetChart::of(timeline, seconds(now)),
            breakers: fleet.readings.iter().map(BreakerRow::of).collect(),
            ledger: entries.map(LedgerRow::of).collect(),
            decided: fleet.last_action.as_deref().filter(|plan| real(plan)).map(Decisions::of),
            would: fleet.rehearsal.as_ref().filter(|plan| !plan.actions.is_empty()).map(Decisions::of),
            alarms,
            episodes: fleet.episodes.all().into_iter().map(EpisodeRow::of).collect(),
            pods: fleet.pods.iter().map(FleetPodRow::of).collect(),
        }
    }
}

impl BreakerRow {
    fn of(reading: &BreakerReading) -> Self {
        let measured = &reading.measurements;
        let values = || measured.values.iter().map(|one| one.value);
        let beyond = values().filter(|value| {
            measured.low.is_some_and(|low| *value < low) || measured.high.is_some_and(|high| *value > high)
        });
        Self {
            name: reading.breaker.clone(),
            at: reading.at.to_string(),
            measured: measured.values.len(),
            low: measured.low.map(number),
            high: measured.high.map(number),
            median: measured.median.map(number),
            least: values().reduce(f64::min).map(number),
            most: values().reduce(f64::max).map(number),
            beyond: beyond.count(),
            strip: Strip::of(measured),
        }
    }
}

impl LedgerRow {
    fn of(entry: &Entry) -> Self {
        Self {
            pod: entry.name.clone(),
            state: match entry.state {
                EntryState::Reserved => "being withheld",
                EntryState::Cancelling => "being cancelled",
                EntryState::Withheld => "withheld",
                EntryState::Pausing => "being paused",
                EntryState::Paused => "paused",
                EntryState::Killing => "being killed",
            },
            breaker: entry.breaker.clone(),
            reason: entry.reason.clone(),
            since: entry.break_at.to_string(),
            retry_count: entry.retry_count,
        }
    }
}

impl EpisodeRow {
    fn of(episode: Episode) -> Self {
        Self {
            would: episode.kind == EpisodeKind::DryRun,
            pod: episode.pod,
            breaker: episode.breaker,
            reason: episode.reason,
            from: episode.from.to_string(),
            to: episode.to.map(|to| to.to_string()).unwrap_or_default(),
            seconds: episode.to.map(|to| to.since(episode.from).as_secs()),
        }
    }
}

impl Decisions {
    fn of(plan: &Plan) -> Self {
        let action = |action: &crate::decide::gate::action::Action| ActionRow {
            verb: word(action.verb),
            pod: action.name.clone(),
            breaker: action.breaker.clone(),
            reason: action.reason.clone(),
        };
        Self { at: plan.at.to_string(), actions: plan.actions.iter().map(action).collect() }
    }
}

impl FleetPodRow {
    fn of(pod: &PodSnapshot) -> Self {
        let phase = LanePhase::of(pod);
        Self {
            name: pod.id.clone(),
            style: phase.word(),
            sign: phase.sign(),
            breaker: pod.breaker.clone().unwrap_or_default(),
            summary: pod.summary.strip_prefix(&format!("{}: ", pod.id)).unwrap_or(&pod.summary).to_owned(),
        }
    }
}

fn word(verb: Verb) -> &'static str {
    match verb {
        Verb::Claim => "claim",
        Verb::Withhold => "withhold",
        Verb::Cancel => "cancel the withdrawal",
        Verb::Admit => "admit",
        Verb::Pause => "pause",
        Verb::Kill => "kill",
        Verb::Release => "release from the ledger",
        Verb::Forget => "forget",
    }
}
