//! A plan while it is being made: every step reads and decides on this, none writes to anything else.

use std::time::Duration;

use super::{
    assessment::{ADMISSION, Assessment, Candidate, Due, EntryAssessment, EntryDecision, assessment},
    budget::Budget,
    evidence::{SourceEvidence, hear},
    fence::Fence,
    ledger::{self, Entry, Ledger},
    panic::{self, BadShare},
};
use crate::decide::{
    fleet::{Fleet, Traffic},
    policy::{OnNoData, Policy},
    time::Timestamp,
    verdict::Verdicts,
};

/// The working set of one plan.
pub(super) struct Planning<'a> {
    pub(super) now: Timestamp,
    pub(super) policy: &'a Policy,
    pub(super) fleet: &'a Fleet,
    pub(super) ledger: &'a Ledger,
    pub(super) verdicts: &'a Verdicts,
    /// The fence that the ledger's next write makes.
    pub(super) write_fence: Fence,
    pub(super) assessment: Assessment<'a>,
    pub(super) source_evidence: SourceEvidence<'a>,
    pub(super) budget: Budget,
    pub(super) share: BadShare,
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

impl<'a> Planning<'a> {
    /// Looks at everything, decides nothing about anybody.
    pub(super) fn open(
        now: Timestamp,
        policy: &'a Policy,
        fleet: &'a Fleet,
        ledger: &'a Ledger,
        verdicts: &'a Verdicts,
    ) -> Self {
        let write_fence = Fence { epoch: ledger.epoch, serial: ledger.serial + 1 };
        let mut assessment = assessment(now, policy, fleet, ledger, write_fence);
        let budget = count(policy, fleet, &assessment);
        let source_evidence = hear(policy, verdicts, &mut assessment);
        let share = panic::share(policy, &source_evidence, &assessment);
        let panic = panic::step(now, ledger.panic, share.over(), verdicts, pause(policy));
        let claims = claims(policy, fleet, &assessment, write_fence);
        Self {
            now,
            policy,
            fleet,
            ledger,
            verdicts,
            write_fence,
            assessment,
            source_evidence,
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

    /// The candidate of an entry that is out and about which nothing is decided yet.
    pub(super) fn undecided(&self, index: usize) -> Option<Candidate<'a>> {
        use ledger::EntryState::{Killing, Paused, Withheld};
        let slot = self.assessment.slots.get(index)?;
        let open =
            slot.decision == EntryDecision::Keep && matches!(slot.entry.state, Withheld | Paused | Killing);
        if open { self.candidate_of(index) } else { None }
    }

    pub(super) fn candidate_of(&self, index: usize) -> Option<Candidate<'a>> {
        self.assessment.candidates.get(self.assessment.slots.get(index)?.candidate?).copied()
    }

    pub(super) fn stay(&mut self, index: usize, why: &'static str, due: Option<Due>) {
        if let Some(slot) = self.assessment.slots.get_mut(index) {
            slot.decide(EntryDecision::Keep, why);
            slot.due = due;
        }
    }

    pub(super) fn give_back(&mut self, index: usize, why: &'static str) {
        if let Some(slot) = self.assessment.slots.get_mut(index) {
            slot.give_back(why);
        }
    }

    /// Everything that is still open stays as it is.
    pub(super) fn explain_kept(&mut self, why: &'static str) {
        for slot in &mut self.assessment.slots {
            if matches!(slot.decision, EntryDecision::Keep | EntryDecision::Pause | EntryDecision::Kill) {
                slot.decide(EntryDecision::Keep, why);
            }
        }
    }

    /// A new entry for a candidate.
    pub(super) fn reserve(&mut self, candidate: usize, entry: Entry) {
        let slot = EntryAssessment {
            entry: std::borrow::Cow::Owned(entry),
            candidate: Some(candidate),
            decision: EntryDecision::Withhold,
            reason: "withheld now",
            due: None,
        };
        let index = self.assessment.slots.len();
        self.assessment.slots.push(slot);
        if let Some(candidate) = self.assessment.candidates.get_mut(candidate) {
            candidate.slot = Some(index);
        }
    }

