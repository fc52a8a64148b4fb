//! The report for people, on a terminal.

use std::fmt::Write as _;

use comfy_table::presets::NOTHING;

use super::model::{
    BreakerReport, DecisionKind, EpisodeEvidence, FleetSpan, PolicyReport, ReportModel, WorstPod,
};
use crate::roles::output::{self, table, visible};

/// Characters of a name or a reason that are shown.
const SHOWN: usize = 160;
/// Spans of each kind that are listed.
const SPANS: usize = 5;

/// The whole report.
pub(super) fn render(model: &ReportModel) -> String {
    let mut text = String::new();
    let _infallible =
        writeln!(text, "{} from {} to {} ({})", verb(model), model.from, model.replayed_to, length(model));
    if let Some(partial) = &model.partial {
        let _infallible = writeln!(text, "PARTIAL: {}", visible(partial, 600));
    }
    let _infallible =
        writeln!(text, "Fleet: {} pods, from {}", model.fleet.pods, visible(&model.fleet.text, 600));
    if is_replay(model) && model.policies.len() > 1 {
        text.push('\n');
        text.push_str(&comparison(&model.policies));
    }
    for policy in &model.policies {
        text.push('\n');
        text.push_str(&policy_text(policy));
    }
    for note in &model.notes {
        let _infallible = writeln!(text, "\nNote: {}", visible(note, 600));
    }
    text
}

/// What was done from its beginning to its end.
pub(super) fn verb(model: &ReportModel) -> &'static str {
    if is_replay(model) { "Replayed" } else { "Recorded" }
}

fn is_replay(model: &ReportModel) -> bool {
    model.policies.iter().all(|policy| policy.kind == DecisionKind::Replay)
}

pub(super) fn length(model: &ReportModel) -> String {
    let hours = model.replayed_to.since(model.from).as_secs_f64() / 3600.0;
    if hours >= 48.0 { format!("{:.1} days", hours / 24.0) } else { format!("{hours:.1} hours") }
}

/// A row for each policy.
fn comparison(policies: &[PolicyReport]) -> String {
    let rows = policies.iter().map(|policy| comparison_row(policy, policies));
    format!("{}\n", table(NOTHING, &comparison_columns(policies), rows).trim_fmt())
}

/// The headings of [`comparison_row`].
pub(super) fn comparison_columns(policies: &[PolicyReport]) -> Vec<&'static str> {
    let mut header = vec!["POLICY", "EPISODES", "POD-MINUTES", "HIGHEST SHARE", "NEAR-FLOOR MIN", "FLAPS"];
    if is_scored(policies) {
        header.extend(["PRECISION", "RECALL", "F1"]);
    }
    header
}

/// One of several policies in a line.
pub(super) fn comparison_row(policy: &PolicyReport, policies: &[PolicyReport]) -> Vec<String> {
    let summary = &policy.summary;
    let mut row = vec![
        visible(&policy.title(), SHOWN),
        summary.episodes.to_string(),
        format!("{:.1}", summary.pod_minutes_withheld),
        summary.highest_share_percent.map_or_else(unknown, |share| format!("{share:.1} %")),
        summary.near_floor_minutes.map_or_else(unknown, |minutes| format!("{minutes:.1}")),
        summary.flaps.to_string(),
    ];
    if is_scored(policies) {
        let score = policy.score.unwrap_or_default();
        row.extend([score.precision, score.recall, score.f1].map(percent));
    }
    row
}

fn is_scored(policies: &[PolicyReport]) -> bool {
    policies.iter().any(|policy| policy.score.is_some())
}

/// In the place of a number that is not known.
fn unknown() -> String {
    "-".to_owned()
}

pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(unknown, |share| format!("{share:.2} %"))
}

fn policy_text(policy: &PolicyReport) -> String {
    let mut text = format!("{}\n", visible(&policy.title(), SHOWN));
    for (what, value) in facts(policy) {
        let _infallible = writeln!(text, "  {what:<22}{value}");
    }
    if !policy.worst.is_empty() {
        text.push_str(&worst(policy));
    }
    text
}

