//! A callback's output: verdicts made from judgements.
//!
//! The gate that reads the output does not have this policy, so its coverage, panic threshold, dry run and pause apply
//! here. Floor, activator and retry counts are the gate's.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::input::{BreakerInput, BreakerState, InputPod};
use crate::{
    api::Manifest,
    decide::{
        detect::{self, BreakerSelection, Observation},
        fleet::{Traffic, Uid},
        policy::{Breaker, OnNoData, Policy},
        time::Timestamp,
        verdict::{Call, Evidence, Judgement, Opinion, Source},
    },
};

/// Evaluations below the threshold after which panic ends.
const CALM: u32 = 2;

/// Printed as JSON.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct CallbackOutput {
    pub(super) traffic: Vec<VerdictOut>,
    /// Seconds until the next run.
    pub(super) again: f64,
    #[serde(flatten)]
    pub(super) state: BreakerState,
}

/// One verdict.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct VerdictOut {
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

/// The worst judgement of one pod.
struct BadPod<'a> {
    breaker: &'a Breaker,
    severity: f64,
    evidence: &'a Evidence,
}

/// The judgements of all breakers.
#[derive(Default)]
struct Findings<'a> {
    worst: HashMap<&'a Uid, BadPod<'a>>,
    /// Pods with a judgement.
    judged: HashSet<&'a Uid>,
    /// Breakers whose judgements cover too few of the serving pods.
    blind: Vec<&'a Breaker>,
}

impl CallbackOutput {
    /// Judges the pods.
    pub(super) fn new(manifest: &Manifest, now: Timestamp, input: BreakerInput) -> Self {
        let BreakerInput { pods, mut state } = input;
        let observations: Vec<Observation> = pods.iter().map(|pod| pod.observation.clone()).collect();
        let due = state.windows.any_due(now, &manifest.rules);
        let evaluation =
            detect::evaluate(&manifest.rules, now, &observations, &mut state.windows, BreakerSelection::All);
        let findings = findings(&manifest.policy, &evaluation.sources, &pods);
        state.panic = panic(manifest.policy.panic_threshold, state.panic, due, &findings);
        let traffic = verdicts(&manifest.policy, state.panic.is_some(), &findings, &pods);
        let again = evaluation.next_wakeup.map_or(86_400.0, |at| at.since(now).as_secs_f64().max(0.1));
        Self { traffic, again, state }
    }
}

fn findings<'a>(policy: &'a Policy, sources: &'a [Source], pods: &[InputPod]) -> Findings<'a> {
    let mut findings = Findings::default();
    let serving: HashSet<&Uid> = pods
        .iter()
        .filter(|pod| !pod.observation.withheld && pod.observation.status != detect::LifeStatus::Down)
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
            let finding = BadPod { breaker, severity, evidence };
            let worse = findings.worst.get(uid).is_none_or(|old| severity > old.severity);
            if worse {
                findings.worst.insert(uid, finding);
            }
        }
    }
    findings
}

/// `None`: no data; `Some(None)`: good.
fn known(opinion: &Opinion) -> Option<Option<(f64, &Evidence)>> {
    match opinion {
        Opinion::Judged(Judgement::Good) => Some(None),
        Opinion::Judged(Judgement::Bad { severity, evidence }) => Some(Some((*severity, evidence))),
        Opinion::Judged(Judgement::None(_)) | Opinion::Called { .. } | Opinion::Requested { .. } => None,
    }
}

/// Entered at once, left after [`CALM`] evaluations below the threshold.
fn panic(threshold: Option<u8>, was: Option<u32>, due: bool, findings: &Findings<'_>) -> Option<u32> {
    let threshold = threshold?;
    let (bad, of) = (findings.worst.len(), findings.judged.len());
    if bad * 100 > of * usize::from(threshold) {
        tracing::warn!(
            bad,
            of,
            threshold,
            "panic: most pods look bad, so none is withheld and all are admitted"
        );
        return Some(0);
    }
    was.map(|calm| calm + u32::from(due)).filter(|calm| *calm < CALM)
}

fn verdicts(policy: &Policy, panic: bool, findings: &Findings<'_>, pods: &[InputPod]) -> Vec<VerdictOut> {
    if policy.paused {
        return Vec::new();
    }
    pods.iter().filter_map(|pod| verdict_for(policy, panic, findings, pod)).collect()
}

fn verdict_for(policy: &Policy, panic: bool, findings: &Findings<'_>, pod: &InputPod) -> Option<VerdictOut> {
    let admit = |reason: &str| {
        (pod.traffic == Traffic::No).then(|| verdict_out(pod, Call::Admit, reason.to_owned(), 0.0, None))
    };
    if policy.dry_run {
        return admit("dry run: all pods get traffic");
    }
    if panic {
        return admit("panic: most of the fleet looks bad, so the cause is not in the pods");
    }
    if let Some(BadPod { breaker, severity, evidence }) = findings.worst.get(&pod.observation.uid) {
        let breaker = Some(breaker.name.clone());
        return Some(verdict_out(pod, Call::Withhold, evidence.to_string(), *severity, breaker));
    }
    let restores = |breaker: &&Breaker| {
        breaker.on_no_data == OnNoData::Restore && pod.breaker.as_ref() == Some(&breaker.name)
    };
    findings
        .blind
        .iter()
        .copied()
        .find(restores)
        .and_then(|_| admit("no data: the breaker restores what it withheld"))
}

fn verdict_out(
    pod: &InputPod,
    verdict: Call,
    reason: String,
    severity: f64,
    breaker: Option<String>,
) -> VerdictOut {
    let id = pod.observation.id.clone();
    let key = if id.is_empty() { pod.key.clone() } else { String::new() };
    VerdictOut { id, key, verdict, reason, severity, breaker }
}
