//! Why a pod is or is not withheld, as a reason in words; and the fleet's alarms.
//!
//! Kept as values; the text is made on request, because a plan may cover ten thousand pods. A pod that
//! serves and has no objection has no explanation.

use std::fmt;

use serde::Serialize;

use super::{
    action::Verb,
    assessment::{Candidate, Due, EntryAssessment, EntryDecision, ReleaseReason},
    breaker, fight,
    ledger::{EntryState, PERSON},
    place::{self, Places},
    planning::Planning,
    request,
};
use crate::decide::{
    alarm_reason::AlarmReason,
    fleet::{Traffic, Uid},
    time::Timestamp,
};

/// An alarm about the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FleetAlarm {
    /// One of [`ALARMS`]: the label of a metric.
    pub reason: AlarmReason,
    /// What is wrong, with numbers and pods.
    pub message: String,
}

/// All reasons; an alarm that is missing in a plan is cleared.
pub const ALARMS: &[AlarmReason] = &[
    AlarmReason::BelowFloor,
    AlarmReason::FloorReached,
    AlarmReason::ForeignNo,
    AlarmReason::LedgerFull,
    AlarmReason::NoData,
    AlarmReason::NotListed,
    AlarmReason::OddSwitch,
    AlarmReason::OnePerNode,
    AlarmReason::Panic,
    AlarmReason::ReturnRefused,
    AlarmReason::SetBack,
    AlarmReason::Unclaimed,
    AlarmReason::UnknownListed,
    AlarmReason::WithheldForGood,
    AlarmReason::WritesRefused,
];

/// A pod's state after the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PodState {
    /// It serves.
    Serving,
    /// It has traffic=yes or no switch, but is not ready, terminating or unclaimed.
    NotServing,
    /// It could serve with traffic=yes, but no ready endpoint has named it for 5 s.
    NotListed,
    /// Silent, but listed.
    ListedUnknown,
    /// Being withheld.
    Leaving,
    /// Withheld.
    Withheld,
    /// Withheld until a person or a callback admits it.
    Paused,
    /// Being admitted, or not yet counted as serving.
    Returning,
    /// Being killed.
    Ending,
    /// Withheld by another writer.
    Foreign,
}

/// The next change of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NextStep {
    /// The change.
    pub what: &'static str,
    /// When, if only time is missing.
    pub at: Option<Timestamp>,
}

/// The explanation of one pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The pod.
    pub uid: Uid,
    /// Its name, for display.
    pub name: String,
    /// Its state.
    pub standing: PodState,
    /// The breaker or callback that objects, or withheld it.
    pub breaker: Option<String>,
    /// The breaker's rule, value and threshold, or the callback's reason.
    pub why: Option<String>,
    /// The gate's reason.
    pub decision: &'static str,
    /// The next change.
    pub next: Option<NextStep>,
    /// Number of withdrawals.
    pub retry_count: u32,
    /// When it was withheld.
    pub since: Option<Timestamp>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.decision)?;
        if let Some(breaker) = &self.breaker {
            write!(f, "; {breaker}")?;
        }
        if let Some(why) = &self.why {
            write!(f, ": {why}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "; next: {}", next.what)?;
            next.at.iter().try_for_each(|at| write!(f, " at {at}"))?;
        }
        Ok(())
    }
}

/// In order of the UID.
pub(super) fn explanations(planning: &Planning<'_>) -> Vec<Explanation> {
    let (hold, places) = (breaker::hold(planning), Places::of(&planning.assessment));
    let all = planning.assessment.candidates.iter();
    all.filter_map(|candidate| explain(planning, candidate, hold, &places)).collect()
}

