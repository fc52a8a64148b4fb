//! `kubervisor report`: what policies would have done, replayed over the history in Prometheus. Reads only; needs a
//! manifest and a Prometheus, no cluster and no controller. With a resource's name instead: what the controller did with
//! its pods, and what its dry run would have done.
//!
//! The decisions are those of [`crate::decide::replay`], which is the production's core; here is what it is fed with and
//! what is said about it.
//!
//! | file | content |
//! |---|---|
//! | `time_range` | `--from` and `--to` |
//! | `variants` | `-f` and `--set` → policies |
//! | `request` | what a report is about |
//! | `queries` | the queries of all policies, each once |
//! | `history_query`, `history_part` | their answers, part by part |
//! | `fleet_source`, `state_fleet`, `series_fleet` | which pods there were: kube-state-metrics, or the series themselves |
//! | `replaying` | parts of the history → every policy |
//! | `recorder`, `picture` | listens to a replay |
//! | `resource_record` | in place of a replay: the episodes in a resource's status |
//! | `labels` | known incidents |
//! | `summary`, `model` | what the report says |
//! | `text`, `junit`, `page` | its outputs |
//! | `fail_on` | `--fail-on` and the exit code |
//! | `progress` | the line while it works |

mod fail_on;
mod fleet_source;
mod history_part;
mod history_query;
mod junit;
pub mod labels;
pub mod model;
mod page;
pub mod picture;
pub mod progress;
mod queries;
mod recorder;
pub mod replaying;
pub mod request;
mod resource_record;
mod series_fleet;
mod state_fleet;
mod summary;
pub(in crate::roles) mod text;
pub mod time_range;
pub mod variants;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use tokio_util::sync::CancellationToken;

use self::{
    fail_on::FailOn, labels::IncidentLabels, model::ReportModel, page::PageFile, progress::ReportProgress,
    request::ReportRequest, time_range::TimeRange, variants::Setting,
};
use super::{output, plugin::names};
use crate::{
    adapters::kubernetes::{connect::ConnectOptions, untyped::ClusterClient},
    api::{Context, Detectors},
    clock::Clock,
    decide::time::Timestamp,
    exit::Exit,
    runtime,
};

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A KubervisorService of the cluster, in place of a replay: reports what its status says was withheld, or would have
    /// been in a dry run.
    #[arg(value_name = "NAME", value_parser = names::service, conflicts_with = "files")]
    pub name: Option<String>,
    /// The namespace; when not given, that of the manifests or default, and for NAME that of the kubeconfig's context.
    #[arg(short, long, env = "KUBERVISOR_REPORT_NAMESPACE", value_name = "NAMESPACE", value_parser = names::object)]
    pub namespace: Option<String>,
    /// The labels of the Service's pods, such as app=web,tier=front; for kube-state-metrics with pod labels.
    #[arg(long, env = "KUBERVISOR_REPORT_SELECTOR", value_name = "LABELS")]
    pub selector: Option<String>,
    /// The format on stdout.
    #[arg(short, long, env = "KUBERVISOR_REPORT_OUTPUT", value_enum, default_value_t)]
    pub output: ReportFormat,
    /// What else there is.
    #[command(flatten)]
    pub replay: ReplayArgs,
}