/// The summary in sentences, each under its heading.
pub(super) fn facts(policy: &PolicyReport) -> Vec<(String, String)> {
    let summary = &policy.summary;
    let withheld = match summary.episodes {
        0 => "no pod".to_owned(),
        episodes => format!(
            "{} pods, {episodes} times, {:.1} pod-minutes in all, {:.1} minutes at the longest",
            summary.pods_withheld, summary.pod_minutes_withheld, summary.longest_minutes
        ),
    };
    let share = summary.highest_share_percent;
    let share = share.map_or_else(String::new, |share| format!(" ({share:.1} % of the wanted pods)"));
    let at_once = ("At most at once".to_owned(), format!("{}{share}", summary.most_withheld_at_once));
    if policy.kind != DecisionKind::Replay {
        let heading = if policy.kind == DecisionKind::Real { "Withheld" } else { "Would have withheld" };
        let flaps = ("Flaps".to_owned(), summary.flaps.to_string());
        return vec![(heading.to_owned(), withheld), at_once, flaps];
    }
    let near = summary.near_floor_minutes.unwrap_or_default();
    let floor = match summary.least_above_floor {
        None => "there was no fleet".to_owned(),
        Some(above) if above < 0 => {
            format!("{} pods below it; at most one above for {near:.1} minutes", -above)
        }
        Some(above) => format!("{above} pods above it; at most one above for {near:.1} minutes"),
    };
    let [kills, pauses] = [summary.kills, summary.pauses].map(Option::unwrap_or_default);
    let mut all = vec![
        ("Would have withheld".to_owned(), withheld),
        at_once,
        ("Nearest to the floor".to_owned(), floor),
        ("Floor reached".to_owned(), spans(&policy.floor_reached, "never")),
        ("Panics".to_owned(), spans(&policy.panics, "none")),
        ("No data".to_owned(), spans(&policy.no_data, "none")),
        ("Kills, pauses, flaps".to_owned(), format!("{kills}, {pauses}, {}", summary.flaps)),
    ];
    if let Some(score) = policy.score {
        let [precision, recall, f1] = [score.precision, score.recall, score.f1].map(percent);
        let value = format!("precision {precision}, recall {recall}, F1 {f1}");
        all.push(("Against the labels".to_owned(), value));
    }
    all.extend(policy.breakers.iter().map(breaker_fact));
    for left in &policy.left_out {
        all.push((format!("Breaker {}", visible(&left.breaker, 40)), format!("left out: {}", left.why)));
    }
    all
}

fn breaker_fact(breaker: &BreakerReport) -> (String, String) {
    let mut value = format!("{} evaluations, {} bad judgements of pods", breaker.evaluations, breaker.bad);
    if breaker.unanswered > 0 {
        let _infallible = write!(value, ", {} without an answer", breaker.unanswered);
    }
    if breaker.strange > 0 {
        let _infallible = write!(
            value,
            "; {} answers named no pod of the fleet: check podNamekey and namespaceKey",
            breaker.strange
        );
    }
    (format!("Breaker {}", visible(&breaker.name, 40)), value)
}

/// How often and how long, and the first ones.
fn spans(spans: &[FleetSpan], none: &str) -> String {
    if spans.is_empty() {
        return none.to_owned();
    }
    let minutes: f64 = spans.iter().map(|span| super::model::minutes(span.from, span.to)).sum();
    let times = if spans.len() == 1 { "once".to_owned() } else { format!("{} times", spans.len()) };
    let listed: Vec<String> =
        spans.iter().take(SPANS).map(|span| format!("{} to {}", span.from, span.to)).collect();
    let more = if spans.len() > SPANS { ", ..." } else { "" };
    format!("{times}, {minutes:.1} minutes in all: {}{more}", listed.join(", "))
}

fn worst(policy: &PolicyReport) -> String {
    let header = ["  POD", "TIMES", "MINUTES", "VALUE", "THRESHOLD", "MEDIAN", "WHY"];
    let rows = policy.worst.iter().map(|pod| {
        let EpisodeEvidence { value, threshold, median } = pod.evidence;
        vec![
            format!("  {}", visible(&pod.pod, 64)),
            pod.episodes.to_string(),
            format!("{:.1}", pod.minutes),
            number(value),
            number(threshold),
            number(median),
            why(pod),
        ]
    });
    format!("{}\n", table(NOTHING, &header, rows).trim_fmt())
}

/// The reason, without the numbers that have columns of their own.
fn why(pod: &WorstPod) -> String {
    if pod.evidence == EpisodeEvidence::default() {
        return visible(&pod.reason, SHOWN);
    }
    visible(pod.reason.split(", value").next().unwrap_or_default(), 60)
}

/// A number for people, or a dash.
pub(in crate::roles) fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), output::number)
}