fn explain(
    planning: &Planning<'_>,
    candidate: &Candidate<'_>,
    hold: Option<&str>,
    places: &Places,
) -> Option<Explanation> {
    let slot = planning.assessment.slot_of(candidate);
    let fine = candidate.serving && candidate.objection.is_none() && candidate.rehearsed.is_none();
    let fine = fine && candidate.pod.refusal.is_none() && candidate.asked.is_none();
    if slot.is_none() && fine {
        return None;
    }
    let (standing, decision) = match slot {
        Some(slot) => (state_of(slot), slot.reason),
        None => without_entry(planning, candidate, hold, places),
    };
    let objection = candidate.objection.as_ref();
    let asked = candidate.asked.map(|_| PERSON);
    let breaker = slot.map(|slot| slot.entry.breaker.as_str()).or(asked).or(objection.map(|it| it.breaker));
    let asked = candidate.asked.map(|asked| asked.reason.to_owned());
    let why = asked.or_else(|| objection.map(|it| breaker::describe(it.opinion)));
    let why = why.or_else(|| slot.map(|slot| slot.entry.reason.clone()));
    let refused = candidate.pod.refusal.as_ref().map(|refusal| format!("refused: {refusal}"));
    let fight = fight::describe(planning, candidate).map(|fight| format!("set back {fight}"));
    let why = why.into_iter().chain(refused).chain(fight).reduce(|why, more| format!("{why}; {more}"));
    let remembered = candidate.returned.map(|returned| returned.retry_count);
    Some(Explanation {
        uid: candidate.pod.uid.clone(),
        name: candidate.pod.name.clone(),
        standing,
        breaker: breaker.or(candidate.rehearsed).map(str::to_owned),
        why,
        decision,
        next: slot.map_or_else(|| request::end(candidate).map(timed), next_step),
        retry_count: slot.map(|slot| slot.entry.retry_count).or(remembered).unwrap_or(0),
        since: slot.map(|slot| slot.entry.break_at),
    })
}

fn state_of(slot: &EntryAssessment<'_>) -> PodState {
    match slot.decision {
        EntryDecision::Withhold => PodState::Leaving,
        EntryDecision::Cancel | EntryDecision::Admit | EntryDecision::Release(ReleaseReason::Admitted) => {
            PodState::Returning
        }
        EntryDecision::Kill => PodState::Ending,
        EntryDecision::Release(ReleaseReason::Foreign) => PodState::Foreign,
        EntryDecision::Release(ReleaseReason::Gone | ReleaseReason::Replaced) => PodState::NotServing,
        EntryDecision::Keep | EntryDecision::Wait | EntryDecision::Pause => match slot.entry.state {
            EntryState::Paused | EntryState::Pausing => PodState::Paused,
            EntryState::Killing => PodState::Ending,
            EntryState::Reserved | EntryState::Cancelling => PodState::Returning,
            EntryState::Withheld => PodState::Withheld,
        },
    }
}

fn next_step(slot: &EntryAssessment<'_>) -> Option<NextStep> {
    let what = match slot.decision {
        EntryDecision::Keep => return slot.due.map(timed),
        EntryDecision::Pause => "paused",
        EntryDecision::Kill => "killed",
        EntryDecision::Cancel | EntryDecision::Admit => "serving",
        EntryDecision::Withhold | EntryDecision::Wait | EntryDecision::Release(_) => return None,
    };
    Some(NextStep { what, at: None })
}

fn timed((what, at): Due) -> NextStep {
    NextStep { what, at: Some(at) }
}

