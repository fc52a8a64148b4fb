//! The working set of one plan: every step reads it and records its decisions in it.

use std::time::Duration;

use super::{
    assessment::{ADMISSION, Assessment, Candidate, Due, EntryAssessment, EntryDecision, assessment},
    budget::Budget,
    evidence::{SourceEvidence, apply_verdicts},
    fence::Fence,
    ledger::{self, Entry, Ledger},
    panic::{self, BadShare},
};
use crate::decide::{
    fleet::{Fleet, Traffic, count},
    policy::{OnNoData, Policy},
    time::Timestamp,
    verdict::{Call, Verdicts},
};

/// See the module.
pub(super) struct Planning<'a> {
    pub(super) now: Timestamp,
    pub(super) policy: &'a Policy,
    pub(super) fleet: &'a Fleet,
    pub(super) ledger: &'a Ledger,
    pub(super) verdicts: &'a Verdicts,
    /// The fence that the ledger's next write makes.
    pub(super) write_fence: Fence,
    pub(super) assessment: Assessment<'a>,
    pub(super) evidence: SourceEvidence<'a>,
    pub(super) budget: Budget,
    pub(super) share: BadShare,
    pub(super) panic: Option<ledger::Panic>,
    pub(super) kills: Vec<Timestamp>,
    /// Indices of the candidates to claim.
    pub(super) claims: Vec<usize>,
    /// Indices of those that nothing is withheld before.
    pub(super) unclaimed: Vec<usize>,
    /// No withdrawal before that time: the last one did not lower the share of bad pods.
    pub(super) reverted_until: Option<Timestamp>,
    /// Pods to kill that cannot be killed (sink without eviction, or no controller).
    pub(super) unkillable: usize,
    /// The ledger has reached [`ledger::CAP`].
    pub(super) full: bool,
}

impl<'a> Planning<'a> {
    /// Joins the inputs and counts; no decision is made yet.
    pub(super) fn new(
        now: Timestamp,
        policy: &'a Policy,
        fleet: &'a Fleet,
        ledger: &'a Ledger,
        verdicts: &'a Verdicts,
    ) -> Self {
        let write_fence = Fence { epoch: ledger.epoch, serial: ledger.serial + 1 };
        let mut assessment = assessment(now, policy, fleet, ledger, write_fence);
        let budget = budget(policy, fleet, &assessment);
        let evidence = apply_verdicts(now, policy, verdicts, &mut assessment);
        let share = panic::share(policy, &evidence, &assessment);
        let panic = panic::next(now, ledger.panic, share.over(), verdicts, shortest_period(policy));
        let mut claims = claims(policy, fleet, &assessment, write_fence);
        let pod = |index: usize| assessment.candidates.get(index).map(|candidate| candidate.pod);
        let waited_for =
            |index: &&usize| pod(**index).is_some_and(|pod| pod.selected && !pod.claim_refused());
        let unclaimed = claims.iter().filter(waited_for).copied().collect();
        claims.retain(|index| pod(*index).is_some_and(|pod| !pod.barred()));
        Self {
            now,
            policy,
            fleet,
            ledger,
            verdicts,
            write_fence,
            assessment,
            evidence,
            budget,
            share,
            panic,
            kills: ledger.kills.clone(),
            claims,
            unclaimed,
            reverted_until: ledger.reverted_until,
            unkillable: 0,
            full: false,
        }
    }

