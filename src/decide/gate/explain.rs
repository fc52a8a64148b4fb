//! Why a pod is or is not withheld, in numbers.
//!
//! Kept as values and put into words only when somebody asks: a plan over ten thousand pods must not
//! write ten thousand sentences. A pod that serves and that nobody objects to has no entry here.

use std::fmt;

use serde::Serialize;

use super::{
    breaker,
    draft::Draft,
    ledger::State,
    survey::{Fate, Over, Slot, Subject},
};
use crate::decide::{
    fleet::{Traffic, Uid},
    time::Timestamp,
};

/// What a human must know of the whole fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// Static: it labels a metric.
    pub reason: &'static str,
    /// What, where, what to do.
    pub message: String,
}

/// Every reason that a plan may alarm with; what is not in a plan's alarms is to be cleared.
pub const ALARMS: &[&str] = &[
    "below_floor",
    "floor_reached",
    "foreign_no",
    "ledger_full",
    "no_data",
    "odd_switch",
    "panic",
    "unclaimed",
    "unknown_listed",
    "withheld_for_good",
];

/// Where a pod stands after the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
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
    pub standing: Standing,
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
pub(super) fn explanations(draft: &Draft<'_>) -> Vec<Explanation> {
    let hold = breaker::hold(draft);
    draft.survey.subjects.iter().filter_map(|subject| explain(draft, subject, hold)).collect()
}

fn explain(draft: &Draft<'_>, subject: &Subject<'_>, hold: Option<&str>) -> Option<Explanation> {
    let slot = subject.slot.and_then(|slot| draft.survey.slots.get(slot));
    let plain = subject.serving && subject.objection.is_none() && subject.rehearsed.is_none();
    if slot.is_none() && plain {
        return None;
    }
    let (standing, decision) = match slot {
        Some(slot) => (standing_of(slot), slot.decision),
        None => free(draft, subject, hold),
    };
    let objection = subject.objection.as_ref();
    let breaker = slot.map(|slot| slot.entry.breaker.as_str()).or(objection.map(|word| word.breaker));
    let why =
        objection.map(|word| breaker::said(word.opinion)).or(slot.map(|slot| slot.entry.reason.clone()));
    let remembered = subject.returned.map(|returned| returned.retry_count);
    Some(Explanation {
        uid: subject.pod.uid.clone(),
        name: subject.pod.name.clone(),
        standing,
        breaker: breaker.or(subject.rehearsed).map(str::to_owned),
        why,
        decision,
        next: slot.and_then(next_step),
        retry_count: slot.map(|slot| slot.entry.retry_count).or(remembered).unwrap_or(0),
        since: slot.map(|slot| slot.entry.break_at),
    })
}

fn standing_of(slot: &Slot<'_>) -> Standing {
    match slot.fate {
        Fate::Withhold => Standing::Leaving,
        Fate::Cancel | Fate::Admit | Fate::Release(Over::Admitted) => Standing::Returning,
        Fate::Kill => Standing::Ending,
        Fate::Release(Over::Foreign) => Standing::Foreign,
        Fate::Release(Over::Gone | Over::Replaced) => Standing::NotServing,
        Fate::Keep | Fate::Wait | Fate::Pause => match slot.entry.state {
            State::Paused | State::Pausing => Standing::Paused,
            State::Killing => Standing::Ending,
            State::Reserved | State::Cancelling => Standing::Returning,
            State::Withheld => Standing::Withheld,
        },
    }
}

fn next_step(slot: &Slot<'_>) -> Option<NextStep> {
    let what = match slot.fate {
        Fate::Keep => return slot.due.map(|(what, at)| NextStep { what, at: Some(at) }),
        Fate::Pause => "paused",
        Fate::Kill => "killed",
        Fate::Cancel | Fate::Admit => "serving",
        Fate::Withhold | Fate::Wait | Fate::Release(_) => return None,
    };
    Some(NextStep { what, at: None })
}

