//! Fourth step: admits, pauses or kills each withheld pod by the activator of the breaker that withheld it.
//!
//! Only by that one, because the shortest period of all would override the others. A pod that its
//! detector still judges bad is not admitted by time alone: it would be withheld again at once.

use std::{collections::BTreeMap, time::Duration};

use super::{
    assessment::{Candidate, Due, EntryAssessment, EntryDecision, ReleaseReason},
    ledger::{Entry, EntryState, PERSON, SILENCE},
    planning::Planning,
};
use crate::decide::{
    fleet::Traffic,
    policy::{ActivatorMode, ActivatorStrategy},
    time::Timestamp,
    verdict::Call,
};

const ADMITTED_AGAIN: &str = "admitted again";
const HOUR: Duration = Duration::from_secs(3600);

/// When the wait ends: `period`, in the retry modes times the retry count and at most `maxPeriod`, plus a jitter that
/// depends on pod and retry count only.
pub fn due(entry: &Entry, activator: &ActivatorStrategy) -> Timestamp {
    let wait = match activator.mode {
        ActivatorMode::Periodic => activator.period,
        ActivatorMode::RetryAndKill | ActivatorMode::RetryAndPause => activator
            .period
            .saturating_mul(entry.retry_count.max(1))
            .min(activator.max_period.max(activator.period)),
    };
    let jitter = if activator.jitter.is_finite() { activator.jitter.clamp(0.0, 1.0) } else { 0.0 };
    let spread = jitter * unit_hash(entry.uid.as_str(), entry.retry_count);
    let longer = wait.as_secs_f64() * (1.0 + spread);
    entry.break_at + Duration::try_from_secs_f64(longer).unwrap_or(wait)
}

/// A number in 0..1, hashed from pod and retry count: the same in every process and every plan.
fn unit_hash(uid: &str, retry: u32) -> f64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in uid.bytes().chain(retry.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^= hash >> 32;
    let top = u32::try_from(hash >> 32).unwrap_or(0);
    f64::from(top) / (f64::from(u32::MAX) + 1.0)
}

/// Decides about every entry that has no decision yet.
pub(super) fn activate(planning: &mut Planning<'_>) {
    if planning.policy.paused {
        return planning.keep_all("paused by spec.paused or a person's request");
    }
    let mut due = Vec::new();
    let mut pauses = Pauses::count(planning);
    for index in 0..planning.assessment.slots.len() {
        let Some(candidate) = planning.undecided(index) else { continue };
        let useless = withdrawal_was_useless(planning, index);
        match decide_entry(planning, index, &candidate, useless) {
            ActivatorDecision::Keep(why, due) => planning.keep(index, why, due),
            ActivatorDecision::Admit(why) => {
                if candidate.is_asked_to(Call::Admit) {
                    planning.take_over(index);
                }
                planning.admit(index, why);
            }
            ActivatorDecision::Revert(why) => {
                let held = planning.assessment.slots.get(index).map(|slot| slot.entry.breaker.as_str());
                let until = held.map(|breaker| planning.now + planning.policy.activator(breaker).period);
                planning.reverted_until = planning.reverted_until.max(until);
                planning.admit(index, why);
            }
            ActivatorDecision::Due => due.push(index),
            ActivatorDecision::Pause => pauses.pause(planning, index),
            ActivatorDecision::Kill => kill(planning, index),
            ActivatorDecision::Exhausted if pauses.room(planning, index) => pauses.pause(planning, index),
            ActivatorDecision::Exhausted => kill(planning, index),
        }
    }
    admit_in_batches(planning, due);
}

