//! Alarms about a fleet: what a person has to know, with numbers and pods.

use serde::Serialize;

use super::{
    action::Verb,
    assessment::Candidate,
    breaker, fight,
    place::{self, Places},
    planning::Planning,
};
use crate::decide::{alarm_reason::AlarmReason, fleet::Traffic};

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

/// In order of the reason.
pub(super) fn alarms(planning: &Planning<'_>) -> Vec<FleetAlarm> {
    let mut alarms = pod_alarms(planning);
    alarms.extend(bad_and_serving(planning));
    alarms.extend(number_alarms(planning));
    alarms.extend(refusal_alarms(planning));
    let fights = fight::message(planning);
    alarms.extend(fights.map(|message| FleetAlarm { reason: AlarmReason::SetBack, message }));
    alarms.sort_by_key(|alarm| alarm.reason);
    alarms
}

/// An alarm that counts `pods` and names the first five; `None` without any.
fn named(planning: &Planning<'_>, reason: AlarmReason, pods: &[usize], what: &str) -> Option<FleetAlarm> {
    let first = pods.iter().take(5).filter_map(|&at| planning.assessment.candidates.get(at));
    let names = first.map(|candidate| candidate.pod.name.as_str()).collect::<Vec<_>>().join(", ");
    (!pods.is_empty()).then(|| FleetAlarm { reason, message: format!("{} {what}: {names}", pods.len()) })
}

/// Pods in a state that a person may have to end.
fn pod_alarms(planning: &Planning<'_>) -> Vec<FleetAlarm> {
    let without_entry = |values: &[Traffic]| {
        planning.indices(|candidate| {
            candidate.slot.is_none() && !candidate.pod.terminating && values.contains(&candidate.pod.traffic)
        })
    };
    let unlisted = planning.indices(|candidate| {
        let free = planning.assessment.slot_of(candidate).is_none_or(|slot| !slot.held());
        free && candidate.routable() && !candidate.serving && !candidate.joining
    });
    let silent = planning.indices(|candidate| candidate.silent() && breaker::listed(candidate));
    let all = [
        (AlarmReason::ForeignNo, without_entry(&[Traffic::No, Traffic::Pause]), "withheld, but not by us"),
        (
            AlarmReason::OddSwitch,
            without_entry(&[Traffic::Other]),
            "with a traffic switch that is neither yes, no nor pause",
        ),
        (
            AlarmReason::Unclaimed,
            planning.unclaimed.clone(),
            "not claimed yet; nothing is withheld until they are",
        ),
        (AlarmReason::NotListed, unlisted, "ready, but in no ready endpoint of the Service"),
        (
            AlarmReason::UnknownListed,
            silent,
            "silent, but still listed: taking them out would break the floor or the panic threshold",
        ),
    ];
    all.into_iter().filter_map(|(reason, pods, what)| named(planning, reason, &pods, what)).collect()
}

/// Bad pods that go on serving, by what keeps them.
fn bad_and_serving(planning: &Planning<'_>) -> Vec<FleetAlarm> {
    let places = Places::of(&planning.assessment);
    let bad = planning
        .indices(|candidate| breaker::bad_and_serving(candidate, planning.now) && !places.is_last(candidate));
    let one_per_node = place::inert(&planning.assessment).and_then(|pods| {
        let placed = planning.indices(|candidate| candidate.pod.place.is_some());
        let what = format!("of {pods} pods, each the only one of its node: none can be withheld");
        named(planning, AlarmReason::OnePerNode, &placed, &what)
    });
    let kept = if planning.full {
        named(planning, AlarmReason::LedgerFull, &bad, "bad, but the ledger takes no more")
    } else if breaker::hold(planning).is_none() {
        let what = format!("bad, but still serving: {}", planning.budget);
        named(planning, AlarmReason::FloorReached, &bad, &what)
    } else {
        None
    };
    one_per_node.into_iter().chain(kept).collect()
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

/// Alarms about numbers of the whole fleet.
fn number_alarms(planning: &Planning<'_>) -> Vec<FleetAlarm> {
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
