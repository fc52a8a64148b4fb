//! Why a pod is or is not withheld, in numbers.
//!
//! Kept as values and put into words only when somebody asks: a plan over ten thousand pods must not
//! write ten thousand sentences. A pod that serves and that nobody objects to has no entry here.

use std::fmt;

use serde::Serialize;

use super::{
    assessment::{Candidate, EntryAssessment, EntryDecision, ReleaseReason},
    breaker,
    ledger::EntryState,
    planning::Planning,
};
use crate::decide::{
    alarm_reason::AlarmReason,
    fleet::{Traffic, Uid},
    time::Timestamp,
};

/// What a human must know of the whole fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FleetAlarm {
    /// Which one.
    pub reason: AlarmReason,
    /// What, where, what to do.
    pub message: String,
}

/// Every reason that a plan may alarm with; what is not in a plan's alarms is to be cleared.
pub const ALARMS: &[AlarmReason] = &[
    AlarmReason::BelowFloor,
    AlarmReason::FloorReached,
    AlarmReason::ForeignNo,
    AlarmReason::LedgerFull,
    AlarmReason::NoData,
    AlarmReason::OddSwitch,
    AlarmReason::Panic,
    AlarmReason::Unclaimed,
    AlarmReason::UnknownListed,
    AlarmReason::WithheldForGood,
];

/// Where a pod stands after the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PodState {
    /// It serves.
    Serving,
    /// It would serve, but is not ready, is deleted, or is not yet counted.
    NotServing,
    /// Silent, and listed all the same.
    ListedUnknown,
    /// On its way out.
    Leaving,
    /// Out.
    Withheld,
    /// Out until somebody says otherwise.
    Paused,
    /// On its way back.
    Returning,
    /// About to end.
    Ending,
    /// Somebody else took it out.
    Foreign,
}

/// What happens to it next, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NextStep {
    /// What.
    pub what: &'static str,
    /// When, if time alone decides.
    pub at: Option<Timestamp>,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Which.
    pub uid: Uid,
    /// For people.
    pub name: String,
    /// Where it stands.
    pub standing: PodState,
    /// The breaker or callback that objects, or withheld it.
    pub breaker: Option<String>,
    /// Its rule, value and threshold, or the callback's reason.
    pub why: Option<String>,
    /// Why this and not that, by the gate.
    pub decision: &'static str,
    /// What is next.
    pub next: Option<NextStep>,
    /// How often it was cut.
    pub retry_count: u32,
    /// Since when.
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

/// Every pod that does not simply serve, in order of its UID.
pub(super) fn explanations(planning: &Planning<'_>) -> Vec<Explanation> {
    let hold = breaker::hold(planning);
    planning.assessment.candidates.iter().filter_map(|candidate| explain(planning, candidate, hold)).collect()
}

fn explain(planning: &Planning<'_>, candidate: &Candidate<'_>, hold: Option<&str>) -> Option<Explanation> {
    let slot = candidate.slot.and_then(|slot| planning.assessment.slots.get(slot));
    let plain = candidate.serving && candidate.objection.is_none() && candidate.rehearsed.is_none();
    if slot.is_none() && plain {
        return None;
    }
    let (standing, decision) = match slot {
        Some(slot) => (standing_of(slot), slot.reason),
        None => free(planning, candidate, hold),
    };
    let objection = candidate.objection.as_ref();
    let breaker = slot.map(|slot| slot.entry.breaker.as_str()).or(objection.map(|word| word.breaker));
    let why =
        objection.map(|word| breaker::said(word.opinion)).or(slot.map(|slot| slot.entry.reason.clone()));
    let remembered = candidate.returned.map(|returned| returned.retry_count);
    Some(Explanation {
        uid: candidate.pod.uid.clone(),
        name: candidate.pod.name.clone(),
        standing,
        breaker: breaker.or(candidate.rehearsed).map(str::to_owned),
        why,
        decision,
        next: slot.and_then(next_step),
        retry_count: slot.map(|slot| slot.entry.retry_count).or(remembered).unwrap_or(0),
        since: slot.map(|slot| slot.entry.break_at),
    })
}

