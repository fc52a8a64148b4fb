//! Fights: pods that another manager has set back to `yes` [`FIGHT`] times in succession, and who that is.

use super::{assessment::Candidate, planning::Planning, set_back::FIGHT};

/// The pods of fights, with the managers that set them back.
pub(super) fn message(planning: &Planning<'_>) -> Option<String> {
    let pods = planning.indices(|candidate| describe(planning, candidate).is_some());
    let first = pods.iter().take(5).filter_map(|&at| planning.assessment.candidates.get(at));
    let each = first
        .filter_map(|candidate| Some(format!("{}: {}", candidate.pod.name, describe(planning, candidate)?)));
    let each = each.collect::<Vec<_>>().join("; ");
    let message =
        format!("{} set back to yes again and again, left alone for longer each time: {each}", pods.len());
    (!pods.is_empty()).then_some(message)
}

/// How often the pod was set back, and by whom; `None`: it is no fight, or it was long ago.
pub(super) fn describe(planning: &Planning<'_>, candidate: &Candidate<'_>) -> Option<String> {
    let count = match planning.assessment.slot_of(candidate) {
        Some(slot) => slot.entry.set_backs,
        None => {
            let returned = candidate.returned?;
            let period = planning.policy.activator(&returned.breaker).period;
            let recent = returned.spare_until.is_some_and(|until| until + period > planning.now);
            returned.set_backs * u8::from(recent || candidate.objection.is_some())
        }
    };
    let by = candidate.pod.set_by.as_deref().unwrap_or("another client, or an admission policy");
    (count >= FIGHT).then(|| format!("{count} times in succession by {by}"))
}
