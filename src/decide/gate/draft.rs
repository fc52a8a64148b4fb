//! A plan while it is being made: every step reads and decides on this, none writes to anything else.

use std::time::Duration;

use super::{
    budget::Budget,
    fence::Fence,
    hearing::{Hearing, hear},
    ledger::{self, Entry, Ledger},
    panic::{self, Share},
    survey::{ADMISSION, Due, Fate, Slot, Subject, Survey, survey},
};
use crate::decide::{
    fleet::{Fleet, Traffic},
    policy::{OnNoData, Policy},
    time::Timestamp,
    verdict::Verdicts,
};

/// The working set of one plan.
pub(super) struct Draft<'a> {
    pub(super) now: Timestamp,
    pub(super) policy: &'a Policy,
    pub(super) fleet: &'a Fleet,
    pub(super) ledger: &'a Ledger,
    pub(super) verdicts: &'a Verdicts,
    /// The fence that the ledger's next write makes.
    pub(super) stamp: Fence,
    pub(super) survey: Survey<'a>,
    pub(super) hearing: Hearing<'a>,
    pub(super) budget: Budget,
    pub(super) share: Share,
    pub(super) panic: Option<ledger::Panic>,
    pub(super) kills: Vec<Timestamp>,
    /// Subjects to be claimed.
    pub(super) claims: Vec<usize>,
    /// No new cut before that: the last one helped nobody.
    pub(super) reverted_until: Option<Timestamp>,
    /// How many would be killed if anything could.
    pub(super) for_good: usize,
    /// The ledger takes no more.
    pub(super) full: bool,
}

impl<'a> Draft<'a> {
    /// Looks at everything, decides nothing about anybody.
    pub(super) fn open(
        now: Timestamp,
        policy: &'a Policy,
        fleet: &'a Fleet,
        ledger: &'a Ledger,
        verdicts: &'a Verdicts,
    ) -> Self {
        let stamp = Fence { epoch: ledger.epoch, serial: ledger.serial + 1 };
        let mut survey = survey(now, policy, fleet, ledger, stamp);
        let budget = count(policy, fleet, &survey);
        let hearing = hear(policy, verdicts, &mut survey);
        let share = panic::share(policy, &hearing, &survey);
        let panic = panic::step(now, ledger.panic, share.over(), verdicts, pause(policy));
        let claims = claims(policy, fleet, &survey, stamp);
        Self {
            now,
            policy,
            fleet,
            ledger,
            verdicts,
            stamp,
            survey,
            hearing,
            budget,
            share,
            panic,
            kills: ledger.kills.clone(),
            claims,
            reverted_until: ledger.reverted_until,
            for_good: 0,
            full: false,
        }
    }

