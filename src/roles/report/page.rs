//! The report as one HTML page without a script, and with nothing from elsewhere: charts are SVG, and the content security
//! policy names the page's own stylesheet by its hash.
//!
//! The page has the view's look, and its time line is the view's. It stays small however long the range is: what is drawn
//! has columns, and lists have an end that says what is left out.

mod episode_line;
mod file;
mod lanes;
mod values;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minijinja::{context, value::Serde};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

pub(super) use self::file::PageFile;
use self::{episode_line::EpisodeLine, values::ValueChart};
use super::{
    model::{BreakerReport, PolicyReport, ReplayEpisode, ReportModel},
    text,
};
use crate::{
    decide::time::Timestamp,
    roles::view::{
        chart::{FleetChart, TimeAxis},
        template,
        timeline::seconds,
    },
};

/// Spans in all time lines together.
const BARS: usize = 6000;
/// Rows in all tables of episodes together.
const EPISODES: usize = 2000;
/// Lines of single pods in all charts of values together, and in one.
const LINES: (usize, usize) = (160, 10);
/// Lines of a manifest.
const MANIFEST_LINES: usize = 2000;

const STYLE: &str = include_str!("../view/pages/style.css");

/// One policy, as the template writes it.
#[derive(Serialize)]
struct PolicySection {
    /// Before each identifier of its part of the page.
    prefix: String,
    title: String,
    file: String,
    changes: Vec<String>,
    comparison: Vec<String>,
    facts: Vec<(String, String)>,
    chart: FleetChart,
    breakers: Vec<BreakerSection>,
    episodes: Vec<EpisodeLine>,
    more_episodes: usize,
    manifest: Vec<String>,
}

#[derive(Serialize)]
struct BreakerSection {
    name: String,
    detector: &'static str,
    server: String,
    promql: Vec<String>,
    chart: Option<ValueChart>,
}

/// The report of one Service, as the template writes it.
#[derive(Serialize)]
struct ReportSection {
    /// Before the identifier of its table of policies.
    prefix: String,
    from: String,
    to: String,
    length: String,
    partial: Option<String>,
    fleet: String,
    pods: usize,
    notes: Vec<String>,
    columns: Vec<&'static str>,
    policies: Vec<PolicySection>,
}

/// Writes the page.
///
/// # Errors
/// A mistake in the template: a test renders it.
pub(super) fn render(models: &[ReportModel]) -> Result<String, String> {
    let share = models.iter().map(|model| model.policies.len()).sum::<usize>().max(1);
    let mut numbers = 1..;
    let sections: Vec<ReportSection> =
        models.iter().map(|model| ReportSection::new(model, &mut numbers, share)).collect();
    let style_hash = STANDARD.encode(Sha256::digest(STYLE));
    template::render(
        "report.html",
        context! {
            style => STYLE, style_hash => style_hash, what => models.first().map(text::verb), reports => Serde(&sections),
            version => env!("CARGO_PKG_VERSION"),
        },
    )
}

impl ReportSection {
    fn new(model: &ReportModel, numbers: &mut impl Iterator<Item = usize>, share: usize) -> Self {
        let sections = model.policies.iter().zip(numbers);
        let policies: Vec<PolicySection> =
            sections.map(|(policy, number)| PolicySection::new(model, policy, number, share)).collect();
        Self {
            prefix: policies.first().map(|policy| policy.prefix.clone()).unwrap_or_default(),
            from: moment(model.from),
            to: moment(model.replayed_to),
            length: text::length(model),
            partial: model.partial.clone(),
            fleet: model.fleet.text.clone(),
            pods: model.fleet.pods,
            notes: model.notes.clone(),
            columns: text::comparison_columns(&model.policies),
            policies,
        }
    }
}