/// Arguments that `kubervisor report` and `kubectl kubervisor report` share.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// A file with KubervisorServices, YAML or JSON; `-` is stdin. May be repeated. Policies of one Service are compared;
    /// each Service has a report of its own.
    #[arg(
        short = 'f',
        long = "file",
        env = "KUBERVISOR_REPORT_FILE",
        value_name = "FILE",
        required_unless_present = "name",
        value_delimiter = ','
    )]
    pub files: Vec<PathBuf>,
    /// The Prometheus to ask, instead of those in the manifests.
    #[arg(long, env = "KUBERVISOR_REPORT_PROMETHEUS", value_name = "URL")]
    pub prometheus: Option<String>,
    /// The beginning: a span before the end (7d, 12h, 90m), or a time (2026-07-01T12:00:00Z).
    #[arg(long, env = "KUBERVISOR_REPORT_FROM", value_name = "TIME", default_value = "1d")]
    pub from: String,
    /// The end: now, a span before now, or a time.
    #[arg(long, env = "KUBERVISOR_REPORT_TO", value_name = "TIME", default_value = "now")]
    pub to: String,
    /// The Service's manifest: the pods with the labels of its selector are the fleet.
    #[arg(long, env = "KUBERVISOR_REPORT_SERVICE_FILE", value_name = "FILE", conflicts_with = "fleet_query")]
    pub service_file: Option<PathBuf>,
    /// A query that gives the fleet: a series with the label pod for each pod, 1 when it is Ready.
    #[arg(long, env = "KUBERVISOR_REPORT_FLEET_QUERY", value_name = "PROMQL")]
    pub fleet_query: Option<String>,
    /// Values to try for a field of the spec: breakers[errors].outlier.threshold=3,3.5,5. May be repeated.
    #[arg(long = "set", env = "KUBERVISOR_REPORT_SET", value_name = "PATH=VALUES", value_parser = Setting::read, value_delimiter = ';')]
    pub settings: Vec<Setting>,
    /// Also write the report as one HTML page, with pictures, to this file.
    #[arg(long, env = "KUBERVISOR_REPORT_HTML", value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Known incidents (pod,from,to): adds precision, recall and F1.
    #[arg(long, env = "KUBERVISOR_REPORT_LABELS", value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Exit with 3 if one of these occurred.
    #[arg(long, env = "KUBERVISOR_REPORT_FAIL_ON", value_enum, value_delimiter = ',', value_name = "WHAT")]
    pub fail_on: Vec<FailOn>,
    /// Sources that the manifests may name.
    #[command(flatten)]
    pub sources: runtime::SourcesArgs,
}

impl ReplayArgs {
    /// The page's file, made before the work.
    fn page(&self) -> Result<Option<PageFile>, Exit> {
        self.html.as_deref().map(PageFile::create).transpose()
    }
}

/// Which pods a report is about.
#[derive(Clone, Debug, Default)]
pub(super) struct ReportScope {
    /// Instead of the manifests'.
    pub(super) namespace: Option<String>,
    /// Labels of the pods.
    pub(super) selector: Option<String>,
}

/// The format of a report on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people.
    #[default]
    Text,
    /// All of it, as JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// What `--fail-on` names, as test results.
    Junit,
}

/// Replays, or reads the status of a resource, and prints the report.
///
/// # Errors
/// 2 for wrong arguments and mistakes in manifests; 1 when nothing could be replayed, read or printed; 3 for what
/// `--fail-on` names.
pub async fn run(args: Args) -> Result<(), Exit> {
    let Args { name, namespace, selector, output, replay } = args;
    let Some(name) = name else {
        return replayed(&replay, ReportScope { namespace, selector }, output).await;
    };
    let cluster = ClusterClient::connect(&ConnectOptions::default(), None).await?;
    let namespace = namespace.unwrap_or_else(|| cluster.namespace.clone());
    recorded(&cluster, &namespace, &name, &replay, output).await
}

/// A report of a replay.
///
/// # Errors
/// As of [`run`].
pub(super) async fn replayed(
    args: &ReplayArgs,
    scope: ReportScope,
    output: ReportFormat,
) -> Result<(), Exit> {
    let requests = read(args, scope, Clock::start().wall())?.by_service()?;
    let page = args.page()?;
    let stop = CancellationToken::new();
    runtime::stop_on_signals(&stop)?;
    let (models, failed) = in_turn(requests, &stop).await?;
    let concluded = deliver(&models, page, args, output);
    // What --fail-on names is told before what could not be replayed.
    concluded.and(failed.map_or(Ok(()), |failed| Err(Exit::Failed(anyhow::anyhow!(failed)))))
}

