//! What a report says, as plain values: every output is made from a [`ReportModel`].
//!
//! `-o json` is this structure. Its form has a version, [`VERSION`]: members may be added within one, and none is removed
//! or changes its meaning.

use serde::{Serialize, Serializer};

use super::picture::{BreakerPicture, FleetPicture};
use crate::decide::{time::Timestamp, verdict::Evidence};

/// The version of the form.
pub const VERSION: &str = "kubervisor.k8s.io/report/v1";

/// A report: one range of time, one fetch of the data, any number of policies.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportModel {
    /// [`VERSION`].
    pub version: &'static str,
    /// The version of the program.
    pub kubervisor: &'static str,
    /// The first evaluation.
    #[serde(serialize_with = "text")]
    pub from: Timestamp,
    /// The end of the range that was asked for.
    #[serde(serialize_with = "text")]
    pub to: Timestamp,
    /// Where the replay ended: before `to` in a partial report.
    #[serde(serialize_with = "text")]
    pub replayed_to: Timestamp,
    /// Why the report is partial; `null` for a whole one.
    pub partial: Option<String>,
    /// Where the fleet came from.
    pub fleet: FleetOrigin,
    /// What a reader has to know beside the numbers.
    pub notes: Vec<String>,
    /// One for each policy, in the order of the command line.
    pub policies: Vec<PolicyReport>,
    /// The fleet's presence, for the page.
    #[serde(skip)]
    pub picture: FleetPicture,
}

/// Where the fleet came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetOrigin {
    /// `kube-state-metrics`, `fleet-query`, `series` or `status`.
    pub source: &'static str,
    /// The same in a sentence, with what is not known that way.
    pub text: String,
    /// Pods that were seen in the whole range.
    pub pods: usize,
}

/// Where a policy's decisions come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum DecisionKind {
    /// They were replayed.
    #[default]
    Replay,
    /// A controller made them and carried them out.
    Real,
    /// A controller made them in a dry run.
    DryRun,
}

/// What one policy did or would have done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReport {
    /// Where its decisions come from.
    pub kind: DecisionKind,
    /// The resource's name, with its namespace.
    pub name: String,
    /// Its file.
    pub file: String,
    /// The values that `--set` changed, as `path=value`.
    pub changes: Vec<String>,
    /// The numbers.
    pub summary: ReplaySummary,
    /// Precision and recall against `--labels`.
    pub score: Option<LabelScore>,
    /// Its breakers.
    pub breakers: Vec<BreakerReport>,
    /// Breakers that have no history.
    pub left_out: Vec<LeftOut>,
    /// The ten pods that would have been withheld longest.
    pub worst: Vec<WorstPod>,
    /// Every would-be withdrawal, in order of time.
    pub episodes: Vec<ReplayEpisode>,
    /// Times of panic.
    pub panics: Vec<FleetSpan>,
    /// Times at which a breaker had too few verdicts.
    pub no_data: Vec<FleetSpan>,
    /// Times at which bad pods went on serving because of the floor.
    pub floor_reached: Vec<FleetSpan>,
    /// Times at which fewer pods served than the floor.
    pub below_floor: Vec<FleetSpan>,
    /// The manifest as it was read, without the changes.
    #[serde(skip)]
    pub manifest: String,
    /// What the page draws.
    #[serde(skip)]
    pub picture: PolicyPicture,
}

/// What the page draws of one policy.
#[derive(Clone, Debug, Default)]
pub struct PolicyPicture {
    /// Serving pods against the floor, and the pods that a breaker objected to.
    pub fleet: FleetPicture,
    /// Each breaker's values.
    pub breakers: Vec<BreakerPicture>,
}

/// The numbers of one policy. A share is in percent of the wanted pods. `null` is what only a replay knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplaySummary {
    /// Evaluations of all breakers.
    pub evaluations: Option<u64>,
    /// Would-be withdrawals.
    pub episodes: usize,
    /// Pods with at least one.
    pub pods_withheld: usize,
    /// Their length in all.
    pub pod_minutes_withheld: f64,
    /// The longest one.
    pub longest_minutes: f64,
    /// The most at the same time.
    pub most_withheld_at_once: u32,
    /// The same as a share.
    pub highest_share_percent: Option<f64>,
    /// The least number of serving pods above the floor; negative below it. `null`: there was no fleet.
    pub least_above_floor: Option<i64>,
    /// Minutes with at most one pod above the floor.
    pub near_floor_minutes: Option<f64>,
    /// Minutes in which bad pods went on serving because of the floor.
    pub floor_reached_minutes: Option<f64>,
    /// Times of panic.
    pub panics: Option<usize>,
    /// Their length in all.
    pub panic_minutes: Option<f64>,
    /// Minutes in which a breaker had too few verdicts.
    pub no_data_minutes: Option<f64>,
    /// Pods that would have been killed.
    pub kills: Option<usize>,
    /// Pods that would have been paused until a person admits them.
    pub pauses: Option<usize>,
    /// Withdrawals within an hour after the same pod's return.
    pub flaps: usize,
}

