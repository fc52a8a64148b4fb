//! Fifth step: how each withheld pod comes back, or does not, under the breaker that cut it.
//!
//! Under *its* breaker: the fastest activator of any breaker acting on every pod undoes the patient
//! ones. And never on a look at the clock alone where the detector can still see the pod: a pod that
//! is still bad would be let in and cut again for ever.

use std::{collections::BTreeMap, time::Duration};

use super::{
    draft::Draft,
    ledger::{Entry, State},
    survey::{Due, Fate, Over, SILENCE, Slot, Subject},
};
use crate::decide::{
    fleet::Traffic,
    policy::{ActivatorMode, ActivatorStrategy},
    time::Timestamp,
    verdict::Call,
};

const BACK: &str = "admitted again";
const HOUR: Duration = Duration::from_secs(3600);

/// When the wait of a cut is over: period, with the retry modes times the retry, capped, and spread by a share
/// that depends on the pod and the retry only.
#[must_use]
pub fn due(entry: &Entry, activator: &ActivatorStrategy) -> Timestamp {
    let wait = match activator.mode {
        ActivatorMode::Periodic => activator.period,
        ActivatorMode::RetryAndKill | ActivatorMode::RetryAndPause => activator
            .period
            .saturating_mul(entry.retry_count.max(1))
            .min(activator.max_period.max(activator.period)),
    };
    let jitter = if activator.jitter.is_finite() { activator.jitter.clamp(0.0, 1.0) } else { 0.0 };
    let spread = jitter * unit(entry.uid.as_str(), entry.retry_count);
    let longer = wait.as_secs_f64() * (1.0 + spread);
    entry.break_at + Duration::try_from_secs_f64(longer).unwrap_or(wait)
}