/// The reports, one for each Service, and which could not be made. A Service that cannot be replayed keeps no other one
/// from it.
///
/// # Errors
/// As of [`replaying::replay`], where nothing was replayed.
async fn in_turn(
    requests: Vec<ReportRequest>,
    stop: &CancellationToken,
) -> Result<(Vec<ReportModel>, Option<String>), Exit> {
    let alone = requests.len() == 1;
    let (mut models, mut failed) = (Vec::new(), Vec::new());
    for request in requests {
        let (progress, name) = (ReportProgress::new(request.range), request.resources());
        let replayed = replaying::replay(request, &progress, stop).await;
        progress.done();
        match replayed {
            Ok(model) => models.push(model),
            Err(exit) if alone => return Err(exit),
            // It has no breaker with a history.
            Err(Exit::Usage(why)) => output::notice(&format!("{name} is left out: {why}\n")),
            Err(exit) => {
                output::notice(&format!("{name} could not be replayed: {exit}\n"));
                failed.push(name);
            }
        }
    }
    if models.is_empty() {
        return Err(Exit::Failed(anyhow::anyhow!("none of the resources could be replayed")));
    }
    let failed = (!failed.is_empty()).then(|| format!("not replayed: {}", failed.join(", ")));
    Ok((models, failed))
}

/// A report of the episodes that a resource keeps.
///
/// # Errors
/// As of [`run`].
pub(super) async fn recorded(
    cluster: &ClusterClient,
    namespace: &str,
    name: &str,
    args: &ReplayArgs,
    output: ReportFormat,
) -> Result<(), Exit> {
    if args.fail_on.iter().any(|what| *what != FailOn::Withheld) {
        let what = "of a resource only --fail-on withheld is known; the others need a replay, with -f";
        return Err(Exit::Usage(what.to_owned()));
    }
    let page = args.page()?;
    let resource = cluster.service(namespace, name).await?;
    deliver(&[resource_record::read(&resource, Clock::start().wall())], page, args, output)
}

/// Writes the reports of all Services as one output.
fn deliver(
    models: &[ReportModel],
    page: Option<PageFile>,
    args: &ReplayArgs,
    output: ReportFormat,
) -> Result<(), Exit> {
    if let Some(page) = page {
        page.write(&page::render(models).map_err(anyhow::Error::msg)?)?;
    }
    let printed = match output {
        ReportFormat::Text => models.iter().map(text::render).collect::<Vec<_>>().join("\n"),
        ReportFormat::Json => {
            let value = match models {
                [model] => serde_json::to_value(model),
                several => serde_json::to_value(several),
            };
            output::json(&value.context("cannot write the report as JSON")?)?
        }
        ReportFormat::Yaml => {
            let documents: Result<Vec<String>, _> = models.iter().map(serde_saphyr::to_string).collect();
            documents.context("cannot write the report as YAML")?.join("---\n")
        }
        ReportFormat::Junit => junit::render(models, &args.fail_on),
    };
    output::print(&printed)?;
    fail_on::conclude(models, &args.fail_on)
}

fn read(args: &ReplayArgs, scope: ReportScope, now: Timestamp) -> Result<ReportRequest, Exit> {
    let range = TimeRange::read(&args.from, &args.to, now)?;
    let sources = args.sources.read()?;
    let context = Context { detectors: Detectors::All, timing: None, sources };
    let selector = match (&scope.selector, &args.service_file) {
        (Some(_), Some(_)) => {
            let what = "--selector and --service-file are two ways to say the same; write one of them";
            return Err(Exit::Usage(what.to_owned()));
        }
        (Some(_), None) if args.fleet_query.is_some() => {
            return Err(Exit::Usage(
                "--selector and --fleet-query both name the fleet; write one of them".to_owned(),
            ));
        }
        (Some(labels), None) => Some(request::selector(labels)?),
        (None, Some(file)) => Some(request::service_selector(file)?),
        (None, None) => None,
    };
    Ok(ReportRequest {
        pods: None,
        show_queries: false,
        variants: variants::load(&args.files, &args.settings, context)?,
        range,
        namespace: scope.namespace,
        prometheus: args.prometheus.clone(),
        sources,
        selector,
        fleet_query: args.fleet_query.clone(),
        labels: args.labels.as_deref().map(|file| IncidentLabels::load(file, now)).transpose()?,
    })
}