/// Why a pod without an entry is as it is.
fn free(draft: &Draft<'_>, subject: &Subject<'_>, hold: Option<&str>) -> (Standing, &'static str) {
    let pod = subject.pod;
    if pod.terminating {
        return (Standing::NotServing, "it is being deleted");
    }
    match pod.traffic {
        Traffic::No | Traffic::Pause => {
            return (Standing::Foreign, "somebody else withholds it: left as it is");
        }
        Traffic::Other => return (Standing::Foreign, "its switch has a value that is not ours"),
        Traffic::Unlabelled => return (Standing::NotServing, "it has no switch yet: to be claimed"),
        Traffic::Yes => {}
    }
    if subject.silent() {
        return (Standing::ListedUnknown, "silent, but listed: the floor or the panic threshold keeps it");
    }
    if !pod.ready {
        return (Standing::NotServing, "it is not ready");
    }
    if !subject.serving {
        return (Standing::Returning, "it has its traffic back, but the load balancer does not show it yet");
    }
    if subject.objection.is_none() {
        return (Standing::Serving, "it would be withheld, but its breaker only rehearses");
    }
    if breaker::spared(subject, draft.now) {
        return (
            Standing::Serving,
            "bad, but it was given its traffic back a moment ago: spared for one period",
        );
    }
    if hold.is_some() {
        return (Standing::Serving, "bad, but nothing is withheld at the moment (see the plan's hold)");
    }
    if draft.full {
        return (Standing::Serving, "bad, but the ledger is full");
    }
    (Standing::Serving, "bad, but the floor allows no more to be withheld")
}

/// What a human must know now.
pub(super) fn alarms(draft: &Draft<'_>) -> Vec<Alarm> {
    let budget = &draft.budget;
    let mut alarms = Vec::new();
    let mut raise = |reason, pods: Vec<usize>, what: &str| {
        if !pods.is_empty() {
            let some: Vec<_> = pods.iter().take(5).filter_map(|&at| draft.survey.subjects.get(at)).collect();
            let some = some.iter().map(|subject| subject.pod.name.as_str()).collect::<Vec<_>>().join(", ");
            alarms.push(Alarm { reason, message: format!("{} {what}: {some}", pods.len()) });
        }
    };
    let free_of = |so: fn(Traffic) -> bool| {
        draft.places(|subject| subject.slot.is_none() && !subject.pod.terminating && so(subject.pod.traffic))
    };
    raise("foreign_no", free_of(|t| matches!(t, Traffic::No | Traffic::Pause)), "withheld, but not by us");
    raise(
        "odd_switch",
        free_of(|t| t == Traffic::Other),
        "with a traffic switch that is neither yes, no nor pause",
    );
    raise("unclaimed", draft.claims.clone(), "not claimed yet; nothing is withheld until they are");
    let silent = draft.places(|subject| subject.silent() && breaker::listed(subject));
    raise(
        "unknown_listed",
        silent,
        "silent, but still listed: taking them out would break the floor or the panic threshold",
    );
    let held = breaker::hold(draft).is_some();
    let bad = draft.places(|subject| {
        subject.serving
            && subject.objection.is_some()
            && breaker::listed(subject)
            && !breaker::spared(subject, draft.now)
    });
    if draft.full {
        raise("ledger_full", bad, "bad, but the ledger takes no more");
    } else if !held {
        raise("floor_reached", bad, &format!("bad, but still serving: {budget}"));
    }
    alarms.extend(fleet_alarms(draft));
    alarms.sort_by_key(|alarm| alarm.reason);
    alarms
}

fn fleet_alarms(draft: &Draft<'_>) -> Vec<Alarm> {
    let (budget, share) = (&draft.budget, draft.share);
    let below = budget.missing() > 0 && budget.existing > 0;
    let blind = draft.hearing.blind.join(", ");
    let all = [
        (
            "below_floor",
            below,
            format!("{} of {} serve, the floor is {}", budget.serving, budget.existing, budget.floor),
        ),
        (
            "panic",
            draft.panic.is_some(),
            format!(
                "{} of {} pods look bad (threshold {} %): nothing is withheld, and what was comes back; \
                 look at the signal, or at what all pods share",
                share.bad, share.of, share.threshold
            ),
        ),
        ("no_data", !blind.is_empty(), format!("too few pods have a verdict from: {blind}")),
        (
            "withheld_for_good",
            draft.for_good > 0,
            format!("{} to be killed; nothing here can, so they stay withheld", draft.for_good),
        ),
    ];
    let up = all.into_iter().filter(|(_, up, _)| *up);
    up.map(|(reason, _, message)| Alarm { reason, message }).collect()
}