    /// The candidate of an entry that is withheld and not decided yet.
    pub(super) fn undecided(&self, index: usize) -> Option<Candidate<'a>> {
        use ledger::EntryState::{Killing, Paused, Withheld};
        let slot = self.assessment.slots.get(index)?;
        let open =
            slot.decision == EntryDecision::Keep && matches!(slot.entry.state, Withheld | Paused | Killing);
        if open { self.candidate_of(index) } else { None }
    }

    pub(super) fn candidate_of(&self, index: usize) -> Option<Candidate<'a>> {
        self.assessment.candidate_of(self.assessment.slots.get(index)?).copied()
    }

    pub(super) fn keep(&mut self, index: usize, why: &'static str, due: Option<Due>) {
        if let Some(slot) = self.assessment.slots.get_mut(index) {
            slot.decide(EntryDecision::Keep, why);
            slot.due = due;
        }
    }

    pub(super) fn admit(&mut self, index: usize, why: &'static str) {
        if let Some(slot) = self.assessment.slots.get_mut(index) {
            slot.admit(why);
        }
    }

    /// As [`Self::admit`], by the activator: the withdrawal counts as a retry.
    pub(super) fn admit_as_retry(&mut self, index: usize, why: &'static str) {
        if let Some(slot) = self.assessment.slots.get_mut(index) {
            slot.counts = slot.admit(why);
        }
    }

    /// The pause of a person is no longer one: the same or another person asks for the opposite.
    pub(super) fn take_over(&mut self, index: usize) {
        if let Some(slot) = self.assessment.slots.get_mut(index).filter(|slot| slot.entry.human) {
            slot.entry.to_mut().human = false;
        }
    }

    /// Keeps every entry that is withheld as it is.
    pub(super) fn keep_all(&mut self, why: &'static str) {
        for slot in &mut self.assessment.slots {
            if matches!(slot.decision, EntryDecision::Keep | EntryDecision::Pause | EntryDecision::Kill) {
                slot.decide(EntryDecision::Keep, why);
            }
        }
    }

    /// A new entry for a candidate.
    pub(super) fn reserve(&mut self, candidate: usize, entry: Entry) {
        let (entry, decision) = (std::borrow::Cow::Owned(entry), EntryDecision::Withhold);
        let slot = EntryAssessment::new(entry, Some(candidate), decision, "withheld now");
        let index = self.assessment.slots.len();
        self.assessment.slots.push(slot);
        if let Some(candidate) = self.assessment.candidates.get_mut(candidate) {
            candidate.slot = Some(index);
        }
    }

    /// Indices of the candidates that match.
    pub(super) fn indices(&self, matches: impl Fn(&Candidate<'_>) -> bool) -> Vec<usize> {
        let all = self.assessment.candidates.iter().enumerate();
        all.filter(|(_, candidate)| matches(candidate)).map(|(index, _)| index).collect()
    }

    /// Those that people ask for, then by severity, then number of withdrawals, then UID, so that every process takes the same pods.
    pub(super) fn worst_first(&self, indices: &mut [usize]) {
        let rank = |index: usize| {
            let candidate = self.assessment.candidates.get(index);
            let objection = candidate.and_then(|candidate| candidate.objection);
            let returned = candidate.and_then(|candidate| candidate.returned);
            // A request comes before every verdict, whose severity is at most 1.
            let asked = candidate.is_some_and(|candidate| candidate.is_asked_to(Call::Withhold));
            let severity = if asked { 2.0 } else { objection.map_or(0.0, |it| it.severity) };
            (severity, returned.map_or(0, |pod| pod.retry_count))
        };
        indices.sort_unstable_by(|&a, &b| {
            let ((x, m), (y, n)) = (rank(a), rank(b));
            y.total_cmp(&x).then(n.cmp(&m)).then(a.cmp(&b))
        });
    }

    /// Nothing may be written to the entry's pod yet.
    pub(super) fn barred(&self, index: usize) -> bool {
        self.candidate_of(index).is_some_and(|candidate| candidate.pod.barred())
    }

    /// Bad pods per thousand serving ones.
    pub(super) fn bad_share(&self) -> u16 {
        let serving = || self.assessment.candidates.iter().filter(|candidate| candidate.serving);
        let bad = serving().filter(|candidate| candidate.objection.is_some()).count();
        u16::try_from(bad * 1000 / serving().count().max(1)).unwrap_or(1000)
    }

    /// A breaker of the policy that has not run since the start: a missing verdict is not a good one.
    pub(super) fn not_evaluated(&self, breaker: &str) -> bool {
        self.policy.breaker(breaker).is_some()
            && !self.verdicts.sources.iter().any(|source| source.name == breaker)
    }

    /// The breaker is below its coverage, and its `onNoData` is `restore`.
    pub(super) fn blind_restore(&self, breaker: &str) -> bool {
        self.evidence.blind.iter().any(|(blind, _)| *blind == breaker)
            && self.policy.breaker(breaker).is_some_and(|breaker| breaker.on_no_data == OnNoData::Restore)
    }

    /// See [`super::Plan::next_wakeup`].
    pub(super) fn wakeup(&self) -> Option<Timestamp> {
        let slots = self.assessment.slots.iter().filter_map(|slot| slot.due.map(|(_, at)| at));
        let joining = self.assessment.candidates.iter().filter(|candidate| candidate.joining);
        let counted = joining.filter_map(|candidate| Some(candidate.pod.unlisted_since? + ADMISSION));
        let spared = self.assessment.candidates.iter().filter(|candidate| candidate.objection.is_some());
        let spared = spared.filter_map(|candidate| candidate.returned?.spare_until);
        let useless = self.assessment.slots.iter().filter_map(|slot| {
            slot.entry.bad_before?;
            Some(slot.entry.break_at + self.policy.revert_if_no_better?)
        });
        let calm = self.panic.filter(|_| !self.share.over());
        let calm = calm.map(|panic| panic.looked_at + shortest_period(self.policy));
        let asked = self.assessment.candidates.iter().filter_map(|candidate| Some(candidate.asked?.until));
        let all = slots
            .chain(asked)
            .chain(self.reverted_until)
            .chain(counted)
            .chain(spared)
            .chain(useless)
            .chain(calm);
        all.filter(|at| *at > self.now).min()
    }
}

