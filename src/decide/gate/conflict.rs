//! Two managers of one label: a client that applies bare pods with `kubervisor/traffic: "yes"` undoes each withdrawal.

use super::{assessment::Candidate, planning::Planning};

/// From this many withdrawals in succession on, each undone within one activator period, it is told.
pub const CONFLICT: u8 = 3;

/// Pods that are set back again and again, with the managers that do it.
pub(super) fn told(planning: &Planning<'_>) -> Option<String> {
    let count = |candidate: &Candidate<'_>| set_backs(planning, candidate).filter(|count| *count >= CONFLICT);
    let pods = planning.indices(|candidate| count(candidate).is_some());
    let first = pods.iter().take(5).filter_map(|&at| planning.assessment.candidates.get(at));
    let each = first.map(|candidate| {
        let by = candidate.pod.set_by.as_deref().unwrap_or("another client");
        format!("{} ({} times, by {by})", candidate.pod.name, count(candidate).unwrap_or_default())
    });
    let each = each.collect::<Vec<_>>().join(", ");
    let message = format!("{} set back to yes soon after each withdrawal: {each}", pods.len());
    (!pods.is_empty()).then_some(message)
}

/// How often in succession it was set back; `None`: not any more, or long ago.
fn set_backs(planning: &Planning<'_>, candidate: &Candidate<'_>) -> Option<u8> {
    if let Some(slot) = planning.assessment.slot_of(candidate) {
        return Some(slot.entry.set_backs);
    }
    let returned = candidate.returned?;
    let spared = returned.spare_until? + planning.policy.activator(&returned.breaker).period;
    (candidate.objection.is_some() || spared > planning.now).then_some(returned.set_backs)
}