/// The decision about one entry, before the limits of batches, pauses and kills.
enum ActivatorDecision {
    Keep(&'static str, Option<Due>),
    Admit(&'static str),
    /// Admit, and withhold nothing for one period.
    Revert(&'static str),
    /// Its period is over: admit within the limit of the batch.
    Due,
    Pause,
    Kill,
    /// The retries are used up.
    Exhausted,
}

fn decide_entry(
    planning: &Planning<'_>,
    index: usize,
    candidate: &Candidate<'_>,
    useless: bool,
) -> ActivatorDecision {
    let Some(slot) = planning.assessment.slots.get(index) else { return ActivatorDecision::Keep("", None) };
    let (entry, objection) = (&slot.entry, candidate.objection);
    let activator = planning.policy.activator(&entry.breaker);
    if let Some(decision) = decide_on_request(entry, candidate) {
        return decision;
    }
    match entry.state {
        EntryState::Paused if entry.human => return ActivatorDecision::Keep("paused by a person", None),
        EntryState::Paused if candidate.admit && objection.is_none() => {
            return ActivatorDecision::Admit("admitted by a callback");
        }
        EntryState::Paused => {
            return ActivatorDecision::Keep("paused until a person or a callback admits it", None);
        }
        EntryState::Killing => return ActivatorDecision::Kill,
        _ if candidate.silent() => {
            return ActivatorDecision::Keep("silent: admitted after its next keepalive", None);
        }
        _ => {}
    }
    match objection.map(|objection| objection.call) {
        Some(Call::Kill) => return ActivatorDecision::Kill,
        Some(Call::Pause) => return ActivatorDecision::Pause,
        None if candidate.admit => return ActivatorDecision::Admit("admitted by a callback"),
        _ => {}
    }
    if entry.breaker == SILENCE {
        return match objection {
            None => ActivatorDecision::Admit("it is heard of again"),
            Some(_) => ActivatorDecision::Keep("it is heard of again, but still bad", None),
        };
    }
    if useless {
        return ActivatorDecision::Revert("the withdrawal did not lower the share of bad pods: reverted");
    }
    if planning.blind_restore(&entry.breaker) {
        return ActivatorDecision::Admit("its breaker has no data, and onNoData is restore");
    }
    if activator.mode != ActivatorMode::Periodic && entry.retry_count > activator.max_retry {
        return ActivatorDecision::Exhausted;
    }
    let due = due(entry, activator);
    match objection {
        _ if due > planning.now => {
            ActivatorDecision::Keep("withheld until its time is over", Some((ADMITTED_AGAIN, due)))
        }
        Some(_) => ActivatorDecision::Keep("its time is over, but it is still bad", None),
        None if planning.not_evaluated(&entry.breaker) => {
            ActivatorDecision::Keep("its time is over, but its breaker has not run since the start", None)
        }
        None => ActivatorDecision::Due,
    }
}

/// A person's request in force, or the end of one.
fn decide_on_request(entry: &Entry, candidate: &Candidate<'_>) -> Option<ActivatorDecision> {
    use ActivatorDecision::{Admit, Keep};
    let settled = matches!(entry.state, EntryState::Withheld | EntryState::Paused);
    match (candidate.asked, candidate.objection) {
        (Some(asked), _) if asked.call == Call::Admit && settled && !candidate.silent() => {
            Some(Admit("admitted on a person's request"))
        }
        (Some(asked), _) if asked.call == Call::Withhold && entry.state == EntryState::Withheld => {
            Some(Keep("withheld on a person's request", Some(("the request ends", asked.until))))
        }
        _ if entry.breaker != PERSON || !settled || candidate.silent() || entry.human => None,
        (_, Some(_)) => Some(Keep("the request has ended, but it is bad", None)),
        (_, None) => Some(Admit("the request has ended")),
    }
}

/// `revertIfNoBetter`: its time is over, and the share of bad pods of the serving ones is not lower than before the
/// withdrawal. One that helped is not checked again.
fn withdrawal_was_useless(planning: &mut Planning<'_>, index: usize) -> bool {
    let Some(after) = planning.policy.revert_if_no_better else { return false };
    let Some(entry) = planning.assessment.slots.get(index).map(|slot| &slot.entry) else { return false };
    let Some(before) = entry.bad_before else { return false };
    let judged_since = planning.verdicts.sources.iter().any(|source| source.at > entry.break_at);
    if planning.now < entry.break_at + after || !judged_since {
        return false;
    }
    let useless = planning.bad_share() >= before;
    if !useless && let Some(slot) = planning.assessment.slots.get_mut(index) {
        slot.entry.to_mut().bad_before = None;
    }
    useless
}

/// Admits the oldest first, at most `batch` per breaker.
fn admit_in_batches(planning: &mut Planning<'_>, mut due: Vec<usize>) {
    let mut trials = Trials::of(planning);
    due.sort_by_key(|&index| planning.assessment.slots.get(index).map(|slot| slot.entry.break_at));
    for index in due {
        if planning.barred(index) {
            planning.keep(
                index,
                "its time is over, but the API server refuses to admit it: tried again",
                None,
            );
            continue;
        }
        let Some(breaker) = planning.assessment.slots.get(index).map(|slot| slot.entry.breaker.clone())
        else {
            continue;
        };
        let Some(batch) = planning.policy.activator(&breaker).batch else {
            planning.admit_as_retry(index, "its time is over: back on trial");
            continue;
        };
        let now = planning.now + planning.policy.trial(&breaker);
        match trials.enter(breaker, batch.max(1), now) {
            Ok(()) => planning.admit_as_retry(index, "its time is over: back on trial, in its batch"),
            Err(turn) => {
                planning.keep(index, "its time is over: it waits for its batch", Some((ADMITTED_AGAIN, turn)))
            }
        }
    }
}

/// Admitted pods on trial, per breaker: how many, and when the first trial ends. A trial lasts one evaluation period.
struct Trials {
    running: BTreeMap<String, (u32, Timestamp)>,
}

impl Trials {
    fn of(planning: &Planning<'_>) -> Self {
        let mut trials = Self { running: BTreeMap::new() };
        let back = planning.ledger.returned.values().map(|pod| (pod.breaker.as_str(), pod.admitted_at));
        let released =
            |slot: &&EntryAssessment<'_>| slot.decision == EntryDecision::Release(ReleaseReason::Admitted);
        let just_back = planning.assessment.slots.iter().filter(released);
        let just_back = just_back.map(|slot| (slot.entry.breaker.as_str(), planning.now));
        for (breaker, admitted_at) in back.chain(just_back) {
            let over = admitted_at + planning.policy.trial(breaker);
            if over > planning.now && planning.policy.activator(breaker).batch.is_some() {
                let _ = trials.enter(breaker.to_owned(), u32::MAX, over);
            }
        }
        trials
    }

    /// Adds a trial; the error is the end of the first one when there are `limit` already.
    fn enter(&mut self, breaker: String, limit: u32, over: Timestamp) -> Result<(), Timestamp> {
        let (count, first) = self.running.entry(breaker).or_insert((0, over));
        if *count >= limit {
            return Err(*first);
        }
        *count += 1;
        *first = over.min(*first);
        Ok(())
    }
}

/// The number of paused pods, for `maxPause`.
struct Pauses {
    paused: usize,
}

impl Pauses {
    fn count(planning: &Planning<'_>) -> Self {
        let pausing = |slot: &&EntryAssessment<'_>| slot.held() && slot.entry.state == EntryState::Pausing;
        let paused =
            planning.assessment.candidates.iter().filter(|candidate| candidate.pod.traffic == Traffic::Pause);
        Self { paused: paused.count() + planning.assessment.slots.iter().filter(pausing).count() }
    }

    /// Whether the activator pauses, and fewer than `maxPause` are paused.
    fn room(&self, planning: &Planning<'_>, index: usize) -> bool {
        let activator =
            planning.assessment.slots.get(index).map(|slot| planning.policy.activator(&slot.entry.breaker));
        activator.is_some_and(|activator| {
            activator.mode == ActivatorMode::RetryAndPause
                && self.paused < usize::try_from(activator.max_pause).unwrap_or(usize::MAX)
        })
    }

    fn pause(&mut self, planning: &mut Planning<'_>, index: usize) {
        if let Some(slot) = planning.assessment.slots.get_mut(index) {
            self.paused += 1;
            slot.set_state(EntryState::Pausing);
            slot.decide(EntryDecision::Pause, "withheld too often, or a callback pauses it");
        }
    }
}

/// Kills a withheld pod if the sink can, the pod has a controller, and `maxKillsPerHour` allows it.
fn kill(planning: &mut Planning<'_>, index: usize) {
    let controlled = planning.candidate_of(index).is_some_and(|candidate| candidate.pod.has_controller);
    if !planning.fleet.can_kill || !controlled {
        planning.unkillable += 1;
        let why = "to be killed, but the sink cannot or the pod has no controller: stays withheld";
        return planning.keep(index, why, None);
    }
    let Some(slot) = planning.assessment.slots.get(index) else { return };
    let limit = planning.policy.activator(&slot.entry.breaker).max_kills_per_hour;
    if slot.entry.state != EntryState::Killing {
        let now = planning.now;
        planning.kills.retain(|at| now.since(*at) < HOUR);
        let room =
            limit.is_none_or(|limit| planning.kills.len() < usize::try_from(limit).unwrap_or(usize::MAX));
        if !room {
            let turn = planning.kills.first().map(|first| ("killed", *first + HOUR));
            return planning.keep(index, "to be killed, once maxKillsPerHour allows it", turn);
        }
        planning.kills.push(now);
    }
    if let Some(slot) = planning.assessment.slots.get_mut(index) {
        slot.set_state(EntryState::Killing);
        slot.decide(EntryDecision::Kill, "withheld too often, or a callback kills it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fleet::{Epoch, Fence};

    fn entry(uid: &str, retry_count: u32) -> Entry {
        let fence = Fence { epoch: Epoch(1), serial: 1 };
        Entry {
            uid: uid.into(),
            name: uid.into(),
            fence,
            next: fence,
            state: EntryState::Withheld,
            breaker: "rate".into(),
            reason: String::new(),
            break_at: Timestamp::from_unix_millis(0),
            retry_count,
            desired: 10,
            human: false,
            spare: None,
            bad_before: None,
            set_backs: 0,
        }
    }

    fn wait(retry: u32, activator: &ActivatorStrategy) -> i64 {
        due(&entry("a", retry), activator).unix_millis() / 1000
    }

    #[test]
    fn the_retry_modes_wait_longer_each_time_up_to_their_cap_and_periodic_never_does() {
        let periodic = ActivatorStrategy::default();
        let retry = ActivatorStrategy { mode: ActivatorMode::RetryAndKill, ..periodic };
        assert_eq!([1, 2, 3, 100].map(|n| wait(n, &retry)), [10, 20, 30, 300]);
        assert_eq!([1, 2, 3, 100].map(|n| wait(n, &periodic)), [10, 10, 10, 10]);
        let slow = ActivatorStrategy { period: Duration::from_secs(600), ..retry };
        assert_eq!(wait(1, &slow), 600, "a cap below the period does not shorten it");
    }

    #[test]
    fn jitter_spreads_the_pods_is_bounded_and_is_the_same_in_every_plan() {
        let activator = ActivatorStrategy { jitter: 0.5, ..ActivatorStrategy::default() };
        let dues: Vec<i64> =
            (0..200).map(|n| due(&entry(&format!("pod-{n}"), 1), &activator).unix_millis()).collect();
        assert!(dues.iter().all(|due| (10_000..=15_000).contains(due)), "{dues:?}");
        let early = dues.iter().filter(|due| **due < 12_500).count();
        assert!((60..140).contains(&early), "spread: {early} of 200 in the first half");
        assert_eq!(due(&entry("pod-0", 1), &activator), due(&entry("pod-0", 1), &activator));
        assert_ne!(due(&entry("pod-0", 1), &activator), due(&entry("pod-0", 2), &activator));
    }
}
