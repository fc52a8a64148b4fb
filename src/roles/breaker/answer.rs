//! From judgements to what a callback prints.
//!
//! The gate behind the callback knows nothing of this policy, so what the policy says about believing a
//! detector at all is settled here: the coverage, the panic threshold, dry run and pause. The floor, the
//! activator and the retry counts stay the gate's.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::briefing::{Briefing, Memory, Pod};
use crate::{
    api::Manifest,
    decide::{
        detect::{self, Ask, Observation},
        fleet::{Traffic, Uid},
        policy::{Breaker, OnNoData, Policy},
        time::Timestamp,
        verdict::{Call, Evidence, Judgement, Opinion, Source},
    },
};

/// Panic is over after so many evaluations below the threshold.
const CALM: u32 = 2;

/// What is printed.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Answer {
    pub(super) traffic: Vec<Asked>,
    /// Seconds.
    pub(super) again: f64,
    #[serde(flatten)]
    pub(super) memory: Memory,
}

/// One verdict.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Asked {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) key: String,
    pub(super) verdict: Call,
    pub(super) reason: String,
    pub(super) severity: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) breaker: Option<String>,
}

/// The worst that was found about one pod.
struct Finding<'a> {
    breaker: &'a Breaker,
    severity: f64,
    evidence: &'a Evidence,
}

/// What all breakers found together.
#[derive(Default)]
struct Findings<'a> {
    worst: HashMap<&'a Uid, Finding<'a>>,
    /// Pods that some breaker has a verdict for.
    judged: HashSet<&'a Uid>,
    /// Breakers that see too few of the serving pods.
    blind: Vec<&'a Breaker>,
}

impl Answer {
    /// Judges the pods.
    pub(super) fn new(manifest: &Manifest, now: Timestamp, briefing: Briefing) -> Self {
        let Briefing { pods, mut memory } = briefing;
        let observations: Vec<Observation> = pods.iter().map(|pod| pod.observation.clone()).collect();
        let due = memory.windows.any_due(now, &manifest.rules);
        let looked = detect::evaluate(&manifest.rules, now, &observations, &mut memory.windows, Ask::All);
        let findings = findings(&manifest.policy, &looked.sources, &pods);
        memory.panic = panic(manifest.policy.panic_threshold, memory.panic, due, &findings);
        let traffic = ask(&manifest.policy, memory.panic.is_some(), &findings, &pods);
        let again = looked.next_wakeup.map_or(86_400.0, |at| at.since(now).as_secs_f64().max(0.1));
        Self { traffic, again, memory }
    }
}

fn findings<'a>(policy: &'a Policy, sources: &'a [Source], pods: &[Pod]) -> Findings<'a> {
    let mut findings = Findings::default();
    let serving: HashSet<&Uid> = pods
        .iter()
        .filter(|pod| !pod.observation.withheld && pod.observation.status != detect::Status::Down)
        .map(|pod| &pod.observation.uid)
        .collect();
    for (source, breaker) in sources.iter().filter_map(|source| Some((source, policy.breaker(&source.name)?)))
    {
        let judged = || source.opinions().iter().filter_map(|(uid, opinion)| Some((uid, known(opinion)?)));
        let seen = judged().filter(|(uid, _)| serving.contains(uid)).count();
        if judged().next().is_none() || seen * 100 < serving.len() * usize::from(breaker.min_coverage) {
            findings.blind.push(breaker);
            continue;
        }
        for (uid, bad) in judged() {
            if breaker.dry_run {
                if let Some((_, evidence)) = bad {
                    tracing::warn!(pod = %uid, breaker = breaker.name, %evidence, "dry run: would withhold");
                }
                continue;
            }
            findings.judged.insert(uid);
            let Some((severity, evidence)) = bad else { continue };
            let finding = Finding { breaker, severity, evidence };
            let worse = findings.worst.get(uid).is_none_or(|old| severity > old.severity);
            if worse {
                findings.worst.insert(uid, finding);
            }
        }
    }
    findings
}

/// `None`: nothing is known; `Some(None)`: good.
fn known(opinion: &Opinion) -> Option<Option<(f64, &Evidence)>> {
    match opinion {
        Opinion::Judged(Judgement::Good) => Some(None),
        Opinion::Judged(Judgement::Bad { severity, evidence }) => Some(Some((*severity, evidence))),
        Opinion::Judged(Judgement::NoData | Judgement::Stale | Judgement::Error) | Opinion::Called { .. } => {
            None
        }
    }
}

/// Entered at once, left after [`CALM`] evaluations below the threshold.
fn panic(threshold: Option<u8>, was: Option<u32>, due: bool, findings: &Findings<'_>) -> Option<u32> {
    let threshold = threshold?;
    let (bad, of) = (findings.worst.len(), findings.judged.len());
    if bad * 100 > of * usize::from(threshold) {
        tracing::warn!(bad, of, threshold, "most pods look bad: nobody is withheld, everybody comes back");
        return Some(0);
    }
    was.map(|calm| calm + u32::from(due)).filter(|calm| *calm < CALM)
}

fn ask(policy: &Policy, panic: bool, findings: &Findings<'_>, pods: &[Pod]) -> Vec<Asked> {
    if policy.paused {
        return Vec::new();
    }
    pods.iter().filter_map(|pod| ask_for(policy, panic, findings, pod)).collect()
}

fn ask_for(policy: &Policy, panic: bool, findings: &Findings<'_>, pod: &Pod) -> Option<Asked> {
    let back = |reason: &str| {
        (pod.traffic == Traffic::No).then(|| asked(pod, Call::Admit, reason.to_owned(), 0.0, None))
    };
    if policy.dry_run {
        return back("dry run: everybody gets traffic");
    }
    if panic {
        return back("panic: most of the fleet looks bad, so it is not the pods");
    }
    if let Some(Finding { breaker, severity, evidence }) = findings.worst.get(&pod.observation.uid) {
        let breaker = Some(breaker.name.clone());
        return Some(asked(pod, Call::Withhold, evidence.to_string(), *severity, breaker));
    }
    let gave_up = |breaker: &&Breaker| {
        breaker.on_no_data == OnNoData::Restore && pod.breaker.as_ref() == Some(&breaker.name)
    };
    findings
        .blind
        .iter()
        .copied()
        .find(gave_up)
        .and_then(|_| back("no data: the breaker restores what it withheld"))
}

fn asked(pod: &Pod, verdict: Call, reason: String, severity: f64, breaker: Option<String>) -> Asked {
    let id = pod.observation.id.clone();
    let key = if id.is_empty() { pod.key.clone() } else { String::new() };
    Asked { id, key, verdict, reason, severity, breaker }
}
