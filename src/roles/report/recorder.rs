//! Listens to a replay and keeps what a report says about it.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    labels::{IncidentLabels, LabelCount},
    model::{
        BreakerReport, EpisodeEnd, EpisodeEvidence, FleetSpan, LabelScore, PolicyPicture, ReplayEpisode,
    },
    picture::{BreakerPicture, FleetLevel, PodPhase},
    time_range::TimeRange,
};
use crate::decide::{
    alarm_reason::AlarmReason,
    detect::queried::JudgedAnswer,
    fleet::Uid,
    gate::{
        action::{Action, Verb},
        explain::PodState,
        ledger::EntryState,
    },
    replay::{ReplayLog, ReplayStep},
    time::Timestamp,
    verdict::{Judgement, NoVerdict, Opinion, Verdicts},
};

/// Episodes that are kept of one policy; more are only counted.
const EPISODES: usize = 100_000;

/// What is kept of one policy's replay.
pub(super) struct ReplayRecorder {
    range: TimeRange,
    labels: Option<(Arc<IncidentLabels>, LabelCount)>,
    open: BTreeMap<Uid, ReplayEpisode>,
    pub(super) ended: Vec<ReplayEpisode>,
    pub(super) dropped: usize,
    pub(super) breakers: Vec<BreakerReport>,
    pub(super) picture: PolicyPicture,
    panic: SpanRecorder,
    no_data: SpanRecorder,
    floor_reached: SpanRecorder,
    below_floor: SpanRecorder,
    pub(super) floor: FloorRecord,
    objected: BTreeMap<Uid, String>,
    evaluated: bool,
}

/// How near the floor the fleet came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FloorRecord {
    pub(super) least_above: Option<i64>,
    pub(super) most_withheld: u32,
    pub(super) highest_share: f64,
    pub(super) near_seconds: f64,
    last: Option<(Timestamp, bool)>,
}

/// The spans of one alarm.
#[derive(Clone, Debug, Default)]
struct SpanRecorder {
    open: Option<(Timestamp, String)>,
    ended: Vec<FleetSpan>,
}

impl SpanRecorder {
    fn note(&mut self, now: Timestamp, message: Option<&str>) {
        match (&self.open, message) {
            (None, Some(message)) => self.open = Some((now, message.to_owned())),
            (Some(_), None) => self.end(now),
            _ => {}
        }
    }

    fn end(&mut self, now: Timestamp) {
        if let Some((from, message)) = self.open.take() {
            self.ended.push(FleetSpan { from, to: now, message });
        }
    }
}

/// The spans of all alarms, at the end.
pub(super) struct RecordedSpans {
    pub(super) panics: Vec<FleetSpan>,
    pub(super) no_data: Vec<FleetSpan>,
    pub(super) floor_reached: Vec<FleetSpan>,
    pub(super) below_floor: Vec<FleetSpan>,
}

impl ReplayRecorder {
    pub(super) fn new(
        range: TimeRange,
        breakers: Vec<BreakerReport>,
        labels: Option<Arc<IncidentLabels>>,
    ) -> Self {
        let picture = |breaker: &BreakerReport| BreakerPicture::new(&breaker.name, range);
        Self {
            range,
            labels: labels.map(|labels| (labels, LabelCount::default())),
            open: BTreeMap::new(),
            ended: Vec::new(),
            dropped: 0,
            picture: PolicyPicture {
                breakers: breakers.iter().map(picture).collect(),
                ..PolicyPicture::default()
            },
            breakers,
            panic: SpanRecorder::default(),
            no_data: SpanRecorder::default(),
            floor_reached: SpanRecorder::default(),
            below_floor: SpanRecorder::default(),
            floor: FloorRecord::default(),
            objected: BTreeMap::new(),
            evaluated: false,
        }
    }