/// 0..1 from the pod and the retry: the same in every process and at every look.
fn unit(uid: &str, retry: u32) -> f64 {
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

/// Decides about every entry that nothing has been decided about yet.
pub(super) fn activate(draft: &mut Draft<'_>) {
    if draft.policy.paused {
        return draft.explain_kept("frozen by spec.paused");
    }
    let mut ripe = Vec::new();
    let mut pauses = Pauses::count(draft);
    for index in 0..draft.survey.slots.len() {
        let Some(subject) = draft.undecided(index) else { continue };
        let useless = cut_was_useless(draft, index);
        match wish(draft, index, &subject, useless) {
            Wish::Stay(why, due) => draft.stay(index, why, due),
            Wish::Admit(why) => draft.give_back(index, why),
            Wish::Revert(why) => {
                let held = draft.survey.slots.get(index).map(|slot| slot.entry.breaker.as_str());
                let until = held.map(|breaker| draft.now + draft.policy.activator(breaker).period);
                draft.reverted_until = draft.reverted_until.max(until);
                draft.give_back(index, why);
            }
            Wish::Ripe => ripe.push(index),
            Wish::Pause => pauses.pause(draft, index),
            Wish::Kill => kill(draft, index),
            Wish::GiveUp => {
                let may_pause = pauses.room(draft, index);
                if may_pause { pauses.pause(draft, index) } else { kill(draft, index) }
            }
        }
    }
    admit_in_batches(draft, ripe);
}

/// What is right for one entry, limits apart.
enum Wish {
    Stay(&'static str, Option<Due>),
    Admit(&'static str),
    /// Back, and nobody is to be cut for a while.
    Revert(&'static str),
    /// Its time is over; in its batch's turn.
    Ripe,
    Pause,
    Kill,
    /// The last retry is over.
    GiveUp,
}

fn wish(draft: &Draft<'_>, index: usize, subject: &Subject<'_>, useless: bool) -> Wish {
    let Some(slot) = draft.survey.slots.get(index) else { return Wish::Stay("", None) };
    let (entry, objection) = (&slot.entry, subject.objection);
    let activator = draft.policy.activator(&entry.breaker);
    match entry.state {
        State::Paused if entry.human => return Wish::Stay("paused by a person", None),
        State::Paused if subject.admit && objection.is_none() => {
            return Wish::Admit("a callback wants it back");
        }
        State::Paused => return Wish::Stay("paused: it stays so until somebody says otherwise", None),
        State::Killing => return Wish::Kill,
        _ if subject.silent() => return Wish::Stay("silent: it comes back when it is heard of", None),
        _ => {}
    }
    match objection.map(|objection| objection.call) {
        Some(Call::Kill) => return Wish::Kill,
        Some(Call::Pause) => return Wish::Pause,
        None if subject.admit => return Wish::Admit("a callback wants it back"),
        _ => {}
    }
    if entry.breaker == SILENCE {
        let still = "it is heard of again, but still bad";
        return if objection.is_none() {
            Wish::Admit("it is heard of again")
        } else {
            Wish::Stay(still, None)
        };
    }
    if useless {
        return Wish::Revert("the cut did not lower the share of bad pods: taken back");
    }
    if draft.blind_restore(&entry.breaker) {
        return Wish::Admit("its breaker has no data, and onNoData is restore");
    }
    if activator.mode != ActivatorMode::Periodic && entry.retry_count > activator.max_retry {
        return Wish::GiveUp;
    }
    let due = due(entry, activator);
    match objection {
        _ if due > draft.now => Wish::Stay("withheld until its time is over", Some((BACK, due))),
        Some(_) => Wish::Stay("its time is over, but it is still bad", None),
        None if draft.unheard(&entry.breaker) => {
            Wish::Stay("its time is over, but its breaker has not looked since we started", None)
        }
        None => Wish::Ripe,
    }
}

/// `revertIfNoBetter`: the time is over and the share of bad pods among the serving ones is not lower than before the
/// cut. A cut that did help is not asked about again.
fn cut_was_useless(draft: &mut Draft<'_>, index: usize) -> bool {
    let Some(after) = draft.policy.revert_if_no_better else { return false };
    let Some(entry) = draft.survey.slots.get(index).map(|slot| &slot.entry) else { return false };
    let Some(before) = entry.bad_before else { return false };
    let judged_since = draft.verdicts.sources.iter().any(|source| source.at > entry.break_at);
    if draft.now < entry.break_at + after || !judged_since {
        return false;
    }
    let useless = draft.bad_share() >= before;
    if !useless && let Some(slot) = draft.survey.slots.get_mut(index) {
        slot.entry.to_mut().bad_before = None;
    }
    useless
}

/// Oldest first, as many per breaker as its batch has room for.
fn admit_in_batches(draft: &mut Draft<'_>, mut ripe: Vec<usize>) {
    let mut trials = Trials::of(draft);
    ripe.sort_by_key(|&index| draft.survey.slots.get(index).map(|slot| slot.entry.break_at));
    for index in ripe {
        let Some(breaker) = draft.survey.slots.get(index).map(|slot| slot.entry.breaker.clone()) else {
            continue;
        };
        let Some(batch) = draft.policy.activator(&breaker).batch else {
            draft.give_back(index, "its time is over: back on trial");
            continue;
        };
        let now = draft.now + draft.policy.trial(&breaker);
        match trials.enter(breaker, batch.max(1), now) {
            Ok(()) => draft.give_back(index, "its time is over: back on trial, in its batch"),
            Err(turn) => draft.stay(index, "its time is over: it waits for its batch", Some((BACK, turn))),
        }
    }
}

/// Pods that are back and that their detector has not looked at again: how many per breaker, and until when.
struct Trials {
    under_way: BTreeMap<String, (u32, Timestamp)>,
}

impl Trials {
    fn of(draft: &Draft<'_>) -> Self {
        let mut trials = Self { under_way: BTreeMap::new() };
        let back = draft.ledger.returned.values().map(|pod| (pod.breaker.as_str(), pod.admitted_at));
        let released = |slot: &&Slot<'_>| slot.fate == Fate::Release(Over::Admitted);
        let just_back = draft.survey.slots.iter().filter(released);
        let just_back = just_back.map(|slot| (slot.entry.breaker.as_str(), draft.now));
        for (breaker, admitted_at) in back.chain(just_back) {
            let over = admitted_at + draft.policy.trial(breaker);
            if over > draft.now && draft.policy.activator(breaker).batch.is_some() {
                let limit = u32::MAX;
                let _ = trials.enter(breaker.to_owned(), limit, over);
            }
        }
        trials
    }

    /// One more; or, if that is too many, when the first of them is over.
    fn enter(&mut self, breaker: String, limit: u32, over: Timestamp) -> Result<(), Timestamp> {
        let (count, first) = self.under_way.entry(breaker).or_insert((0, over));
        if *count >= limit {
            return Err(*first);
        }
        *count += 1;
        *first = over.min(*first);
        Ok(())
    }
}

/// How many pods are paused, as the limit of each activator counts them.
struct Pauses {
    paused: usize,
}

impl Pauses {
    fn count(draft: &Draft<'_>) -> Self {
        let pausing = |slot: &&Slot<'_>| slot.held() && slot.entry.state == State::Pausing;
        let paused = draft.survey.subjects.iter().filter(|subject| subject.pod.traffic == Traffic::Pause);
        Self { paused: paused.count() + draft.survey.slots.iter().filter(pausing).count() }
    }

    /// The activator pauses, and there is room for one more.
    fn room(&self, draft: &Draft<'_>, index: usize) -> bool {
        let activator = draft.survey.slots.get(index).map(|slot| draft.policy.activator(&slot.entry.breaker));
        activator.is_some_and(|activator| {
            activator.mode == ActivatorMode::RetryAndPause
                && self.paused < usize::try_from(activator.max_pause).unwrap_or(usize::MAX)
        })
    }

    fn pause(&mut self, draft: &mut Draft<'_>, index: usize) {
        if let Some(slot) = draft.survey.slots.get_mut(index) {
            self.paused += 1;
            slot.turn(State::Pausing);
            slot.decide(Fate::Pause, "it was cut too often, or a callback wants it paused");
        }
    }
}

/// Ends a withheld pod, if this sink can, somebody replaces it, and the hour has room.
fn kill(draft: &mut Draft<'_>, index: usize) {
    let controlled = draft.subject_of(index).is_some_and(|subject| subject.pod.has_controller);
    if !draft.fleet.can_kill || !controlled {
        draft.for_good += 1;
        return draft.stay(index, "it would be killed; nothing here can, so it is withheld for good", None);
    }
    let Some(slot) = draft.survey.slots.get(index) else { return };
    let limit = draft.policy.activator(&slot.entry.breaker).max_kills_per_hour;
    if slot.entry.state != State::Killing {
        let now = draft.now;
        draft.kills.retain(|at| now.since(*at) < HOUR);
        let room = limit.is_none_or(|limit| draft.kills.len() < usize::try_from(limit).unwrap_or(usize::MAX));
        if !room {
            let turn = draft.kills.first().map(|first| ("killed", *first + HOUR));
            return draft.stay(index, "to be killed, when the hour has room for one more", turn);
        }
        draft.kills.push(now);
    }
    if let Some(slot) = draft.survey.slots.get_mut(index) {
        slot.turn(State::Killing);
        slot.decide(Fate::Kill, "it was cut too often, or a callback wants its end");
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
            state: State::Withheld,
            breaker: "rate".into(),
            reason: String::new(),
            break_at: Timestamp::from_unix_millis(0),
            retry_count,
            desired: 10,
            human: false,
            spare: None,
            bad_before: None,
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
        assert_eq!(wait(1, &slow), 600, "a cap below the period would make it shorter than the user asked");
    }

    #[test]
    fn jitter_spreads_the_pods_is_bounded_and_is_the_same_at_every_look() {
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
