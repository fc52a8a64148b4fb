//! Second step: merges the verdicts of all sources into the strictest one for each pod.
//!
//! Merged first, because one breaker after the other would spend one budget each. A breaker whose
//! verdicts cover less than `minCoveragePercent` of the serving pods is left out: three bad pods of
//! three seen, in a fleet of fifty, are no reason to withhold.

use std::cmp::Ordering;

use super::assessment::{Asked, Assessment, Candidate, EntryAssessment, Objection, UidJoin};
use crate::decide::{
    fleet::Uid,
    policy::Policy,
    time::Timestamp,
    verdict::{Call, Judgement, NoVerdicts, Opinion, Source, SourceKind, Verdicts},
};

/// Which sources could be used.
#[derive(Debug, Default)]
pub(super) struct SourceEvidence<'a> {
    /// Breakers below their coverage, with the reasons.
    pub(super) blind: Vec<(&'a str, NoVerdicts)>,
    /// A callback ran. It is given the whole fleet, so it has no objection to a pod that it does not name.
    pub(super) all_seen: bool,
}

/// Writes the verdicts in force into the candidates.
pub(super) fn apply_verdicts<'a>(
    now: Timestamp,
    policy: &'a Policy,
    verdicts: &'a Verdicts,
    assessment: &mut Assessment<'a>,
) -> SourceEvidence<'a> {
    let mut evidence = SourceEvidence::default();
    // Without a pod that serves or is withheld there is nothing to have a verdict about.
    let subjects = assessment.candidates.iter().any(|candidate| candidate.serving)
        || assessment.slots.iter().any(EntryAssessment::held);
    for source in &verdicts.sources {
        match source.kind {
            SourceKind::Callback => {
                evidence.all_seen = true;
                apply(source, false, &mut assessment.candidates);
            }
            SourceKind::Person => apply_requests(now, source, &mut assessment.candidates),
            SourceKind::Breaker => {
                let Some(breaker) = policy.breaker(&source.name) else { continue };
                match covers(source, breaker.min_coverage, &assessment.candidates) {
                    Err(reasons) if subjects => evidence.blind.push((&breaker.name, reasons)),
                    Ok(()) | Err(_) => apply(source, breaker.dry_run, &mut assessment.candidates),
                }
            }
        }
    }
    evidence
}

/// Whether at least `min_coverage` percent of the serving pods, and any pod at all, have a verdict from `source`.
///
/// # Errors
/// The reasons of the pods without one.
fn covers(source: &Source, min_coverage: u8, candidates: &[Candidate<'_>]) -> Result<(), NoVerdicts> {
    let mut opinions = by_uid(source);
    let (mut serving, mut covered, mut any) = (0, 0, false);
    let mut reasons = NoVerdicts::default();
    for candidate in candidates {
        let opinion = opinions.at(&candidate.pod.uid);
        let judged = opinion.is_some_and(is_verdict);
        any |= judged;
        serving += usize::from(candidate.serving);
        covered += usize::from(candidate.serving && judged);
        reasons.count(match opinion {
            Some(Opinion::Judged(Judgement::None(cause))) => Some(cause),
            _ => None,
        });
    }
    let enough = any && covered * 100 >= serving * usize::from(min_coverage);
    if enough { Ok(()) } else { Err(reasons) }
}

fn is_verdict(opinion: &Opinion) -> bool {
    matches!(opinion, Opinion::Called { .. } | Opinion::Judged(Judgement::Good | Judgement::Bad { .. }))
}

fn apply<'a>(source: &'a Source, dry_run: bool, candidates: &mut [Candidate<'a>]) {
    let mut opinions = by_uid(source);
    for candidate in candidates {
        let Some(opinion) = opinions.at(&candidate.pod.uid) else { continue };
        if dry_run {
            if opinion.objects() {
                candidate.rehearsed = Some(&source.name);
            }
            continue;
        }
        candidate.judged |= is_verdict(opinion);
        candidate.admit |= matches!(opinion, Opinion::Called { call: Call::Admit, .. });
        let new = objection(source, opinion);
        if let Some(new) = new.filter(|new| candidate.objection.is_none_or(|old| stricter(new, &old).is_gt()))
        {
            candidate.objection = Some(new);
        }
    }
}

/// A request is no verdict on the pod's health: neither coverage nor panic counts it.
fn apply_requests<'a>(now: Timestamp, source: &'a Source, candidates: &mut [Candidate<'a>]) {
    let mut opinions = by_uid(source);
    for candidate in candidates {
        if let Some(Opinion::Requested { call, reason, until }) = opinions.at(&candidate.pod.uid)
            && *until > now
        {
            candidate.asked = Some(Asked { call: *call, reason, until: *until });
        }
    }
}

fn by_uid(source: &Source) -> UidJoin<impl Iterator<Item = (&Uid, &Opinion)>> {
    UidJoin::new(source.opinions().iter().map(|(uid, opinion)| (uid, opinion)))
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
