//! The fleet's time line of a report in the form of the view's: a row for each pod, and the fleet's numbers.

use std::collections::{BTreeMap, VecDeque};

use super::super::{
    model::{PolicyReport, ReplayEpisode, ReportModel},
    picture::{FleetLevel, FleetPicture, PodPast, PodPhase},
};
use crate::{
    decide::time::Timestamp,
    roles::view::timeline::{Change, FleetTimeline, LanePhase, Level, seconds},
};

/// Columns of the time line, at most: finer than the picture's lines.
const COLUMNS: usize = 760;
/// And at least, however much happens.
const FEWEST_COLUMNS: usize = 95;

/// From the first evaluation to the last.
#[derive(Clone, Copy)]
struct Columns {
    from: u32,
    to: u32,
    count: usize,
}

impl Columns {
    fn of(&self, at: Timestamp) -> usize {
        let (since, span) = (seconds(at).clamp(self.from, self.to) - self.from, (self.to - self.from).max(1));
        let column = u64::from(since) * u64::try_from(self.count).unwrap_or(1) / u64::from(span);
        usize::try_from(column).unwrap_or(usize::MAX).min(self.count - 1)
    }

    fn begin(&self, column: usize) -> u32 {
        let (column, count) = (u64::try_from(column).unwrap_or(0), u64::try_from(self.count).unwrap_or(1));
        let since = u64::from(self.to - self.from) * column / count;
        self.from + u32::try_from(since).unwrap_or(u32::MAX)
    }
}

/// What the fleet was, and what the policy would have made of it, in at most about `bars` spans.
pub(super) fn timeline(model: &ReportModel, policy: &PolicyReport, bars: usize) -> FleetTimeline {
    let (from, to) = (seconds(model.from), seconds(model.replayed_to));
    let mut columns = Columns { from, to: to.max(from + 1), count: COLUMNS };
    let mut lanes = lanes(model, policy, columns);
    while lanes.values().map(VecDeque::len).sum::<usize>() > bars && columns.count > FEWEST_COLUMNS {
        columns.count /= 2;
        lanes = self::lanes(model, policy, columns);
    }
    FleetTimeline { lanes, levels: levels(&policy.picture.fleet, columns) }
}

/// What stands in one column: the phase that a reader must not miss wins.
fn weight(phase: LanePhase) -> u8 {
    match phase {
        LanePhase::Gone => 0,
        LanePhase::Serving => 1,
        LanePhase::Objected => 2,
        LanePhase::NotServing | LanePhase::Foreign | LanePhase::Changing => 3,
        LanePhase::Withheld => 4,
        LanePhase::Paused => 5,
    }
}

fn lanes(
    model: &ReportModel,
    policy: &PolicyReport,
    columns: Columns,
) -> BTreeMap<Box<str>, VecDeque<Change>> {
    let mut drawn: BTreeMap<&str, Vec<LanePhase>> = BTreeMap::new();
    let mut draw = |pod, from, to, phase| {
        let row = drawn.entry(pod).or_insert_with(|| vec![LanePhase::Gone; columns.count]);
        for place in row.get_mut(columns.of(from)..=columns.of(to)).unwrap_or_default() {
            if weight(phase) > weight(*place) {
                *place = phase;
            }
        }
    };
    for past in model.picture.pods.values() {
        spans(past, model.replayed_to, |from, to, phase| draw(past.name.as_str(), from, to, phase));
    }
    for past in policy.picture.fleet.pods.values() {
        spans(past, model.replayed_to, |from, to, phase| {
            if phase == LanePhase::Objected {
                draw(past.name.as_str(), from, to, phase);
            }
        });
    }
    for ReplayEpisode { pod, from, to, paused_at, .. } in &policy.episodes {
        draw(pod, *from, *to, LanePhase::Withheld);
        if let Some(paused) = paused_at {
            draw(pod, *paused, *to, LanePhase::Paused);
        }
    }
    drawn.into_iter().map(|(pod, row)| (pod.into(), changes(&row, columns))).collect()
}

/// The phases with their ends.
fn spans(past: &PodPast, end: Timestamp, mut each: impl FnMut(Timestamp, Timestamp, LanePhase)) {
    let ends = past.phases.iter().skip(1).map(|(at, _)| *at).chain([end]);
    for ((from, phase), to) in past.phases.iter().zip(ends) {
        let phase = match phase {
            PodPhase::Ready => LanePhase::Serving,
            PodPhase::Unready => LanePhase::NotServing,
            PodPhase::Objected => LanePhase::Objected,
            PodPhase::Gone => LanePhase::Gone,
        };
        each(*from, to, phase);
    }
}

fn changes(row: &[LanePhase], columns: Columns) -> VecDeque<Change> {
    let mut all: VecDeque<Change> = VecDeque::new();
    for (column, phase) in row.iter().enumerate() {
        let before = all.back().map_or(LanePhase::Gone, |last| last.phase);
        if *phase != before {
            all.push_back(Change { at: columns.begin(column), phase: *phase });
        }
    }
    all
}

/// Of the changes in one column the one with the fewest serving pods, and the last.
fn levels(fleet: &FleetPicture, columns: Columns) -> VecDeque<Level> {
    let mut all: VecDeque<Level> = VecDeque::new();
    let same = |a: &FleetLevel, b: &FleetLevel| columns.of(a.at) == columns.of(b.at);
    for column in fleet.levels.chunk_by(same) {
        let lowest = column.iter().min_by_key(|level| level.serving);
        let panic = column.iter().any(|level| level.panic);
        for level in lowest.into_iter().chain(column.last()) {
            let level = Level {
                at: seconds(level.at),
                serving: level.serving,
                floor: level.floor,
                desired: level.desired,
                withheld: 0,
                panic,
            };
            if all.back().is_none_or(|last| Level { at: level.at, ..*last } != level) {
                all.push_back(level);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decide::fleet::Uid,
        roles::report::page::tests::{at, episode, model},
    };

    #[test]
    fn a_short_withdrawal_in_a_long_range_is_drawn_and_comes_before_what_else_the_pod_was() {
        let mut model = model(7 * 86_400);
        let mut policy = model.policies.remove(0);
        model.picture.phase(&Uid::from("a"), "web-1", at(0), PodPhase::Ready);
        model.picture.phase(&Uid::from("a"), "web-1", at(600_000), PodPhase::Gone);
        policy.episodes = vec![episode("web-1", 300_000, 300_030)];
        let drawn = timeline(&model, &policy, 10_000);
        let lane: Vec<_> = drawn.lanes["web-1"].iter().map(|change| change.phase).collect();
        use LanePhase::{Gone, Serving, Withheld};
        assert_eq!(lane, [Serving, Withheld, Serving, Gone]);
    }

    #[test]
    fn a_fleet_that_changes_all_the_time_is_drawn_in_fewer_columns() {
        let mut model = model(86_400);
        let policy = model.policies.remove(0);
        for pod in 0..100 {
            let name = format!("web-{pod}");
            for moment in 0..1440 {
                let phase = if moment % 2 == 0 { PodPhase::Ready } else { PodPhase::Gone };
                model.picture.phase(&Uid::from(name.as_str()), &name, at(moment * 60), phase);
            }
        }
        let bars: usize = timeline(&model, &policy, 6000).lanes.values().map(VecDeque::len).sum();
        assert!(bars <= 100 * FEWEST_COLUMNS, "{bars}");
    }
}