impl PolicySection {
    fn new(model: &ReportModel, policy: &PolicyReport, number: usize, share: usize) -> Self {
        let axis = TimeAxis::new(seconds(model.from), seconds(model.replayed_to));
        let chart = FleetChart::over(&lanes::timeline(model, policy, BARS / share), axis);
        let rows = (EPISODES / share).max(50);
        let episodes = policy.episodes.iter().take(rows);
        let breakers = policy.breakers.len().max(1);
        let lines = (LINES.0 / share / breakers).clamp(1, LINES.1);
        Self {
            prefix: format!("policy-{number}-"),
            title: policy.title(),
            file: policy.file.clone(),
            changes: policy.changes.clone(),
            comparison: text::comparison_row(policy, &model.policies),
            facts: text::facts(policy),
            breakers: policy
                .breakers
                .iter()
                .map(|breaker| breaker_section(policy, breaker, axis, lines))
                .collect(),
            episodes: episodes.map(|episode| EpisodeLine::new(episode, policy, &chart)).collect(),
            more_episodes: policy.summary.episodes.saturating_sub(rows),
            manifest: policy.manifest.lines().take(MANIFEST_LINES).map(str::to_owned).collect(),
            chart,
        }
    }
}

fn breaker_section(
    policy: &PolicyReport,
    breaker: &BreakerReport,
    axis: TimeAxis,
    lines: usize,
) -> BreakerSection {
    let BreakerReport { name, detector, server, promql, .. } = breaker;
    let picture = policy.picture.breakers.iter().find(|picture| picture.breaker == *name);
    let own: Vec<&ReplayEpisode> =
        policy.episodes.iter().filter(|episode| episode.breaker == *name).collect();
    BreakerSection {
        name: name.clone(),
        detector,
        server: server.clone(),
        promql: promql.lines().map(str::to_owned).collect(),
        chart: picture.and_then(|picture| ValueChart::of(picture, axis, &own, lines)),
    }
}

