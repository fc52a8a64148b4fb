//! Proposals with their reasons, as YAML documents with comments.

use std::{cmp::Ordering, fmt::Write as _};

use super::{
    grouping::GroupedBy,
    proposal::{Proposal, ServerName},
    ranking::Usefulness,
};
use crate::{
    exit::Exit,
    roles::{
        output::visible,
        report::{
            model::{PolicyReport, ReportModel},
            text::number,
            time_range::TimeRange,
        },
    },
};

/// Episodes that are named.
const NAMED: usize = 3;
/// Characters of a name or a reason that are shown.
const SHOWN: usize = 300;

/// A proposal and what its replay has shown.
pub(super) struct ReplayedProposal {
    proposal: Proposal,
    manifest: String,
    pub(super) usefulness: Usefulness,
    pod_minutes: f64,
    /// In sentences.
    findings: Vec<String>,
}

impl ReplayedProposal {
    pub(super) fn new(proposal: Proposal, manifest: String, outcome: Result<ReportModel, Exit>) -> Self {
        let replayed = outcome.and_then(|mut model| match model.policies.pop() {
            Some(policy) => Ok((model, policy)),
            None => Err(Exit::Failed(anyhow::anyhow!("the replay has no policy"))),
        });
        let (usefulness, pod_minutes, findings) = match replayed {
            Ok((model, policy)) => {
                let minutes = model.replayed_to.since(model.from).as_secs_f64() / 60.0;
                let usefulness = Usefulness::of(&policy.summary, model.fleet.pods, minutes);
                (usefulness, policy.summary.pod_minutes_withheld, findings(&model, &policy))
            }
            Err(why) => (Usefulness::Unknown, 0.0, vec![why.to_string()]),
        };
        Self { proposal, manifest, usefulness, pod_minutes, findings }
    }

    /// The most useful first; then the one with more to show, then the larger one.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let size = |one: &Self| one.proposal.group.pods.len();
        self.usefulness
            .cmp(&other.usefulness)
            .then_with(|| other.pod_minutes.total_cmp(&self.pod_minutes))
            .then_with(|| size(other).cmp(&size(self)))
            .then_with(|| self.proposal.group.name.cmp(&other.proposal.group.name))
    }
}

/// What the replay has shown, in sentences.
fn findings(model: &ReportModel, policy: &PolicyReport) -> Vec<String> {
    let summary = &policy.summary;
    let mut all = vec![match summary.episodes {
        0 => "It would have withheld no pod.".to_owned(),
        episodes => format!(
            "It would have withheld {} pods, {episodes} times, {:.1} pod-minutes in all, at most {} at once ({:.1} % of the \
             wanted pods).",
            summary.pods_withheld,
            summary.pod_minutes_withheld,
            summary.most_withheld_at_once,
            summary.highest_share_percent.unwrap_or_default()
        ),
    }];
    let mut longest: Vec<_> = policy.episodes.iter().collect();
    longest.sort_by(|a, b| b.minutes().total_cmp(&a.minutes()));
    for episode in longest.into_iter().take(NAMED) {
        let evidence = &episode.evidence;
        all.push(format!(
            "{} from {} to {} by {}: value {}, threshold {}, median {}",
            episode.pod,
            episode.from,
            episode.to,
            episode.breaker,
            number(evidence.value),
            number(evidence.threshold),
            number(evidence.median)
        ));
    }
    for breaker in policy.breakers.iter().filter(|breaker| breaker.unanswered > 0) {
        all.push(format!(
            "{}: {} of {} evaluations had no answer.",
            breaker.name, breaker.unanswered, breaker.evaluations
        ));
    }
    if let Some(panics @ 1..) = summary.panics {
        let minutes = summary.panic_minutes.unwrap_or_default();
        all.push(format!("Panics: {panics}, {minutes:.1} minutes in all."));
    }
    all.extend(model.partial.as_ref().map(|why| format!("PARTIAL: {why}")));
    all
}

/// All proposals.
pub(super) fn render(
    all: &[ReplayedProposal],
    range: TimeRange,
    server: &ServerName,
    grouped_by: GroupedBy,
    left_out: &[String],
) -> String {
    let mut text = format!(
        "# Proposed by kubervisor {} from {} to {}, the most useful first.\n# Each is a dry run: it reports what it would \
         withhold, and withholds nothing.\n",
        env!("CARGO_PKG_VERSION"),
        range.from,
        range.to
    );
    comment(&mut text, grouped_by.text());
    let server = match server {
        ServerName::Address(_) => {
            "prometheusService is the address that was asked: write the one that the controller reaches."
        }
        ServerName::Source(_) => {
            "source is the one of --sources that was asked: the controller is to be started with it, too."
        }
    };
    comment(&mut text, server);
    for left in left_out {
        comment(&mut text, &format!("Without a proposal: {left}"));
    }
    for (one, number) in all.iter().zip(1..) {
        let group = &one.proposal.group;
        text.push_str("---\n");
        comment(
            &mut text,
            &format!(
                "{number}. {}: {} pods, at most {} at once",
                group.name,
                group.pods.len(),
                one.proposal.at_once
            ),
        );
        for finding in &one.findings {
            comment(&mut text, &format!("   {finding}"));
        }
        comment(&mut text, &format!("   {}", one.usefulness.advice()));
        text.push_str(&one.manifest);
    }
    text
}

/// A line that no text can end early.
fn comment(text: &mut String, line: &str) {
    let line = visible(line, SHOWN).replace('\n', " ");
    let _infallible = writeln!(text, "# {line}");
}
