//! Withheld pods that another manager sets back to `yes`: how long they are left alone, and which withdrawals count.
//!
//! Without a back-off two managers of one label write against each other for ever, such as the gate and a client that applies
//! bare pods with `kubervisor/traffic: "yes"`. Only a return by its activator counts a withdrawal as a retry; any other return
//! says nothing about the pod.

use std::time::Duration;

use super::entry_assessment::EntryAssessment;
use crate::decide::{fleet::PodView, policy::Policy, time::Timestamp};

/// Set back that often in succession, each time within one activator period of the withdrawal, it is a fight.
pub const FIGHT: u8 = 3;
/// Doublings of the time for which a pod is left alone, at most.
const MAX_DOUBLINGS: u32 = 5;

/// Another manager set the entry's pod back: it is left alone for one period, in a fight for longer each time.
pub(super) fn note(slot: &mut EntryAssessment<'_>, now: Timestamp, policy: &Policy) {
    let period = policy.activator(&slot.entry.breaker).period;
    let entry = slot.entry.to_mut();
    let soon = now.since(entry.break_at) <= period;
    entry.set_backs = if soon { entry.set_backs.saturating_add(1) } else { 0 };
    let alone = left_alone(entry.set_backs, period);
    entry.spare = Some(u64::try_from(alone.as_millis()).unwrap_or(u64::MAX));
}

fn left_alone(set_backs: u8, period: Duration) -> Duration {
    let doublings = u32::from(set_backs.saturating_sub(FIGHT - 1)).min(MAX_DOUBLINGS);
    period.saturating_mul(1 << doublings)
}

/// Before an entry is released because its pod serves under a newer fence: how many of its withdrawals still count. Our
/// write of a return that is not the activator's has lowered the count on the pod.
pub(super) fn on_return(slot: &mut EntryAssessment<'_>, pod: &PodView, now: Timestamp, policy: &Policy) {
    let admitted = pod.admitted_at.is_some_and(|at| at >= slot.entry.break_at);
    if admitted {
        let retry_count =
            pod.retry_count.map_or(slot.entry.retry_count, |kept| kept.min(slot.entry.retry_count));
        let entry = slot.entry.to_mut();
        (entry.retry_count, entry.set_backs) = (retry_count, 0);
        return;
    }
    // A pod that was replaced as a whole is claimed anew, and its withdrawal is never cancelled.
    if slot.entry.state.landed() {
        note(slot, now, policy);
    }
    let entry = slot.entry.to_mut();
    entry.retry_count = entry.earlier_retries();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_left_alone_for_one_period_and_in_a_fight_for_twice_as_long_each_time() {
        let minutes = |set_backs| left_alone(set_backs, Duration::from_secs(60)).as_secs() / 60;
        let all: Vec<_> = [0, 1, 2, 3, 4, 5, 6, 7, 8, 200].into_iter().map(minutes).collect();
        assert_eq!(all, [1, 1, 1, 2, 4, 8, 16, 32, 32, 32]);
        assert_eq!(minutes(u8::MAX), 32, "no overflow");
    }
}