    /// Places of the candidates that are so.
    pub(super) fn places(&self, so: impl Fn(&Candidate<'_>) -> bool) -> Vec<usize> {
        let all = self.assessment.candidates.iter().enumerate();
        all.filter(|(_, candidate)| so(candidate)).map(|(index, _)| index).collect()
    }

    /// The worst first; of equals the one with more cuts, then by UID, so that every process takes the same.
    pub(super) fn worst_first(&self, places: &mut [usize]) {
        let rank = |index: usize| {
            let candidate = self.assessment.candidates.get(index);
            let severity =
                candidate.and_then(|candidate| candidate.objection).map_or(0.0, |word| word.severity);
            (
                severity,
                candidate.and_then(|candidate| candidate.returned).map_or(0, |returned| returned.retry_count),
            )
        };
        places.sort_unstable_by(|&a, &b| {
            let ((x, m), (y, n)) = (rank(a), rank(b));
            y.total_cmp(&x).then(n.cmp(&m)).then(a.cmp(&b))
        });
    }

    /// Pods that have their traffic back, but do not count as serving yet.
    pub(super) fn uncounted(&self) -> u32 {
        let back = self.assessment.candidates.iter().filter(|candidate| {
            let held = candidate
                .slot
                .and_then(|slot| self.assessment.slots.get(slot))
                .is_some_and(EntryAssessment::held);
            candidate.able() && candidate.pod.traffic == Traffic::Yes && !candidate.serving && !held
        });
        u32::try_from(back.count()).unwrap_or(u32::MAX)
    }

    /// Bad pods per thousand serving ones.
    pub(super) fn bad_share(&self) -> u16 {
        let serving = || self.assessment.candidates.iter().filter(|candidate| candidate.serving);
        let bad = serving().filter(|candidate| candidate.objection.is_some()).count();
        u16::try_from(bad * 1000 / serving().count().max(1)).unwrap_or(1000)
    }

    /// A breaker of the policy that has said nothing at all yet, as after a restart: no word is not a good word.
    pub(super) fn not_evaluated(&self, breaker: &str) -> bool {
        self.policy.breaker(breaker).is_some()
            && !self.verdicts.sources.iter().any(|source| source.name == breaker)
    }

    /// The breaker sees nothing, and its pods are not to wait for it.
    pub(super) fn blind_restore(&self, breaker: &str) -> bool {
        self.source_evidence.blind.contains(&breaker)
            && self.policy.breaker(breaker).is_some_and(|breaker| breaker.on_no_data == OnNoData::Restore)
    }

    /// When time alone changes something.
    pub(super) fn wakeup(&self) -> Option<Timestamp> {
        let slots = self.assessment.slots.iter().filter_map(|slot| slot.due.map(|(_, at)| at));
        let admitted = self
            .assessment
            .candidates
            .iter()
            .filter(|candidate| !candidate.serving && candidate.slot.is_none());
        let counted = admitted.filter_map(|candidate| Some(candidate.admitted_at()? + ADMISSION));
        let spared = self.assessment.candidates.iter().filter(|candidate| candidate.objection.is_some());
        let spared = spared.filter_map(|candidate| candidate.returned?.spare_until);
        let useless = self.assessment.slots.iter().filter_map(|slot| {
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

fn count(policy: &Policy, fleet: &Fleet, assessment: &Assessment<'_>) -> Budget {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Budget {
        desired: fleet.desired,
        existing: number(assessment.candidates.iter().filter(|candidate| !candidate.pod.terminating).count()),
        floor: Budget::floor(policy, fleet.desired),
        serving: number(assessment.candidates.iter().filter(|candidate| candidate.serving).count()),
        entries: number(assessment.slots.iter().filter(|slot| slot.held()).count()),
    }
}

/// Pods without our name, without a fence of this ledger, or without a switch; and pods whose fence was put back to an
/// older one (a restored backup, an old manifest): their entries would wait for ever for a newer one.
fn claims(policy: &Policy, fleet: &Fleet, assessment: &Assessment<'_>, write_fence: Fence) -> Vec<usize> {
    if policy.dry_run || fleet.leaving {
        return Vec::new();
    }
    let all = assessment.candidates.iter().enumerate().filter(|(_, candidate)| !candidate.pod.terminating);
    let unclaimed = all.filter(|(_, Candidate { pod, slot, .. })| {
        let held = slot.and_then(|slot| assessment.slots.get(slot)).filter(|_| fleet.absence_proven);
        let behind = |fence| held.is_some_and(|slot: &EntryAssessment<'_>| slot.entry.fence.newer(fence));
        let fenced = pod.fence.is_some_and(|fence| fence.epoch == write_fence.epoch && !behind(fence));
        !pod.claimed || !fenced || pod.traffic == Traffic::Unlabelled
    });
    unclaimed.map(|(index, _)| index).collect()
}
