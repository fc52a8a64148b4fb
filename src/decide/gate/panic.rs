//! When most of the fleet looks bad it is the signal, or something that all share: hands off.
//!
//! Entered at once, because each minute of doubt costs pods. Left only after two calm evaluations,
//! because a share that hovers at the threshold would cut and restore half of the fleet in turns.

use std::time::Duration;

use super::{assessment::Assessment, evidence::SourceEvidence, ledger};
use crate::decide::{policy::Policy, time::Timestamp, verdict::Verdicts};

/// For silence, when the policy has no threshold: deafness looks exactly like a fleet that died.
const SILENCE_THRESHOLD: u8 = 50;

/// How much of the fleet looks bad.
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

/// Pods judged bad, withheld ones included, over the pods with a verdict. Without a threshold only silence counts.
pub(super) fn share(
    policy: &Policy,
    source_evidence: &SourceEvidence<'_>,
    assessment: &Assessment<'_>,
) -> BadShare {
    let fleet = || assessment.candidates.iter().filter(|candidate| !candidate.pod.terminating);
    let silent = fleet().filter(|candidate| candidate.silent()).count();
    let Some(threshold) = policy.panic_threshold else {
        return BadShare { bad: silent, of: fleet().count(), threshold: SILENCE_THRESHOLD };
    };
    let all_seen = source_evidence.all_seen || silent > 0;
    if !all_seen && !fleet().any(|candidate| candidate.judged || candidate.objection.is_some()) {
        // Nobody has said a word yet: what the ledger remembers is no share of anything.
        return BadShare { bad: 0, of: 0, threshold };
    }
    let (mut bad, mut of) = (0, 0);
    for candidate in fleet() {
        let slot = candidate.slot.and_then(|slot| assessment.slots.get(slot));
        let out = slot.is_some_and(|slot| {
            slot.held()
                && !candidate.judged
                && !candidate.admit
                && slot.entry.breaker != super::assessment::SILENCE
        });
        let is_bad = candidate.objection.is_some() || candidate.silent() || out;
        bad += usize::from(is_bad);
        of += usize::from(is_bad || candidate.judged || all_seen);
    }
    BadShare { bad, of, threshold }
}

/// The state of panic after this look; unchanged when there was nothing new to look at.
pub(super) fn step(
    now: Timestamp,
    was: Option<ledger::Panic>,
    over: bool,
    verdicts: &Verdicts,
    pause: Duration,
) -> Option<ledger::Panic> {
    let evaluation = verdicts.evaluation;
    match was {
        None => over.then_some(ledger::Panic { since: now, evaluation, looked_at: now, calm: 0 }),
        Some(was) if over && was.calm == 0 => Some(was),
        Some(was) if over => Some(ledger::Panic { evaluation, looked_at: now, calm: 0, ..was }),
        // an evaluation is a new run of a source, or, where nothing runs, the time that a run would take
        Some(was) if evaluation == was.evaluation && now.since(was.looked_at) < pause => Some(was),
        Some(was) if was.calm >= 1 => None,
        Some(was) => Some(ledger::Panic { evaluation, looked_at: now, calm: 1, ..was }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    fn look(was: Option<ledger::Panic>, second: i64, evaluation: u64, over: bool) -> Option<ledger::Panic> {
        let verdicts = Verdicts { evaluation, sources: Vec::new() };
        step(Timestamp::from_unix_millis(second * 1000), was, over, &verdicts, PAUSE)
    }

    #[test]
    fn panic_is_entered_at_once_and_left_after_two_calm_evaluations() {
        assert_eq!(look(None, 0, 1, false), None);
        let panic = look(None, 0, 1, true);
        assert!(panic.is_some());
        assert_eq!(look(panic, 1, 1, false), panic, "the same evaluation again says nothing new");
        let calm = look(panic, 1, 2, false);
        assert_eq!(calm.unwrap().calm, 1);
        assert_eq!(look(calm, 2, 2, false), calm);
        assert_eq!(look(calm, 2, 3, true).unwrap().calm, 0, "calm must be twice in a row");
        assert_eq!(look(calm, 2, 3, false), None);
    }

    #[test]
    fn where_no_source_runs_time_counts_as_an_evaluation() {
        let panic = look(None, 0, 1, true);
        let calm = look(panic, 6, 1, false);
        assert_eq!(calm.unwrap().calm, 1);
        assert_eq!(look(calm, 12, 1, false), None);
    }
}