fn standing_of(slot: &EntryAssessment<'_>) -> PodState {
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
        EntryDecision::Keep => return slot.due.map(|(what, at)| NextStep { what, at: Some(at) }),
        EntryDecision::Pause => "paused",
        EntryDecision::Kill => "killed",
        EntryDecision::Cancel | EntryDecision::Admit => "serving",
        EntryDecision::Withhold | EntryDecision::Wait | EntryDecision::Release(_) => return None,
    };
    Some(NextStep { what, at: None })
}

/// Why a pod without an entry is as it is.
fn free(planning: &Planning<'_>, candidate: &Candidate<'_>, hold: Option<&str>) -> (PodState, &'static str) {
    let pod = candidate.pod;
    if pod.terminating {
        return (PodState::NotServing, "it is being deleted");
    }
    match pod.traffic {
        Traffic::No | Traffic::Pause => {
            return (PodState::Foreign, "somebody else withholds it: left as it is");
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
    if !candidate.serving {
        return (PodState::Returning, "it has its traffic back, but the load balancer does not show it yet");
    }
    if candidate.objection.is_none() {
        return (PodState::Serving, "it would be withheld, but its breaker only rehearses");
    }
    if breaker::spared(candidate, planning.now) {
        return (
            PodState::Serving,
            "bad, but it was given its traffic back a moment ago: spared for one period",
        );
    }
    if hold.is_some() {
        return (PodState::Serving, "bad, but nothing is withheld at the moment (see the plan's hold)");
    }
    if planning.full {
        return (PodState::Serving, "bad, but the ledger is full");
    }
    (PodState::Serving, "bad, but the floor allows no more to be withheld")
}

/// What a human must know now.
pub(super) fn alarms(planning: &Planning<'_>) -> Vec<FleetAlarm> {
    let budget = &planning.budget;
    let mut alarms = Vec::new();
    let mut raise = |reason, pods: Vec<usize>, what: &str| {
        if !pods.is_empty() {
            let some: Vec<_> =
                pods.iter().take(5).filter_map(|&at| planning.assessment.candidates.get(at)).collect();
            let some =
                some.iter().map(|candidate| candidate.pod.name.as_str()).collect::<Vec<_>>().join(", ");
            alarms.push(FleetAlarm { reason, message: format!("{} {what}: {some}", pods.len()) });
        }
    };
    let free_of = |so: fn(Traffic) -> bool| {
        planning.places(|candidate| {
            candidate.slot.is_none() && !candidate.pod.terminating && so(candidate.pod.traffic)
        })
    };
    raise(
        AlarmReason::ForeignNo,
        free_of(|t| matches!(t, Traffic::No | Traffic::Pause)),
        "withheld, but not by us",
    );
    raise(
        AlarmReason::OddSwitch,
        free_of(|t| t == Traffic::Other),
        "with a traffic switch that is neither yes, no nor pause",
    );
    raise(
        AlarmReason::Unclaimed,
        planning.claims.clone(),
        "not claimed yet; nothing is withheld until they are",
    );
    let silent = planning.places(|candidate| candidate.silent() && breaker::listed(candidate));
    raise(
        AlarmReason::UnknownListed,
        silent,
        "silent, but still listed: taking them out would break the floor or the panic threshold",
    );
    let held = breaker::hold(planning).is_some();
    let bad = planning.places(|candidate| {
        candidate.serving
            && candidate.objection.is_some()
            && breaker::listed(candidate)
            && !breaker::spared(candidate, planning.now)
    });
    if planning.full {
        raise(AlarmReason::LedgerFull, bad, "bad, but the ledger takes no more");
    } else if !held {
        raise(AlarmReason::FloorReached, bad, &format!("bad, but still serving: {budget}"));
    }
    alarms.extend(fleet_alarms(planning));
    alarms.sort_by_key(|alarm| alarm.reason);
    alarms
}

fn fleet_alarms(planning: &Planning<'_>) -> Vec<FleetAlarm> {
    let (budget, share) = (&planning.budget, planning.share);
    let below = budget.missing() > 0 && budget.existing > 0;
    let blind = planning.source_evidence.blind.join(", ");
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
            planning.for_good > 0,
            format!("{} to be killed; nothing here can, so they stay withheld", planning.for_good),
        ),
    ];
    let up = all.into_iter().filter(|(_, up, _)| *up);
    up.map(|(reason, _, message)| FleetAlarm { reason, message }).collect()
}