/// The shortest evaluation period; 5 s without breakers.
fn shortest_period(policy: &Policy) -> Duration {
    let shortest = policy.breakers.iter().map(|breaker| breaker.evaluation_period).min();
    shortest.unwrap_or(Duration::from_secs(5))
}

fn budget(policy: &Policy, fleet: &Fleet, assessment: &Assessment<'_>) -> Budget {
    let candidates = || assessment.candidates.iter();
    Budget {
        desired: fleet.desired,
        existing: count(
            candidates().filter(|candidate| candidate.pod.selected && !candidate.pod.terminating),
        ),
        floor: Budget::floor(policy, fleet.desired),
        serving: count(candidates().filter(|candidate| candidate.serving)),
        joining: count(candidates().filter(|candidate| candidate.joining)),
        entries: count(assessment.slots.iter().filter(|slot| slot.held() && !assessment.has_left(slot))),
    }
}

/// Indices of the pods without our name, without a fence of this ledger or without a switch; and of those whose fence
/// was set back (a restored backup): their entries are released only by a newer fence.
///
/// In a dry run, and for a resource that ends, only those with an entry, so that they can be given back.
fn claims(policy: &Policy, fleet: &Fleet, assessment: &Assessment<'_>, write_fence: Fence) -> Vec<usize> {
    let all = assessment.candidates.iter().enumerate().filter(|(_, candidate)| !candidate.pod.terminating);
    let unclaimed = all.filter(|(_, candidate)| {
        let pod = candidate.pod;
        let slot = assessment.slot_of(candidate);
        let behind = |fence| {
            let held = slot.filter(|_| fleet.absence_proven);
            held.is_some_and(|slot: &EntryAssessment<'_>| slot.entry.fence.newer(fence))
        };
        let fenced = pod.fence.is_some_and(|fence| fence.epoch == write_fence.epoch && !behind(fence));
        if policy.dry_run || fleet.leaving {
            let waits = slot.is_some_and(|slot| slot.decision == EntryDecision::Wait);
            let taken_over = pod.taken_over(write_fence.epoch);
            return waits && !taken_over && (!fenced || pod.traffic == Traffic::Unlabelled);
        }
        if !pod.selected {
            // Only so that it can be given back.
            return pod.fence.is_none_or(|fence| pod.claimed && fence.epoch != write_fence.epoch);
        }
        !pod.claimed || !fenced || pod.traffic == Traffic::Unlabelled
    });
    unclaimed.map(|(index, _)| index).collect()
}