/// State and reason of a pod without an entry.
fn without_entry(
    planning: &Planning<'_>,
    candidate: &Candidate<'_>,
    hold: Option<&str>,
    places: &Places,
) -> (PodState, &'static str) {
    let pod = candidate.pod;
    if pod.terminating {
        return (PodState::NotServing, "it is being deleted");
    }
    if !pod.selected {
        return (PodState::NotServing, "the Service selects it no more");
    }
    match pod.traffic {
        Traffic::No | Traffic::Pause => {
            return (PodState::Foreign, "withheld by another writer: left unchanged");
        }
        Traffic::Other => return (PodState::Foreign, "its switch has a value that is not ours"),
        Traffic::Unlabelled => return (PodState::NotServing, "it has no switch yet: to be claimed"),
        Traffic::Yes => {}
    }
    if candidate.silent() {
        return (PodState::ListedUnknown, "silent, but listed: the floor or the panic threshold keeps it");
    }
    if !pod.ready {
        return (PodState::NotServing, "it is not ready");
    }
    if pod.claim_refused() {
        return (
            PodState::Serving,
            "it cannot be claimed: it counts while it is listed, and is never withheld",
        );
    }
    if candidate.joining {
        return (PodState::Returning, "it may take traffic, but no ready endpoint names it yet");
    }
    if !candidate.serving {
        return (PodState::NotListed, "ready, but no ready endpoint names it: it does not count for a cut");
    }
    if let Some(why) = request::explained(planning, candidate, hold, places) {
        return (PodState::Serving, why);
    }
    if candidate.objection.is_none() && pod.refusal.is_some() {
        return (PodState::Serving, "the API server refused the last write to it");
    }
    if breaker::refused(candidate) {
        return (PodState::Serving, "bad, but the API server refuses to withhold it: tried again");
    }
    if candidate.objection.is_none() {
        return (PodState::Serving, "it would be withheld, but its breaker has dryRun");
    }
    if breaker::spared(candidate, planning.now) {
        let fight = fight::describe(planning, candidate).is_some();
        let why = match fight {
            true => "bad, but in a fight with another manager: left alone for longer each time",
            false => "bad, but another client admitted it: not withheld for one activator period",
        };
        return (PodState::Serving, why);
    }
    if hold.is_some() {
        return (PodState::Serving, "bad, but nothing is withheld at the moment (see the plan's hold)");
    }
    if places.is_last(candidate) {
        return (PodState::Serving, "bad, but no other pod serves on its node (keepOnePerNode)");
    }
    if planning.full {
        return (PodState::Serving, "bad, but the ledger is full");
    }
    (PodState::Serving, "bad, but the floor allows no more to be withheld")
}

/// In order of the reason.
pub(super) fn alarms(planning: &Planning<'_>) -> Vec<FleetAlarm> {
    let budget = &planning.budget;
    let mut alarms = Vec::new();
    let mut raise = |reason, pods: Vec<usize>, what: &str| {
        if !pods.is_empty() {
            let first = pods.iter().take(5).filter_map(|&at| planning.assessment.candidates.get(at));
            let names = first.map(|candidate| candidate.pod.name.as_str()).collect::<Vec<_>>().join(", ");
            alarms.push(FleetAlarm { reason, message: format!("{} {what}: {names}", pods.len()) });
        }
    };
    let without_entry = |values: &[Traffic]| {
        planning.indices(|candidate| {
            candidate.slot.is_none() && !candidate.pod.terminating && values.contains(&candidate.pod.traffic)
        })
    };
    raise(AlarmReason::ForeignNo, without_entry(&[Traffic::No, Traffic::Pause]), "withheld, but not by us");
    let odd = without_entry(&[Traffic::Other]);
    raise(AlarmReason::OddSwitch, odd, "with a traffic switch that is neither yes, no nor pause");
    raise(
        AlarmReason::Unclaimed,
        planning.unclaimed.clone(),
        "not claimed yet; nothing is withheld until they are",
    );
    let unlisted = planning.indices(|candidate| {
        let free = planning.assessment.slot_of(candidate).is_none_or(|slot| !slot.held());
        free && candidate.routable() && !candidate.serving && !candidate.joining
    });
    raise(AlarmReason::NotListed, unlisted, "ready, but in no ready endpoint of the Service");
    let silent = planning.indices(|candidate| candidate.silent() && breaker::listed(candidate));
    raise(
        AlarmReason::UnknownListed,
        silent,
        "silent, but still listed: taking them out would break the floor or the panic threshold",
    );
    let places = Places::of(&planning.assessment);
    let bad = planning
        .indices(|candidate| breaker::bad_and_serving(candidate, planning.now) && !places.is_last(candidate));
    if let Some(pods) = place::inert(&planning.assessment) {
        let all = planning.indices(|candidate| candidate.pod.place.is_some());
        raise(
            AlarmReason::OnePerNode,
            all,
            &format!("of {pods} pods, each the only one of its node: none can be withheld"),
        );
    }
    if planning.full {
        raise(AlarmReason::LedgerFull, bad, "bad, but the ledger takes no more");
    } else if breaker::hold(planning).is_none() {
        raise(AlarmReason::FloorReached, bad, &format!("bad, but still serving: {budget}"));
    }
    alarms.extend(fleet_alarms(planning));
    alarms.extend(refusal_alarms(planning));
    let fights = fight::message(planning);
    alarms.extend(fights.map(|message| FleetAlarm { reason: AlarmReason::SetBack, message }));
    alarms.sort_by_key(|alarm| alarm.reason);
    alarms
}

