//! The overview: one row for each resource, sorted and filtered by the address of the page.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::timeline::is_withheld;
use crate::{
    alarms::AlarmChange,
    roles::gate::snapshot::{GateMode, GateSnapshot},
};

/// The part of the address behind `?`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct OverviewQuery {
    /// Shows only resources whose `namespace/name` or state contains it.
    #[serde(default)]
    pub(super) q: String,
    /// A column: `name`, `state`, `serving`, `withheld` or `alarms`.
    #[serde(default)]
    pub(super) sort: String,
}

/// One resource.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OverviewRow {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) state: FleetState,
    pub(super) serving: usize,
    pub(super) floor: u32,
    pub(super) desired: u32,
    pub(super) withheld: usize,
    /// Pods that only the dry run withholds.
    pub(super) would: usize,
    pub(super) alarms: usize,
    pub(super) dry_run: bool,
}

/// The worst that is true of a fleet, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "StateText")]
pub(super) enum FleetState {
    Frozen,
    BelowFloor,
    Panic,
    Alarm,
    Withholding,
    Hold,
    Following,
    Ok,
}

/// How a state is written: the style, a sign for those who see no colours, and words.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct StateText {
    pub(super) style: &'static str,
    pub(super) sign: &'static str,
    pub(super) text: &'static str,
}

impl From<FleetState> for StateText {
    fn from(state: FleetState) -> Self {
        let (style, sign, text) = match state {
            FleetState::Frozen => ("bad", "\u{2716}", "frozen"),
            FleetState::BelowFloor => ("bad", "\u{25bc}", "below the floor"),
            FleetState::Panic => ("bad", "\u{203c}", "panic"),
            FleetState::Alarm => ("warn", "!", "alarm"),
            FleetState::Withholding => ("warn", "\u{d7}", "withholding"),
            FleetState::Hold => ("soft", "=", "on hold"),
            FleetState::Following => ("soft", "\u{25cb}", "decided elsewhere"),
            FleetState::Ok => ("good", "\u{25cf}", "ok"),
        };
        Self { style, sign, text }
    }
}

impl FleetState {
    pub(super) fn of(fleet: &GateSnapshot, withheld: usize, alarms: usize) -> Self {
        let budget = fleet.floor.budget;
        match fleet.part {
            GateMode::Frozen => return Self::Frozen,
            GateMode::Following => return Self::Following,
            GateMode::Leading => {}
        }
        if budget.missing() > 0 && budget.existing > 0 {
            return Self::BelowFloor;
        }
        match (fleet.panic, alarms, withheld, fleet.hold.is_some()) {
            (true, ..) => Self::Panic,
            (_, 1.., ..) => Self::Alarm,
            (_, _, 1.., _) => Self::Withholding,
            (.., true) => Self::Hold,
            _ => Self::Ok,
        }
    }
}

impl OverviewRow {
    pub(super) fn of(fleet: &GateSnapshot, alarms: usize) -> Self {
        // What a process that only decides calls withheld is not.
        let withheld = fleet.pods.iter().filter(|pod| is_withheld(pod) && !fleet.dry_run).count();
        Self {
            namespace: fleet.namespace.clone(),
            name: fleet.name.clone(),
            state: FleetState::of(fleet, withheld, alarms),
            serving: fleet.serving(),
            floor: fleet.floor.budget.floor,
            desired: fleet.floor.budget.desired,
            withheld,
            would: fleet.would_withhold(),
            alarms,
            dry_run: fleet.dry_run || fleet.rehearsal.is_some(),
        }
    }
}

/// The rows of the page, filtered and sorted; rows that are equal in the sorted column stay in order of their name.
pub(super) fn rows<'a>(
    fleets: impl Iterator<Item = &'a GateSnapshot>,
    up: &[AlarmChange],
    query: &OverviewQuery,
) -> Vec<OverviewRow> {
    let mut alarms: BTreeMap<&str, usize> = BTreeMap::new();
    up.iter().for_each(|alarm| *alarms.entry(&alarm.of).or_default() += 1);
    let mut rows: Vec<OverviewRow> = fleets
        .map(|fleet| {
            let of = format!("{}/{}", fleet.namespace, fleet.name);
            OverviewRow::of(fleet, alarms.get(of.as_str()).copied().unwrap_or(0))
        })
        .filter(|row| query.q.is_empty() || matches(row, &query.q.to_lowercase()))
        .collect();
    rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    match query.sort.as_str() {
        "state" => rows.sort_by_key(|row| row.state),
        "serving" => {
            rows.sort_by_key(|row| i64::try_from(row.serving).unwrap_or(i64::MAX) - i64::from(row.floor))
        }
        "withheld" => rows.sort_by_key(|row| Reverse(row.withheld.max(row.would))),
        "alarms" => rows.sort_by_key(|row| Reverse(row.alarms)),
        _ => {}
    }
    rows
}

fn matches(row: &OverviewRow, wanted: &str) -> bool {
    let name = format!("{}/{}", row.namespace, row.name).to_lowercase();
    name.contains(wanted) || StateText::from(row.state).text.contains(wanted)
}
