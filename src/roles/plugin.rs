//! `kubectl kubervisor`: the KubervisorServices in columns, and why a pod is or is not withheld.
//!
//! It reads only the API server, with the user's rights, so that it works when no controller runs.

mod explanation;
mod fields;
mod names;
mod table;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use kube::config::KubeConfigOptions;
use serde_json::{Value, json};

use super::output;
use crate::{
    adapters::kubernetes::{
        connect::ConnectOptions,
        untyped::{ClusterClient, ListScope},
    },
    clock::Clock,
    exit::Exit,
};

/// The command line of the plugin.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-kubervisor",
    bin_name = "kubectl kubervisor",
    version,
    max_term_width = 110,
    about = "Lists the KubervisorServices of a namespace, or shows why a pod is or is not withheld",
    after_help = "A KubervisorService is `kvs` or `rdc` for short: `kubectl get kvs` shows them too.\n\
                  Exit codes: 0 success, 1 failure, 2 wrong usage."
)]
pub struct PluginCli {
    /// Only this KubervisorService: web, kvs/web or rdc/web.
    #[arg(short = 'k', long = "kubervisorservice", value_name = "NAME", value_parser = names::service)]
    name: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The format; a table when not given.
    #[arg(short, long, global = true, value_enum)]
    output: Option<OutputFormat>,
    #[command(subcommand)]
    command: Option<PluginCommand>,
}

#[derive(Debug, clap::Args)]
struct ClusterArgs {
    /// The namespace; that of the context when not given.
    #[arg(short, long, global = true, value_parser = names::object, conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Those of every namespace.
    #[arg(short = 'A', long, global = true)]
    all_namespaces: bool,
    /// The kubeconfig file; else those of KUBECONFIG, ~/.kube/config, or the pod's own account.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; its current one when not given.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The cluster of the kubeconfig; that of the context when not given.
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<String>,
    /// The user of the kubeconfig; that of the context when not given.
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// The API server's URL, instead of the kubeconfig's.
    #[arg(short, long, global = true, value_name = "URL")]
    server: Option<String>,
    /// Acts as this user.
    #[arg(long = "as", global = true, value_name = "USER")]
    as_user: Option<String>,
    /// Acts as a member of this group; may be repeated.
    #[arg(long = "as-group", global = true, value_name = "GROUP", requires = "as_user")]
    as_groups: Vec<String>,
    /// How long a request may take: 10s, 2m; a number is seconds, 0 is no limit. Default: 10s.
    #[arg(long, global = true, value_name = "TIME", value_parser = names::duration)]
    request_timeout: Option<Duration>,
}

impl From<ClusterArgs> for ConnectOptions {
    fn from(args: ClusterArgs) -> Self {
        let ClusterArgs { kubeconfig, context, cluster, user, server, as_user, as_groups, .. } = args;
        let names = KubeConfigOptions { context, cluster, user };
        Self { kubeconfig, server, names, impersonate: as_user, groups: as_groups }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// As JSON.
    Json,
    /// As YAML.
    Yaml,
    /// As a table with more columns.
    Wide,
    /// Only the names, for another kubectl.
    Name,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Shows why a pod is or is not withheld: the breaker, its numbers, and what happens next.
    Explain {
        /// The pod: web-1 or pod/web-1.
        #[arg(value_name = "POD", value_parser = names::pod)]
        pod: String,
    },
}

/// What the plugin prints.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PluginOutput {
    /// For stdout.
    pub data: String,
    /// For stderr.
    pub notice: String,
}

/// Reads the cluster and renders the answer.
///
/// # Errors
/// [`Exit::Usage`] for arguments that exclude each other; [`Exit::Failed`] without a cluster, a resource or a right.
/// Each message names the remedy.
pub async fn run(cli: PluginCli) -> Result<PluginOutput, Exit> {
    check_combinations(&cli)?;
    let ClusterArgs { namespace, all_namespaces, request_timeout, .. } = &cli.cluster;
    let (namespace, all_namespaces, timeout) = (namespace.clone(), *all_namespaces, *request_timeout);
    let cluster = ClusterClient::connect(&cli.cluster.into(), timeout).await?;
    let namespace = namespace.unwrap_or_else(|| cluster.namespace().to_owned());
    match (cli.command, cli.name) {
        (Some(PluginCommand::Explain { pod }), _) => {
            let explanation = explanation::explain(&cluster, &namespace, &pod).await?;
            let data = match cli.output {
                None => explanation.to_string(),
                Some(output) => serialize(&json!(explanation), output)?,
            };
            Ok(PluginOutput { data, notice: String::new() })
        }
        (None, Some(name)) => {
            let resource = cluster.service(&namespace, &name).await?;
            list(std::slice::from_ref(&resource), &resource, cli.output)
        }
        (None, None) => {
            let scope = if all_namespaces { ListScope::All } else { ListScope::Namespace(&namespace) };
            let found = cluster.services(scope).await?;
            let whole = json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": found });
            let mut output = list(&found, &whole, cli.output)?;
            if found.is_empty() && !matches!(cli.output, Some(OutputFormat::Json | OutputFormat::Yaml)) {
                output = PluginOutput {
                    notice: format!("No KubervisorServices in {scope}\n"),
                    ..PluginOutput::default()
                };
            }
            Ok(output)
        }
    }
}