    /// The subject of an entry that is out and about which nothing is decided yet.
    pub(super) fn undecided(&self, index: usize) -> Option<Subject<'a>> {
        use ledger::State::{Killing, Paused, Withheld};
        let slot = self.survey.slots.get(index)?;
        let open = slot.fate == Fate::Keep && matches!(slot.entry.state, Withheld | Paused | Killing);
        if open { self.subject_of(index) } else { None }
    }

    pub(super) fn subject_of(&self, index: usize) -> Option<Subject<'a>> {
        self.survey.subjects.get(self.survey.slots.get(index)?.subject?).copied()
    }

    pub(super) fn stay(&mut self, index: usize, why: &'static str, due: Option<Due>) {
        if let Some(slot) = self.survey.slots.get_mut(index) {
            slot.decide(Fate::Keep, why);
            slot.due = due;
        }
    }

    pub(super) fn give_back(&mut self, index: usize, why: &'static str) {
        if let Some(slot) = self.survey.slots.get_mut(index) {
            super::restore::give_back(slot, why);
        }
    }

    /// Everything that is still open stays as it is.
    pub(super) fn explain_kept(&mut self, why: &'static str) {
        for slot in &mut self.survey.slots {
            if matches!(slot.fate, Fate::Keep | Fate::Pause | Fate::Kill) {
                slot.decide(Fate::Keep, why);
            }
        }
    }

    /// A new entry for a subject.
    pub(super) fn reserve(&mut self, subject: usize, entry: Entry) {
        let slot = Slot {
            entry: std::borrow::Cow::Owned(entry),
            subject: Some(subject),
            fate: Fate::Withhold,
            decision: "withheld now",
            due: None,
        };
        let index = self.survey.slots.len();
        self.survey.slots.push(slot);
        if let Some(subject) = self.survey.subjects.get_mut(subject) {
            subject.slot = Some(index);
        }
    }

    /// Places of the subjects that are so.
    pub(super) fn places(&self, so: impl Fn(&Subject<'_>) -> bool) -> Vec<usize> {
        let all = self.survey.subjects.iter().enumerate();
        all.filter(|(_, subject)| so(subject)).map(|(index, _)| index).collect()
    }

    /// The worst first; of equals the one with more cuts, then by UID, so that every process takes the same.
    pub(super) fn worst_first(&self, places: &mut [usize]) {
        let rank = |index: usize| {
            let subject = self.survey.subjects.get(index);
            let severity = subject.and_then(|subject| subject.objection).map_or(0.0, |word| word.severity);
            (
                severity,
                subject.and_then(|subject| subject.returned).map_or(0, |returned| returned.retry_count),
            )
        };
        places.sort_unstable_by(|&a, &b| {
            let ((x, m), (y, n)) = (rank(a), rank(b));
            y.total_cmp(&x).then(n.cmp(&m)).then(a.cmp(&b))
        });
    }

    /// Pods that have their traffic back, but do not count as serving yet.
    pub(super) fn uncounted(&self) -> u32 {
        let back = self.survey.subjects.iter().filter(|subject| {
            let held = subject.slot.and_then(|slot| self.survey.slots.get(slot)).is_some_and(Slot::held);
            subject.able() && subject.pod.traffic == Traffic::Yes && !subject.serving && !held
        });
        u32::try_from(back.count()).unwrap_or(u32::MAX)
    }

    /// Bad pods per thousand serving ones.
    pub(super) fn bad_share(&self) -> u16 {
        let serving = || self.survey.subjects.iter().filter(|subject| subject.serving);
        let bad = serving().filter(|subject| subject.objection.is_some()).count();
        u16::try_from(bad * 1000 / serving().count().max(1)).unwrap_or(1000)
    }

    /// A breaker of the policy that has said nothing at all yet, as after a restart: no word is not a good word.
    pub(super) fn unheard(&self, breaker: &str) -> bool {
        self.policy.breaker(breaker).is_some()
            && !self.verdicts.sources.iter().any(|source| source.name == breaker)
    }

    /// The breaker sees nothing, and its pods are not to wait for it.
    pub(super) fn blind_restore(&self, breaker: &str) -> bool {
        self.hearing.blind.contains(&breaker)
            && self.policy.breaker(breaker).is_some_and(|breaker| breaker.on_no_data == OnNoData::Restore)
    }

    /// When time alone changes something.
    pub(super) fn wakeup(&self) -> Option<Timestamp> {
        let slots = self.survey.slots.iter().filter_map(|slot| slot.due.map(|(_, at)| at));
        let admitted =
            self.survey.subjects.iter().filter(|subject| !subject.serving && subject.slot.is_none());
        let counted = admitted.filter_map(|subject| Some(subject.admitted_at()? + ADMISSION));
        let spared = self.survey.subjects.iter().filter(|subject| subject.objection.is_some());
        let spared = spared.filter_map(|subject| subject.returned?.spare_until);
        let useless = self.survey.slots.iter().filter_map(|slot| {
            slot.entry.bad_before?;
            Some(slot.entry.break_at + self.policy.revert_if_no_better?)
        });
        let calm = self.panic.filter(|_| !self.share.over());
        let calm = calm.map(|panic| panic.looked_at + pause(self.policy));
        let all = slots.chain(self.reverted_until).chain(counted).chain(spared).chain(useless).chain(calm);
        all.filter(|at| *at > self.now).min()
    }
}

/// How long an evaluation takes where no source says so.
fn pause(policy: &Policy) -> Duration {
    let shortest = policy.breakers.iter().map(|breaker| breaker.evaluation_period).min();
    shortest.unwrap_or(Duration::from_secs(5))
}

fn count(policy: &Policy, fleet: &Fleet, survey: &Survey<'_>) -> Budget {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Budget {
        desired: fleet.desired,
        existing: number(survey.subjects.iter().filter(|subject| !subject.pod.terminating).count()),
        floor: Budget::floor(policy, fleet.desired),
        serving: number(survey.subjects.iter().filter(|subject| subject.serving).count()),
        entries: number(survey.slots.iter().filter(|slot| slot.held()).count()),
    }
}

/// Pods without our name, without a fence of this ledger, or without a switch; and pods whose fence was put back to an
/// older one (a restored backup, an old manifest): their entries would wait for ever for a newer one.
fn claims(policy: &Policy, fleet: &Fleet, survey: &Survey<'_>, stamp: Fence) -> Vec<usize> {
    if policy.dry_run || fleet.leaving {
        return Vec::new();
    }
    let all = survey.subjects.iter().enumerate().filter(|(_, subject)| !subject.pod.terminating);
    let unclaimed = all.filter(|(_, Subject { pod, slot, .. })| {
        let held = slot.and_then(|slot| survey.slots.get(slot)).filter(|_| fleet.absence_proven);
        let behind = |fence| held.is_some_and(|slot: &Slot<'_>| slot.entry.fence.newer(fence));
        let fenced = pod.fence.is_some_and(|fence| fence.epoch == stamp.epoch && !behind(fence));
        !pod.claimed || !fenced || pod.traffic == Traffic::Unlabelled
    });
    unclaimed.map(|(index, _)| index).collect()
}