/// One breaker of the policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BreakerReport {
    /// Its name.
    pub name: String,
    /// The detector's field.
    pub detector: &'static str,
    /// The query that was sent.
    pub promql: String,
    /// The server.
    pub server: String,
    /// Its evaluations.
    pub evaluations: u64,
    /// Those without any answer.
    pub unanswered: u64,
    /// Those whose answer named no pod of the fleet.
    pub strange: u64,
    /// Judgements of pods that were bad.
    pub bad: u64,
}

/// A breaker that has no history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// Its name.
    pub breaker: String,
    /// Why.
    pub why: String,
}

/// One would-be withdrawal.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayEpisode {
    /// The pod.
    pub pod: String,
    /// Its UID, or its name where that is not known.
    pub uid: String,
    /// The breaker.
    pub breaker: String,
    /// When the pod would have been withheld.
    #[serde(serialize_with = "text")]
    pub from: Timestamp,
    /// When it would have been back; the end of the replay for one that lasts.
    #[serde(serialize_with = "text")]
    pub to: Timestamp,
    /// How it ended.
    pub ended: EpisodeEnd,
    /// Why, in one line.
    pub reason: String,
    /// The value, threshold and median behind it.
    pub evidence: EpisodeEvidence,
    /// The number of this withdrawal of the pod, as the activator counts.
    pub retry: u32,
    /// When it would have been paused.
    #[serde(serialize_with = "optional_text")]
    pub paused_at: Option<Timestamp>,
    /// When it would have been killed.
    #[serde(serialize_with = "optional_text")]
    pub killed_at: Option<Timestamp>,
}

/// How an episode ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EpisodeEnd {
    /// The gate gave the traffic back.
    Admitted,
    /// The pod was deleted in the history.
    Deleted,
    /// It lasts at the end of the report.
    Lasting,
    /// It ended, and the record does not say how.
    Over,
}

/// The numbers behind a withdrawal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EpisodeEvidence {
    /// The measured value.
    pub value: Option<f64>,
    /// The bound.
    pub threshold: Option<f64>,
    /// The median of the peers.
    pub median: Option<f64>,
}

impl From<&Evidence> for EpisodeEvidence {
    fn from(evidence: &Evidence) -> Self {
        Self { value: evidence.value, threshold: evidence.threshold, median: evidence.median }
    }
}

/// A pod that would have been withheld.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorstPod {
    /// The pod.
    pub pod: String,
    /// Its withdrawals.
    pub episodes: usize,
    /// Their length in all.
    pub minutes: f64,
    /// The reason of the longest one.
    pub reason: String,
    /// Its numbers.
    pub evidence: EpisodeEvidence,
}

/// A span of time in which something held for the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetSpan {
    /// Its beginning.
    #[serde(serialize_with = "text")]
    pub from: Timestamp,
    /// Its end.
    #[serde(serialize_with = "text")]
    pub to: Timestamp,
    /// What was said at its beginning.
    pub message: String,
}

/// Verdicts against labelled incidents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelScore {
    /// Evaluations of labelled pods that were found bad.
    pub hits: u64,
    /// Evaluations of labelled pods, with a verdict, that were not.
    pub misses: u64,
    /// Evaluations of other pods that were found bad.
    pub false_alarms: u64,
    /// Hits of all that was found, in percent; `null` when nothing was.
    pub precision: Option<f64>,
    /// Hits of all that is labelled, in percent; `null` when nothing is.
    pub recall: Option<f64>,
    /// Twice the hits of twice the hits, misses and false alarms, in percent; `null` without any of them.
    pub f1: Option<f64>,
}

impl LabelScore {
    /// With the shares of these counts.
    pub fn new(hits: u64, misses: u64, false_alarms: u64) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "counts of evaluations")]
        let percent = |part: u64, whole: u64| (whole > 0).then(|| 100.0 * part as f64 / whole as f64);
        Self {
            hits,
            misses,
            false_alarms,
            precision: percent(hits, hits + false_alarms),
            recall: percent(hits, hits + misses),
            f1: percent(2 * hits, 2 * hits + misses + false_alarms),
        }
    }
}

impl ReplayEpisode {
    /// Its length.
    pub fn minutes(&self) -> f64 {
        minutes(self.from, self.to)
    }
}

impl PolicyReport {
    /// Name and changes, as a heading.
    pub fn title(&self) -> String {
        match self.kind {
            DecisionKind::Real => format!("{}, as it was", self.name),
            DecisionKind::DryRun => format!("{}, as it would have been (dry run)", self.name),
            DecisionKind::Replay if self.changes.is_empty() => self.name.clone(),
            DecisionKind::Replay => format!("{} with {}", self.name, self.changes.join(", ")),
        }
    }
}

/// Minutes from one moment to another.
pub(super) fn minutes(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_secs_f64() / 60.0
}

fn text<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

fn optional_text<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}