    /// Ends what lasts; nothing may be recorded afterwards.
    pub(super) fn finish(&mut self, now: Timestamp) -> RecordedSpans {
        for (_, episode) in std::mem::take(&mut self.open) {
            self.keep(ReplayEpisode { to: now, ended: EpisodeEnd::Lasting, ..episode });
        }
        self.ended.sort_by(|a, b| (a.from, &a.pod).cmp(&(b.from, &b.pod)));
        self.floor.note(now, false);
        let spans = [&mut self.panic, &mut self.no_data, &mut self.floor_reached, &mut self.below_floor];
        let [panics, no_data, floor_reached, below_floor] = spans.map(|spans| {
            spans.end(now);
            std::mem::take(&mut spans.ended)
        });
        RecordedSpans { panics, no_data, floor_reached, below_floor }
    }

    /// Against the labels, if there are any.
    pub(super) fn score(&self) -> Option<LabelScore> {
        self.labels.as_ref().map(|(_, count)| count.score())
    }

    fn keep(&mut self, episode: ReplayEpisode) {
        if self.ended.len() < EPISODES { self.ended.push(episode) } else { self.dropped += 1 }
    }

    fn act(&mut self, step: &ReplayStep<'_>, action: &Action) {
        let at = step.plan.at;
        match action.verb {
            Verb::Withhold => {
                let entry = step.after.entries.get(&action.uid);
                let episode = ReplayEpisode {
                    pod: action.name.clone(),
                    uid: action.uid.to_string(),
                    breaker: action.breaker.clone(),
                    from: at,
                    to: at,
                    ended: EpisodeEnd::Lasting,
                    reason: action.reason.clone(),
                    evidence: evidence(step.verdicts, action),
                    retry: entry.map_or(1, |entry| entry.retry_count),
                    paused_at: None,
                    killed_at: None,
                };
                self.open.insert(action.uid.clone(), episode);
            }
            Verb::Admit => self.end(&action.uid, at, EpisodeEnd::Admitted),
            Verb::Pause => {
                let episode = self.open.get_mut(&action.uid);
                episode.into_iter().for_each(|episode| episode.paused_at = Some(at));
            }
            Verb::Kill => {
                // A pod to be killed is so in every plan until it is gone.
                let episode = self.open.get_mut(&action.uid);
                episode.into_iter().for_each(|episode| episode.killed_at = episode.killed_at.or(Some(at)));
            }
            Verb::Claim | Verb::Cancel | Verb::Release | Verb::Forget => {}
        }
    }

    fn end(&mut self, uid: &Uid, to: Timestamp, ended: EpisodeEnd) {
        if let Some(episode) = self.open.remove(uid) {
            self.keep(ReplayEpisode { to, ended, ..episode });
        }
    }

    /// Ends the episodes of pods that the ledger no longer has.
    fn end_released(&mut self, step: &ReplayStep<'_>) {
        let released = |uid: &&Uid| !step.after.entries.contains_key(*uid);
        let released: Vec<Uid> = self.open.keys().filter(released).cloned().collect();
        for uid in released {
            let deleted = step.fleet.pod(uid.as_str()).is_none();
            self.end(&uid, step.plan.at, if deleted { EpisodeEnd::Deleted } else { EpisodeEnd::Admitted });
        }
    }

    /// The last plan of a moment.
    fn settle(&mut self, step: &ReplayStep<'_>) {
        let (plan, now) = (step.plan, step.plan.at);
        let alarm = |reason: AlarmReason| {
            plan.alarms.iter().find(|alarm| alarm.reason == reason).map(|alarm| alarm.message.as_str())
        };
        self.panic.note(now, alarm(AlarmReason::Panic));
        self.no_data.note(now, alarm(AlarmReason::NoData));
        self.floor_reached.note(now, alarm(AlarmReason::FloorReached));
        self.below_floor.note(now, alarm(AlarmReason::BelowFloor));
        let budget = plan.budget;
        let withheld =
            step.after.entries.values().filter(|entry| entry.state != EntryState::Reserved).count();
        let withheld = u32::try_from(withheld).unwrap_or(u32::MAX);
        if budget.desired > 0 {
            let above = i64::from(budget.serving) - i64::from(budget.floor);
            let least = self.floor.least_above.get_or_insert(above);
            *least = above.min(*least);
            self.floor.note(now, above <= 1);
            let share = 100.0 * f64::from(withheld) / f64::from(budget.desired);
            self.floor.highest_share = self.floor.highest_share.max(share);
        }
        self.floor.most_withheld = self.floor.most_withheld.max(withheld);
        self.picture.fleet.level(FleetLevel {
            at: now,
            serving: budget.serving,
            floor: budget.floor,
            desired: budget.desired,
            panic: alarm(AlarmReason::Panic).is_some(),
        });
        self.note_objections(step);
    }

