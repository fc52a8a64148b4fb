//! Why a pod is or is not withheld, as a reason in words.
//!
//! Kept as values; the text is made on request, because a plan may cover ten thousand pods. A pod that
//! serves and has no objection has no explanation.

use std::fmt;

use serde::Serialize;

use super::{
    assessment::{Candidate, Due, EntryAssessment, EntryDecision, ReleaseReason},
    breaker, fight,
    ledger::{EntryState, PERSON},
    place::Places,
    planning::Planning,
    request,
};
use crate::decide::{
    fleet::{Traffic, Uid},
    time::Timestamp,
};

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
    without_traffic(candidate)
        .unwrap_or_else(|| (PodState::Serving, with_traffic(planning, candidate, hold, places)))
}

/// State and reason of a pod that the Service does not certainly send to; `None` for a pod that serves.
fn without_traffic(candidate: &Candidate<'_>) -> Option<(PodState, &'static str)> {
    let pod = candidate.pod;
    let state = match pod.traffic {
        _ if pod.terminating => (PodState::NotServing, "it is being deleted"),
        _ if !pod.selected => (PodState::NotServing, "the Service selects it no more"),
        Traffic::No | Traffic::Pause => (PodState::Foreign, "withheld by another writer: left unchanged"),
        Traffic::Other => (PodState::Foreign, "its switch has a value that is not ours"),
        Traffic::Unlabelled => (PodState::NotServing, "it has no switch yet: to be claimed"),
        Traffic::Yes if candidate.silent() => {
            (PodState::ListedUnknown, "silent, but listed: the floor or the panic threshold keeps it")
        }
        Traffic::Yes if !pod.ready => (PodState::NotServing, "it is not ready"),
        Traffic::Yes if pod.claim_refused() => {
            (PodState::Serving, "it cannot be claimed: it counts while it is listed, and is never withheld")
        }
        Traffic::Yes if candidate.joining => {
            (PodState::Returning, "it may take traffic, but no ready endpoint names it yet")
        }
        Traffic::Yes if !candidate.serving => {
            (PodState::NotListed, "ready, but no ready endpoint names it: it does not count for a cut")
        }
        Traffic::Yes => return None,
    };
    Some(state)
}

/// Why a serving pod is not withheld.
fn with_traffic(
    planning: &Planning<'_>,
    candidate: &Candidate<'_>,
    hold: Option<&str>,
    places: &Places,
) -> &'static str {
    if let Some(why) = request::explained(planning, candidate, hold, places) {
        return why;
    }
    if candidate.objection.is_none() && candidate.pod.refusal.is_some() {
        return "the API server refused the last write to it";
    }
    if breaker::refused(candidate) {
        return "bad, but the API server refuses to withhold it: tried again";
    }
    if candidate.objection.is_none() {
        return "it would be withheld, but its breaker has dryRun";
    }
    if breaker::spared(candidate, planning.now) {
        return match fight::describe(planning, candidate) {
            Some(_) => "bad, but in a fight with another manager: left alone for longer each time",
            None => "bad, but another client admitted it: not withheld for one activator period",
        };
    }
    if hold.is_some() {
        return "bad, but nothing is withheld at the moment (see the plan's hold)";
    }
    if places.is_last(candidate) {
        return "bad, but no other pod serves on its node (keepOnePerNode)";
    }
    if planning.full {
        return "bad, but the ledger is full";
    }
    "bad, but the floor allows no more to be withheld"
}
