//! Second step: hears all sources together, and decides which of them may be believed at all.
//!
//! One breaker after the other would spend one budget each on the same pods, and a source that sees
//! three pods of fifty would empty a fleet on their account: so the strictest word per pod is put
//! together first, and a breaker below its coverage has no word.

use std::cmp::Ordering;

use super::assessment::{Assessment, Candidate, Objection};
use crate::decide::{
    fleet::Uid,
    policy::Policy,
    verdict::{Call, Judgement, Opinion, Source, SourceKind, Verdicts},
};

/// What was learnt about the sources themselves.
#[derive(Debug, Default)]
pub(super) struct SourceEvidence<'a> {
    /// Breakers that ran and see too little.
    pub(super) blind: Vec<&'a str>,
    /// A callback was given the whole fleet: whom it does not name it has nothing against.
    pub(super) all_seen: bool,
}

/// Writes into the candidates what is in force for them.
pub(super) fn hear<'a>(
    policy: &'a Policy,
    verdicts: &'a Verdicts,
    assessment: &mut Assessment<'a>,
) -> SourceEvidence<'a> {
    let mut source_evidence = SourceEvidence::default();
    for source in &verdicts.sources {
        match source.kind {
            SourceKind::Callback => {
                source_evidence.all_seen = true;
                apply(source, false, &mut assessment.candidates);
            }
            SourceKind::Breaker => {
                let Some(breaker) = policy.breaker(&source.name) else { continue };
                if covers(source, breaker.min_coverage, &assessment.candidates) {
                    apply(source, breaker.dry_run, &mut assessment.candidates);
                } else {
                    source_evidence.blind.push(&breaker.name);
                }
            }
        }
    }
    source_evidence
}

/// Enough of the serving pods have a verdict from it.
fn covers(source: &Source, min_coverage: u8, candidates: &[Candidate<'_>]) -> bool {
    let serving = candidates.iter().filter(|candidate| candidate.serving).count();
    let (mut seen, mut any) = (0, false);
    join(
        source,
        |index, opinion| {
            if knows(opinion) {
                any = true;
                seen += usize::from(candidates.get(index).is_some_and(|candidate| candidate.serving));
            }
        },
        candidates,
        |candidate| &candidate.pod.uid,
    );
    any && seen * 100 >= serving * usize::from(min_coverage)
}

fn knows(opinion: &Opinion) -> bool {
    matches!(opinion, Opinion::Called { .. } | Opinion::Judged(Judgement::Good | Judgement::Bad { .. }))
}

fn apply<'a>(source: &'a Source, rehearsing: bool, candidates: &mut [Candidate<'a>]) {
    let mut heard = Vec::with_capacity(source.opinions().len());
    join(source, |index, opinion| heard.push((index, opinion)), candidates, |candidate| &candidate.pod.uid);
    for (index, opinion) in heard {
        let Some(candidate) = candidates.get_mut(index) else { continue };
        if rehearsing {
            if opinion.objects() {
                candidate.rehearsed = Some(&source.name);
            }
            continue;
        }
        candidate.judged |= knows(opinion);
        candidate.admit |= matches!(opinion, Opinion::Called { call: Call::Admit, .. });
        let new = objection(source, opinion);
        if let Some(new) = new.filter(|new| candidate.objection.is_none_or(|old| stricter(new, &old).is_gt()))
        {
            candidate.objection = Some(new);
        }
    }
}

fn objection<'a>(source: &'a Source, opinion: &'a Opinion) -> Option<Objection<'a>> {
    let (call, breaker) = match opinion {
        Opinion::Judged(Judgement::Bad { .. }) => (Call::Withhold, source.name.as_str()),
        Opinion::Called { call, breaker, .. } if *call >= Call::Withhold => {
            (*call, breaker.as_deref().unwrap_or(&source.name))
        }
        _ => return None,
    };
    Some(Objection { breaker, severity: opinion.severity(), call, opinion })
}

fn stricter(a: &Objection<'_>, b: &Objection<'_>) -> Ordering {
    a.call.cmp(&b.call).then(a.severity.total_cmp(&b.severity))
}

/// Calls `each` with the place in `all` and the opinion of every pod that the source knows; both are in order.
fn join<'a, T>(
    source: &'a Source,
    mut each: impl FnMut(usize, &'a Opinion),
    all: &[T],
    uid: impl Fn(&T) -> &Uid,
) {
    let mut opinions = source.opinions().iter().peekable();
    for (index, item) in all.iter().enumerate() {
        while opinions.next_if(|(key, _)| key < uid(item)).is_some() {}
        if let Some((_, opinion)) = opinions.next_if(|(key, _)| key == uid(item)) {
            each(index, opinion);
        }
    }
}