    /// Pods that serve although a breaker objects to them.
    fn note_objections(&mut self, step: &ReplayStep<'_>) {
        let (now, mut before) = (step.plan.at, std::mem::take(&mut self.objected));
        for explanation in &step.plan.explanations {
            if explanation.standing == PodState::Serving && explanation.breaker.is_some() {
                before.remove(&explanation.uid);
                self.picture.fleet.phase(&explanation.uid, &explanation.name, now, PodPhase::Objected);
                self.objected.insert(explanation.uid.clone(), explanation.name.clone());
            }
        }
        for (uid, name) in before {
            self.picture.fleet.phase(&uid, &name, now, PodPhase::Ready);
        }
    }

    fn count_labels(&mut self, step: &ReplayStep<'_>) {
        let Some((labels, count)) = &mut self.labels else { return };
        let now = step.plan.at;
        for pod in step.fleet.pods() {
            let opinions =
                || step.verdicts.sources.iter().filter_map(|source| opinion(source.opinions(), &pod.uid));
            let found = step.after.entries.contains_key(&pod.uid) || opinions().any(Opinion::objects);
            let judged = opinions().any(|opinion| !matches!(opinion, Opinion::Judged(Judgement::None(_))));
            count.add(labels.truth(&pod.name, now), found, judged);
        }
    }
}

impl FloorRecord {
    fn note(&mut self, now: Timestamp, near: bool) {
        if let Some((since, true)) = self.last {
            self.near_seconds += now.since(since).as_secs_f64();
        }
        self.last = Some((now, near));
    }
}

impl ReplayLog for ReplayRecorder {
    fn evaluated(&mut self, judged: &JudgedAnswer) {
        let source = &judged.source;
        self.evaluated = true;
        let unanswered = |(_, opinion): &(Uid, Opinion)| {
            matches!(opinion, Opinion::Judged(Judgement::None(NoVerdict::NoAnswer)))
        };
        let breaker = self.breakers.iter_mut().find(|breaker| breaker.name == source.name);
        if let Some(breaker) = breaker {
            let bad = source.opinions().iter().filter(|(_, opinion)| opinion.objects()).count();
            breaker.evaluations += 1;
            breaker.bad += u64::try_from(bad).unwrap_or(u64::MAX);
            breaker.unanswered += u64::from(source.opinions().first().is_some_and(unanswered));
            let none_of_ours = judged.strangers > 0 && source.measurements.values.is_empty();
            breaker.strange += u64::from(none_of_ours);
        }
        if source.at >= self.range.from && source.at < self.range.to {
            let picture = self.picture.breakers.iter_mut().find(|picture| picture.breaker == source.name);
            picture.into_iter().for_each(|picture| picture.add(source.at, &source.measurements));
        }
    }

    fn planned(&mut self, step: &ReplayStep<'_>) {
        for action in &step.plan.actions {
            self.act(step, action);
        }
        if step.plan.next.is_some() {
            self.end_released(step);
        }
        if step.last {
            self.settle(step);
            if std::mem::take(&mut self.evaluated) {
                self.count_labels(step);
            }
        }
    }
}

fn opinion<'a>(opinions: &'a [(Uid, Opinion)], uid: &Uid) -> Option<&'a Opinion> {
    let index = opinions.binary_search_by(|(of, _)| of.cmp(uid)).ok()?;
    opinions.get(index).map(|(_, opinion)| opinion)
}

/// The numbers of the verdict that led to the action.
fn evidence(verdicts: &Verdicts, action: &Action) -> EpisodeEvidence {
    let source = verdicts.sources.iter().find(|source| source.name == action.breaker);
    match source.and_then(|source| opinion(source.opinions(), &action.uid)) {
        Some(Opinion::Judged(Judgement::Bad { evidence, .. })) => (&**evidence).into(),
        _ => EpisodeEvidence::default(),
    }
}
