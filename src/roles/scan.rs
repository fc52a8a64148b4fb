//! `kubervisor scan`: proposes a manifest for each Service whose pods have usual metrics, and replays each over the history.
//!
//! Reads only. Every query is shown on stderr before it is sent; stdout has the manifests, the most useful first, as YAML
//! that `kubectl apply` takes: each is a dry run.
//!
//! | file | content |
//! |---|---|
//! | `conventions` | the usual names of metrics |
//! | `inventory` | which pods have which of them |
//! | `survey` | the queries that find out |
//! | `grouping` | pods → Services or workloads |
//! | `proposal` | a group → a manifest with reasons |
//! | `ranking` | how useful a proposal is, by its replay |
//! | `printed` | proposals → YAML with comments |

mod conventions;
mod grouping;
mod inventory;
mod printed;
mod proposal;
mod ranking;
mod survey;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use self::{
    grouping::{GroupedBy, groups},
    printed::ReplayedProposal,
    proposal::{Proposal, ServerName, propose},
    survey::{Survey, Surveyor},
};
use super::{
    output,
    report::{
        progress::ReportProgress, replaying, request::ReportRequest, time_range::TimeRange,
        variants::PolicyVariant,
    },
};
use crate::{
    api::{self, Context, Detectors, OperatorSources},
    clock::Clock,
    decide::detect::MetricSource,
    exit::Exit,
    runtime,
};

/// Arguments of `scan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The Prometheus to ask; the manifests name it, too.
    #[arg(
        long,
        env = "KUBERVISOR_SCAN_PROMETHEUS",
        value_name = "URL",
        required_unless_present = "source",
        conflicts_with = "source"
    )]
    pub prometheus: Option<String>,
    /// The one of --sources to ask instead, with its credentials; the manifests name it, too.
    #[arg(long, env = "KUBERVISOR_SCAN_SOURCE", value_name = "NAME")]
    pub source: Option<String>,
    /// Where --source is found.
    #[command(flatten)]
    pub sources: runtime::SourcesArgs,
    /// The namespace whose Services are looked at.
    #[arg(
        short,
        long,
        env = "KUBERVISOR_SCAN_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "default"
    )]
    pub namespace: String,
    /// The beginning of the replayed time: a span before the end (1d, 12h), or a time (2026-07-01T12:00:00Z).
    #[arg(long, env = "KUBERVISOR_SCAN_FROM", value_name = "TIME", default_value = "1d")]
    pub from: String,
    /// Its end: now, a span before now, or a time.
    #[arg(long, env = "KUBERVISOR_SCAN_TO", value_name = "TIME", default_value = "now")]
    pub to: String,
}

/// The Prometheus that is asked, as the manifests name it.
#[derive(Clone, Debug)]
struct ScannedServer {
    name: ServerName,
    source: Arc<MetricSource>,
    /// All of the operator.
    sources: OperatorSources,
}

impl ScannedServer {
    /// # Errors
    /// 2 for a source that `--sources` does not have.
    fn of(args: &Args) -> Result<Self, Exit> {
        let sources = args.sources.read()?;
        let Some(name) = &args.source else {
            let url = args.prometheus.clone().unwrap_or_default();
            let source = Arc::new(MetricSource::at(&url));
            return Ok(Self { name: ServerName::Address(url), source, sources });
        };
        let found = sources.iter().find(|(known, _)| known == name);
        let (_, source) = found.ok_or_else(|| {
            let known: Vec<&str> = sources.iter().map(|(name, _)| name.as_str()).collect();
            let known = if known.is_empty() { "no source".to_owned() } else { known.join(", ") };
            Exit::Usage(format!(
                "--source is {name:?}; --sources has {known}: write the name of one of these"
            ))
        })?;
        Ok(Self { name: ServerName::Source(name.clone()), source: Arc::clone(source), sources })
    }
}

/// Looks, proposes, replays, prints.
///
/// # Errors
/// 2 for wrong arguments; 1 when the server does not answer, or nothing can be proposed.
pub async fn run(args: Args) -> Result<(), Exit> {
    let range = TimeRange::read(&args.from, &args.to, Clock::start().wall())?;
    let server = ScannedServer::of(&args)?;
    let surveyor = Surveyor::new(Arc::clone(&server.source), &args.namespace, range)?;
    let stop = CancellationToken::new();
    runtime::stop_on_signals(&stop)?;
    let survey = tokio::select! {
        () = stop.cancelled() => return Err(Exit::Failed(anyhow::anyhow!("interrupted before anything was found"))),
        survey = surveyor.survey() => survey?,
    };
    let (grouped_by, proposals, left_out) = proposals(&survey);
    if proposals.is_empty() {
        return Err(nothing(&args, &left_out));
    }
    let mut replayed = Vec::new();
    for proposal in proposals {
        if stop.is_cancelled() {
            output::notice("interrupted: the other proposals are not replayed\n");
            break;
        }
        replayed.push(replay(&args.namespace, &server, range, proposal, &stop).await?);
    }
    replayed.sort_by(ReplayedProposal::order);
    output::print(&printed::render(&replayed, range, &server.name, grouped_by, &left_out))
}

/// The proposals, and what is said about the other groups.
fn proposals(survey: &Survey) -> (GroupedBy, Vec<Proposal>, Vec<String>) {
    let (by, groups) = groups(&survey.facts, &survey.sightings);
    let (mut proposals, mut left_out) = (Vec::new(), Vec::new());
    for group in groups {
        match propose(&group, &survey.sightings) {
            Ok(proposal) => proposals.push(proposal),
            Err(why) => left_out.push(format!("{}: {why}", output::visible(&group.name, 80))),
        }
    }
    (by, proposals, left_out)
}

fn nothing(args: &Args, left_out: &[String]) -> Exit {
    let why = match left_out {
        [] => format!(
            "no series of the namespace {:?} has one of the usual names; write a manifest with the names of your metrics, \
             as in docs/policy.md, and replay it with `kubervisor report`",
            args.namespace
        ),
        some => format!("nothing can be proposed for any group of pods: {}", some.join("; ")),
    };
    Exit::Failed(anyhow::anyhow!("{why}"))
}

/// Replays a proposal; one that cannot be replayed says why.
async fn replay(
    namespace: &str,
    server: &ScannedServer,
    range: TimeRange,
    proposal: Proposal,
    stop: &CancellationToken,
) -> Result<ReplayedProposal, Exit> {
    let manifest = proposal.manifest(namespace, &server.name);
    let context = Context { detectors: Detectors::All, timing: None, sources: server.sources };
    // A mistake here is one of a name in the series, such as a Service's that is none.
    let parsed = api::parse(&proposal.group.name, &manifest, context);
    let mut found = parsed.map_err(|problems| Exit::Usage(problems.to_string()))?;
    let text = manifest.clone();
    let variants = found.drain(..).map(|manifest| PolicyVariant {
        file: "scan".to_owned(),
        changes: Vec::new(),
        manifest,
        text: text.clone(),
    });
    let request = ReportRequest {
        variants: variants.collect(),
        pods: Some(proposal.group.pods.clone()),
        show_queries: true,
        range,
        namespace: Some(namespace.to_owned()),
        prometheus: None,
        sources: server.sources,
        selector: None,
        fleet_query: None,
        labels: None,
    };
    let outcome = replaying::replay(request, &ReportProgress::hidden(range), stop).await;
    Ok(ReplayedProposal::new(proposal, manifest, outcome))
}
