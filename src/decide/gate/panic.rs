//! Panic: when most of the fleet looks bad, the signal or a shared dependency is the likely cause, so nothing is withheld.
//!
//! Entered at once. Left after two evaluations in a row below the threshold, because a share around
//! the threshold would otherwise withhold and restore half of the fleet in turns.

use std::time::Duration;

use super::{
    assessment::Assessment,
    evidence::SourceEvidence,
    ledger,
    ledger::{PERSON, SILENCE},
};
use crate::decide::{policy::Policy, time::Timestamp, verdict::Verdicts};

/// Percent of silent pods, without a threshold in the policy: a partition of the master looks like a dead fleet.
const SILENCE_THRESHOLD: u8 = 50;

/// `bad` of `of` pods, and the threshold in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadShare {
    pub(super) bad: usize,
    pub(super) of: usize,
    pub(super) threshold: u8,
}

impl BadShare {
    pub(super) fn over(self) -> bool {
        self.bad * 100 > self.of * usize::from(self.threshold)
    }
}

/// Bad pods, withheld ones included, of the pods with a verdict. Without a threshold only silent pods count.
pub(super) fn share(policy: &Policy, evidence: &SourceEvidence<'_>, assessment: &Assessment<'_>) -> BadShare {
    let fleet = || assessment.candidates.iter().filter(|candidate| !candidate.pod.terminating);
    let silent = fleet().filter(|candidate| candidate.silent()).count();
    let Some(threshold) = policy.panic_threshold else {
        return BadShare { bad: silent, of: fleet().count(), threshold: SILENCE_THRESHOLD };
    };
    let all_seen = evidence.all_seen || silent > 0;
    if !all_seen && !fleet().any(|candidate| candidate.judged || candidate.objection.is_some()) {
        // No verdict at all: the entries of the ledger alone are no share of the fleet.
        return BadShare { bad: 0, of: 0, threshold };
    }
    let (mut bad, mut of) = (0, 0);
    for candidate in fleet() {
        let unjudged = !candidate.judged && !candidate.admit;
        let out = assessment.slot_of(candidate).is_some_and(|slot| {
            slot.held() && unjudged && ![SILENCE, PERSON].contains(&slot.entry.breaker.as_str())
        });
        let is_bad = candidate.objection.is_some() || candidate.silent() || out;
        bad += usize::from(is_bad);
        of += usize::from(is_bad || candidate.judged || all_seen);
    }
    BadShare { bad, of, threshold }
}

/// The state of panic after this plan; unchanged without a new evaluation, which is a new run of a source or, when no
/// source runs, `period` since the last one.
pub(super) fn next(
    now: Timestamp,
    was: Option<ledger::Panic>,
    over: bool,
    verdicts: &Verdicts,
    period: Duration,
) -> Option<ledger::Panic> {
    let evaluation = verdicts.evaluation;
    match was {
        None => over.then_some(ledger::Panic { since: now, evaluation, looked_at: now, calm: 0 }),
        Some(was) if over && was.calm == 0 => Some(was),
        Some(was) if over => Some(ledger::Panic { evaluation, looked_at: now, calm: 0, ..was }),
        Some(was) if evaluation == was.evaluation && now.since(was.looked_at) < period => Some(was),
        Some(was) if was.calm >= 1 => None,
        Some(was) => Some(ledger::Panic { evaluation, looked_at: now, calm: 1, ..was }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);

    fn after(was: Option<ledger::Panic>, second: i64, evaluation: u64, over: bool) -> Option<ledger::Panic> {
        let verdicts = Verdicts { evaluation, sources: Vec::new() };
        next(Timestamp::from_unix_millis(second * 1000), was, over, &verdicts, PERIOD)
    }

    #[test]
    fn panic_is_entered_at_once_and_left_after_two_calm_evaluations() {
        assert_eq!(after(None, 0, 1, false), None);
        let panic = after(None, 0, 1, true);
        assert!(panic.is_some());
        assert_eq!(after(panic, 1, 1, false), panic, "the same evaluation changes nothing");
        let calm = after(panic, 1, 2, false);
        assert_eq!(calm.unwrap().calm, 1);
        assert_eq!(after(calm, 2, 2, false), calm);
        assert_eq!(after(calm, 2, 3, true).unwrap().calm, 0, "calm must be twice in a row");
        assert_eq!(after(calm, 2, 3, false), None);
    }

    #[test]
    fn where_no_source_runs_time_counts_as_an_evaluation() {
        let panic = after(None, 0, 1, true);
        let calm = after(panic, 6, 1, false);
        assert_eq!(calm.unwrap().calm, 1);
        assert_eq!(after(calm, 12, 1, false), None);
    }
}
