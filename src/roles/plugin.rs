//! `kubectl kubervisor`: the KubervisorServices in columns, and why a pod is or is not withheld.
//!
//! It reads the API server as its user may, and nothing else: no controller has to answer, so that it
//! works just when the controller does not.

mod cluster;
mod names;
mod story;
mod table;
mod view;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use self::cluster::{Cluster, Scope};
use crate::{clock::Clock, exit::Exit};

/// The command line of the plugin.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-kubervisor",
    bin_name = "kubectl kubervisor",
    version,
    max_term_width = 110,
    about = "Lists the KubervisorServices of a namespace, or says why a pod is or is not withheld",
    after_help = "A KubervisorService is `kvs` or `rdc` for short: `kubectl get kvs` shows them too.\n\
                  Exit codes: 0 all is said, 1 it failed, 2 wrong usage."
)]
pub struct Cli {
    /// Only this KubervisorService: web, kvs/web or rdc/web.
    #[arg(short = 'k', long = "kubervisorservice", value_name = "NAME", value_parser = names::service)]
    name: Option<String>,
    #[command(flatten)]
    reach: Reach,
    /// How it is printed; as a table when not given.
    #[arg(short, long, global = true, value_enum)]
    output: Option<Output>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Which cluster, and what of it.
#[derive(Debug, clap::Args)]
struct Reach {
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
}

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// As JSON.
    Json,
    /// As YAML.
    Yaml,
    /// As a table with more columns.
    Wide,
    /// Only the names, for another kubectl.
    Name,
}

/// What else there is to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Says why a pod is or is not withheld: who objects, in numbers, and what happens next.
    Explain {
        /// The pod: web-1 or pod/web-1.
        #[arg(value_name = "POD", value_parser = names::pod)]
        pod: String,
    },
}

/// What is to be printed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// On stdout.
    pub data: String,
    /// On stderr.
    pub aside: String,
}

/// Asks the cluster and puts into words what it answers.
///
/// # Errors
/// Arguments that do not go together; no cluster, no resource, no right: each says what to do.
pub async fn run(cli: Cli) -> Result<Said, Exit> {
    refuse_nonsense(&cli)?;
    let Reach { namespace, all_namespaces, kubeconfig, context } = cli.reach;
    let cluster = Cluster::connect(kubeconfig, context).await?;
    let namespace = namespace.unwrap_or_else(|| cluster.namespace().to_owned());
    match (cli.command, cli.name) {
        (Some(Command::Explain { pod }), _) => {
            let story = story::tell(&cluster, &namespace, &pod).await?;
            let data = match cli.output {
                None => story.to_string(),
                Some(output) => structured(&json!(story), output)?,
            };
            Ok(Said { data, aside: String::new() })
        }
        (None, Some(name)) => {
            let resource = cluster.service(&namespace, &name).await?;
            list(std::slice::from_ref(&resource), &resource, cli.output)
        }
        (None, None) => {
            let scope = if all_namespaces { Scope::All } else { Scope::Namespace(&namespace) };
            let found = cluster.services(scope).await?;
            let whole = json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": found });
            let mut said = list(&found, &whole, cli.output)?;
            if found.is_empty() && !matches!(cli.output, Some(Output::Json | Output::Yaml)) {
                said = Said { aside: format!("No KubervisorServices in {scope}\n"), ..Said::default() };
            }
            Ok(said)
        }
    }
}

/// What clap cannot know does not go together.
fn refuse_nonsense(cli: &Cli) -> Result<(), Exit> {
    let refuse = |what: &str| Err(Exit::Usage(format!("{what}; see kubectl kubervisor --help")));
    if cli.name.is_some() && cli.reach.all_namespaces {
        return refuse("a name is one of a namespace: give -n NAMESPACE with -k, not --all-namespaces");
    }
    if cli.command.is_none() {
        return Ok(());
    }
    if cli.name.is_some() {
        return refuse("explain finds the KubervisorService of the pod by itself: leave out -k");
    }
    if cli.reach.all_namespaces {
        return refuse("a pod is one of a namespace: give -n NAMESPACE with explain, not --all-namespaces");
    }
    if matches!(cli.output, Some(Output::Wide | Output::Name)) {
        return refuse("explain prints text, or with -o json or yaml");
    }
    Ok(())
}

/// The resources in the form asked for; `whole` is what they are as one object.
fn list(resources: &[Value], whole: &Value, output: Option<Output>) -> Result<Said, Exit> {
    let data = match output {
        None => table::narrow(resources),
        Some(Output::Wide) => table::wide(resources, Clock::start().wall()),
        Some(Output::Name) => resources.iter().map(table::name).collect(),
        Some(output) => structured(whole, output)?,
    };
    Ok(Said { data, aside: String::new() })
}

fn structured(value: &Value, output: Output) -> Result<String, Exit> {
    if output == Output::Yaml {
        return Ok(serde_saphyr::to_string(value).context("cannot write it as YAML")?);
    }
    Ok(serde_json::to_string_pretty(value).context("cannot write it as JSON")? + "\n")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["kubectl-kubervisor"].into_iter().chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_well_formed_and_tells_the_short_names() {
        Cli::command().debug_assert();
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("kvs") && help.contains("rdc"), "{help}");
        assert!(help.contains("kubectl kubervisor"), "{help}");
    }

    #[test]
    fn flags_stand_before_and_after_explain() {
        for line in ["-n shop explain web-1 -o json", "explain pod/web-1 --namespace shop --output json"] {
            let cli = read(line).unwrap();
            assert_eq!(cli.reach.namespace.as_deref(), Some("shop"), "{line}");
            assert_eq!(cli.output, Some(Output::Json), "{line}");
            assert!(matches!(cli.command, Some(Command::Explain { pod }) if pod == "web-1"), "{line}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_wrong_usage() {
        for line in ["-k web -A", "-k web explain web-1", "-A explain web-1", "explain web-1 -o name"] {
            let refused = refuse_nonsense(&read(line).unwrap());
            assert!(matches!(refused, Err(Exit::Usage(_))), "{line}: {refused:?}");
        }
        for line in ["-n shop -A", "-o xml", "-k svc/web", "-n ../x", "explain", "explain a/b/c", "-k Web"] {
            assert_eq!(read(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_switch_stays_a_string_in_yaml() {
        let yaml = structured(&json!({ "traffic": "yes", "pod": "1" }), Output::Yaml).unwrap();
        assert!(yaml.contains("traffic: \"yes\"") || yaml.contains("traffic: 'yes'"), "{yaml}");
    }
}