/// To the second, for a column.
fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    text.split('.').next().unwrap_or_default().replace('T', " ")
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        decide::{
            fleet::Uid,
            measurements::{Measurement, Measurements},
        },
        roles::report::{
            model::{
                BreakerReport, DecisionKind, EpisodeEnd, EpisodeEvidence, FleetOrigin, PolicyPicture,
                ReplaySummary, VERSION,
            },
            picture::{BreakerPicture, FleetPicture, PodPhase},
            time_range::TimeRange,
        },
    };

    /// So many seconds after the beginning.
    pub(super) fn at(second: u64) -> Timestamp {
        Timestamp::from_unix_millis(1_700_000_000_000) + Duration::from_secs(second)
    }

    pub(super) fn episode(pod: &str, from: u64, to: u64) -> ReplayEpisode {
        ReplayEpisode {
            pod: pod.to_owned(),
            uid: pod.to_owned(),
            breaker: "slow".to_owned(),
            from: at(from),
            to: at(to),
            ended: EpisodeEnd::Admitted,
            reason: "outlier".to_owned(),
            evidence: EpisodeEvidence::default(),
            retry: 1,
            paused_at: None,
            killed_at: None,
        }
    }

    /// A report with one policy about nothing.
    pub(super) fn model(seconds: u64) -> ReportModel {
        let policy = PolicyReport {
            kind: DecisionKind::default(),
            name: "shop/web".to_owned(),
            file: "web.yaml".to_owned(),
            changes: Vec::new(),
            summary: ReplaySummary::default(),
            score: None,
            breakers: Vec::new(),
            left_out: Vec::new(),
            worst: Vec::new(),
            episodes: Vec::new(),
            panics: Vec::new(),
            no_data: Vec::new(),
            floor_reached: Vec::new(),
            below_floor: Vec::new(),
            manifest: "kind: KubervisorService\n".to_owned(),
            picture: PolicyPicture::default(),
        };
        ReportModel {
            version: VERSION,
            kubervisor: "0",
            from: at(0),
            to: at(seconds),
            replayed_to: at(seconds),
            partial: None,
            fleet: FleetOrigin::default(),
            notes: Vec::new(),
            policies: vec![policy],
            picture: FleetPicture::default(),
        }
    }

    /// A hundred pods for a week, measured each hour and objected to in turn, with `episodes` of them.
    fn busy(episodes: usize) -> ReportModel {
        const WEEK: u64 = 7 * 86_400;
        let mut model = model(WEEK);
        let range = TimeRange { from: model.from, to: model.to };
        let mut picture = BreakerPicture::new("slow", range);
        let pods: Vec<String> = (0..100).map(|pod| format!("web-6d4cf56db6-{pod:05}")).collect();
        for pod in &pods {
            model.picture.phase(&Uid::from(pod.as_str()), pod, at(0), PodPhase::Ready);
        }
        for second in (0..WEEK).step_by(600) {
            let value = |(index, pod): (usize, &String)| Measurement {
                uid: Uid::from(pod.as_str()),
                value: f64::from(u32::try_from(index).unwrap()) + second as f64 / 7.0,
            };
            let values = pods.iter().enumerate().map(value).collect();
            picture
                .add(at(second), &Measurements { high: Some(90_000.0), values, ..Measurements::default() });
        }
        let policy = &mut model.policies[0];
        policy.breakers = vec![BreakerReport {
            name: "slow".to_owned(),
            detector: "outlier",
            promql: "latency".to_owned(),
            server: "prometheus:9090".to_owned(),
            evaluations: 40_320,
            unanswered: 0,
            strange: 0,
            bad: 0,
        }];
        policy.picture.breakers = vec![picture];
        let spread = u64::try_from(episodes).unwrap();
        policy.episodes = (0..episodes)
            .map(|number| {
                let from = u64::try_from(number).unwrap() * (WEEK - 900) / spread;
                episode(&pods[number % 100], from, from + 600)
            })
            .collect();
        policy.summary.episodes = episodes;
        model
    }

    #[test]
    fn the_page_of_a_hundred_pods_and_a_week_is_at_most_two_mebibytes_however_much_happens() {
        for episodes in [1, 100, 50_000] {
            let model = busy(episodes);
            let page = render(std::slice::from_ref(&model)).unwrap();
            assert!(page.len() <= 2 << 20, "{episodes} episodes: {} bytes", page.len());
            assert!(page.matches("class=\"withheld\"").count() >= episodes.min(90), "{episodes}");
            assert!(page.contains("<path class=\"out\" d=\"M"), "{episodes}");
            let one = model.policies[0].clone();
            let many = ReportModel { policies: vec![one; 8], ..model };
            let page = render(&[many]).unwrap();
            assert!(page.len() <= 4 << 20, "8 policies with {episodes} episodes: {} bytes", page.len());
        }
    }

    #[test]
    fn hostile_names_stay_text_and_the_policy_allows_the_pages_own_style_only() {
        let hostile = "<script>alert(1)</script>\u{202e}\u{7}\"'>".to_owned() + &"x".repeat(10_000);
        let mut model = model(3600);
        let policy = &mut model.policies[0];
        policy.name.clone_from(&hostile);
        policy.manifest.clone_from(&hostile);
        policy.changes = vec![hostile.clone()];
        policy.episodes = vec![ReplayEpisode { reason: hostile.clone(), ..episode(&hostile, 60, 120) }];
        model.notes = vec![hostile.clone()];
        model.partial = Some(hostile);
        let page = render(std::slice::from_ref(&model)).unwrap();
        assert!(!page.contains("<script") && !page.contains('\u{202e}') && !page.contains('\u{7}'));
        assert!(page.contains("&lt;script&gt;") && page.contains("\\u{202e}"), "{page}");
        assert!(!page.contains(&"x".repeat(1000)), "long names are cut");
        assert!(!page.contains("src=") && !page.contains("url(") && !page.contains("http-equiv=\"refresh"));
        let style = page.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
        let hash = STANDARD.encode(Sha256::digest(style));
        assert!(page.contains(&format!("style-src 'sha256-{hash}';")) && page.contains("default-src 'none'"));
    }

    #[test]
    fn several_policies_are_compared_in_a_table_that_leads_to_each() {
        let mut model = model(3600);
        let mut other = model.policies[0].clone();
        other.changes = vec!["panicThreshold=60".to_owned()];
        model.policies.push(other);
        let page = render(std::slice::from_ref(&model)).unwrap();
        assert!(
            page.contains("<a href=\"#policy-2-title\">shop&#x2f;web with panicThreshold=60</a>"),
            "{page}"
        );
        assert!(page.contains("id=\"policy-2-title\"") && page.contains("HIGHEST SHARE"));
    }
}
