//! Withheld pods that another client sets back to `yes`: how long they are spared, and which of their withdrawals count.
//!
//! Only a return by its activator counts a withdrawal as a retry; whatever else brings a pod back says nothing about it.

use super::entry_assessment::EntryAssessment;
use crate::decide::{fleet::PodView, policy::Policy, time::Timestamp};

/// Another client set the entry's pod back: it is spared for one period.
pub(super) fn note(slot: &mut EntryAssessment<'_>, now: Timestamp, policy: &Policy) {
    let period = policy.activator(&slot.entry.breaker).period;
    let entry = slot.entry.to_mut();
    let soon = now.since(entry.break_at) <= period;
    entry.set_backs = if soon { entry.set_backs.saturating_add(1) } else { 0 };
    entry.spare = Some(u64::try_from(period.as_millis()).unwrap_or(u64::MAX));
}

/// Before an entry is released because its pod serves under a newer fence: how many of its withdrawals still count. Only a
/// return by its activator counts its withdrawal as a retry; our write of any other return has lowered the count on the pod.
pub(super) fn on_return(slot: &mut EntryAssessment<'_>, pod: &PodView, now: Timestamp, policy: &Policy) {
    let admitted = pod.admitted_at.is_some_and(|at| at >= slot.entry.break_at);
    if admitted {
        let retry_count = pod.retry_count.map_or(slot.entry.retry_count, |kept| kept.min(slot.entry.retry_count));
        let entry = slot.entry.to_mut();
        (entry.retry_count, entry.set_backs) = (retry_count, 0);
        return;
    }
    // Replaced as a whole, it was claimed again: then it had no time to be cancelled.
    if slot.entry.state.landed() {
        note(slot, now, policy);
    }
    let entry = slot.entry.to_mut();
    entry.retry_count = entry.earlier_retries();
}