/// Pods whose last write was refused, and those of them that get no traffic because of it, with the server's sentences.
fn refusal_alarms(planning: &Planning<'_>) -> Vec<FleetAlarm> {
    let dark = |candidate: &Candidate<'_>| {
        let unlabelled = candidate.pod.claim_refused() && candidate.pod.traffic == Traffic::Unlabelled;
        let held = candidate.slot.is_some() && candidate.pod.traffic != Traffic::Yes;
        let to_return = candidate.pod.refusal.as_ref().is_some_and(|refusal| refusal.verb == Verb::Admit);
        unlabelled || held && to_return
    };
    let all = [
        (AlarmReason::WritesRefused, planning.indices(|it| it.pod.refusal.is_some()), "not written to"),
        (
            AlarmReason::ReturnRefused,
            planning.indices(|it| it.pod.refusal.is_some() && dark(it)),
            "WITHOUT TRAFFIC, because the API server refuses to give it to them",
        ),
    ];
    let raised = all.into_iter().filter(|(_, pods, _)| !pods.is_empty()).map(|(reason, pods, what)| {
        let first = pods.iter().take(5).filter_map(|&at| planning.assessment.candidates.get(at));
        let each = first.filter_map(|candidate| {
            Some(format!("{}: {}", candidate.pod.name, candidate.pod.refusal.as_ref()?))
        });
        let each = each.collect::<Vec<_>>().join("; ");
        FleetAlarm { reason, message: format!("{} {what}: {each}", pods.len()) }
    });
    raised.collect()
}

fn fleet_alarms(planning: &Planning<'_>) -> Vec<FleetAlarm> {
    let (budget, share) = (&planning.budget, planning.share);
    let below = budget.missing() > 0 && budget.existing > 0;
    let blind = planning.evidence.blind.iter().map(|(breaker, reasons)| match reasons.to_string() {
        reasons if reasons.is_empty() => (*breaker).to_owned(),
        reasons => format!("{breaker} ({reasons})"),
    });
    let blind = blind.collect::<Vec<_>>().join(", ");
    let all = [
        (
            AlarmReason::BelowFloor,
            below,
            format!("{} of {} serve, the floor is {}", budget.serving, budget.existing, budget.floor),
        ),
        (
            AlarmReason::Panic,
            planning.panic.is_some(),
            format!(
                "{} of {} pods look bad (threshold {} %): nothing is withheld, and what was comes back; \
                 look at the signal, or at what all pods share",
                share.bad, share.of, share.threshold
            ),
        ),
        (AlarmReason::NoData, !blind.is_empty(), format!("too few pods have a verdict from: {blind}")),
        (
            AlarmReason::WithheldForGood,
            planning.unkillable > 0,
            format!(
                "{} to be killed, but the sink cannot or they have no controller: they stay withheld",
                planning.unkillable
            ),
        ),
    ];
    let raised = all.into_iter().filter(|(_, raised, _)| *raised);
    raised.map(|(reason, _, message)| FleetAlarm { reason, message }).collect()
}