/// Checks the combinations of arguments that clap does not check.
fn check_combinations(cli: &PluginCli) -> Result<(), Exit> {
    let refuse = |what: &str| Err(Exit::Usage(format!("{what}; see kubectl kubervisor --help")));
    if cli.name.is_some() && cli.cluster.all_namespaces {
        return refuse("a name is one of a namespace: give -n NAMESPACE with -k, not --all-namespaces");
    }
    if cli.command.is_none() {
        return Ok(());
    }
    if cli.name.is_some() {
        return refuse("explain finds the KubervisorService of the pod by itself: leave out -k");
    }
    if cli.cluster.all_namespaces {
        return refuse("a pod is one of a namespace: give -n NAMESPACE with explain, not --all-namespaces");
    }
    if matches!(cli.output, Some(OutputFormat::Wide | OutputFormat::Name)) {
        return refuse("explain prints text, or with -o json or yaml");
    }
    Ok(())
}

/// The resources in the requested format; `whole` is all of them as one object.
fn list(resources: &[Value], whole: &Value, output: Option<OutputFormat>) -> Result<PluginOutput, Exit> {
    let data = match output {
        None => table::narrow(resources),
        Some(OutputFormat::Wide) => table::wide(resources, Clock::start().wall()),
        Some(OutputFormat::Name) => resources.iter().map(table::name).collect(),
        Some(output) => serialize(whole, output)?,
    };
    Ok(PluginOutput { data, notice: String::new() })
}

fn serialize(value: &Value, output: OutputFormat) -> Result<String, Exit> {
    if output == OutputFormat::Yaml {
        return Ok(serde_saphyr::to_string(value).context("cannot write it as YAML")?);
    }
    output::json(value)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn read(line: &str) -> Result<PluginCli, clap::Error> {
        PluginCli::try_parse_from(["kubectl-kubervisor"].into_iter().chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_well_formed_and_names_the_short_names() {
        PluginCli::command().debug_assert();
        let help = PluginCli::command().render_help().to_string();
        assert!(help.contains("kvs") && help.contains("rdc"), "{help}");
        assert!(help.contains("kubectl kubervisor"), "{help}");
    }

    #[test]
    fn flags_stand_before_and_after_explain() {
        for line in ["-n shop explain web-1 -o json", "explain pod/web-1 --namespace shop --output json"] {
            let cli = read(line).unwrap();
            assert_eq!(cli.cluster.namespace.as_deref(), Some("shop"), "{line}");
            assert_eq!(cli.output, Some(OutputFormat::Json), "{line}");
            assert!(matches!(cli.command, Some(PluginCommand::Explain { pod }) if pod == "web-1"), "{line}");
        }
    }

    #[test]
    fn arguments_that_exclude_each_other_are_wrong_usage() {
        for line in ["-k web -A", "-k web explain web-1", "-A explain web-1", "explain web-1 -o name"] {
            let refused = check_combinations(&read(line).unwrap());
            assert!(matches!(refused, Err(Exit::Usage(_))), "{line}: {refused:?}");
        }
        for line in ["-n shop -A", "-o xml", "-k svc/web", "-n ../x", "explain", "explain a/b/c", "-k Web"] {
            assert_eq!(read(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_switch_stays_a_string_in_yaml() {
        let yaml = serialize(&json!({ "traffic": "yes", "pod": "1" }), OutputFormat::Yaml).unwrap();
        assert!(yaml.contains("traffic: \"yes\"") || yaml.contains("traffic: 'yes'"), "{yaml}");
    }
}
