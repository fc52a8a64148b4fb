//! `kubectl kubervisor`: what is withheld and why, and a person's decisions about it.
//!
//! It asks only the API server, with the user's rights, so that it works when no controller runs.
//!
//! | file | content |
//! |---|---|
//! | `args` | the flags of every command, under kubectl's names |
//! | `format`, `jsonpath`, `style` | `-o`, colours, the terminal's width |
//! | `table` | `list` |
//! | `tree` | `tree` |
//! | `explanation` | `explain` |
//! | `watch` | `-w` and `--until` of these |
//! | `check` | `check` |
//! | | `report`, of `roles::report` |
//! | `switch` | `enable`, `disable` |
//! | `person` | `withhold`, `admit`, `pause`, `resume` |
//! | `completion` | `completion`, and what kubectl asks for |
//! | `fields`, `names` | members of a resource as text; names from the command line |

mod args;
mod check;
mod completion;
mod explanation;
mod fields;
mod format;
mod jsonpath;
pub(super) mod names;
mod person;
mod style;
mod switch;
mod table;
mod tree;
mod watch;

use clap::{Parser, Subcommand};

use self::{
    args::{GlobalArgs, PluginSession},
    check::CheckArgs,
    completion::{CompleteArgs, CompletionArgs},
    format::{CommandOutput, OutputFormat},
    names::RequestTarget,
    person::RequestArgs,
    table::ResourceTable,
    watch::WatchArgs,
};
use super::report::{self, ReplayArgs, ReportFormat};
use crate::{api::requests::RequestVerb, exit::Exit};

/// The command line of the plugin.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-kubervisor",
    bin_name = "kubectl kubervisor",
    version,
    max_term_width = 110,
    about = "Lists the KubervisorServices of a namespace, shows why a pod is or is not withheld",
    after_help = "A KubervisorService is `kvs` or `rdc` for short: `kubectl get kvs` shows them too.\n\
                  Exit codes: 0 success, 1 failure, 2 wrong usage, 3 findings of check or report, 124 time-out."
)]
pub struct PluginCli {
    /// Only this KubervisorService: web, kvs/web or rdc/web.
    #[arg(short = 'k', long = "kubervisorservice", value_name = "NAME", value_parser = names::service)]
    name: Option<String>,
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Option<PluginCommand>,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Lists the KubervisorServices; also without a command.
    List {
        /// Only this one: web, kvs/web or rdc/web.
        #[arg(value_name = "NAME", value_parser = names::service)]
        name: Option<String>,
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Shows a KubervisorService with its Service, its breakers and their pods.
    #[command(visible_alias = "get")]
    Tree {
        /// The KubervisorService: web, kvs/web or rdc/web.
        #[arg(value_name = "NAME", value_parser = names::service)]
        name: String,
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Shows why a pod is or is not withheld: the breaker, its numbers, and what happens next.
    Explain {
        /// The pod: web-1 or pod/web-1.
        #[arg(value_name = "POD", value_parser = names::pod)]
        pod: String,
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Checks rights, definition, controllers, resources and leftovers; each finding has a code.
    Check {
        #[command(flatten)]
        check: CheckArgs,
    },
    /// Reports what was withheld, and what a dry run would have withheld; with -f replays manifests over Prometheus.
    Report {
        /// The KubervisorService: web, kvs/web or rdc/web.
        #[arg(value_name = "NAME", value_parser = names::service, conflicts_with = "files")]
        name: Option<String>,
        #[command(flatten)]
        replay: ReplayArgs,
    },
    /// Lets labels decide about traffic: puts the switch into the Service's selector.
    Enable {
        /// The KubervisorService: web, kvs/web or rdc/web.
        #[arg(value_name = "NAME", value_parser = names::service)]
        name: String,
        /// The API server checks the change, and stores nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Gives every pod its traffic: takes the switch out of the Service's selector.
    Disable {
        /// The KubervisorService: web, kvs/web or rdc/web.
        #[arg(value_name = "NAME", value_parser = names::service)]
        name: String,
        /// The API server checks the change, and stores nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Asks to withhold a pod; the floor, a panic and a dry run win.
    Withhold {
        /// The pod: web-1 or pod/web-1.
        #[arg(value_name = "POD", value_parser = names::pod)]
        pod: String,
        #[command(flatten)]
        request: RequestArgs,
    },
    /// Asks to give a pod its traffic, whatever its breakers find.
    Admit {
        /// The pod: web-1 or pod/web-1.
        #[arg(value_name = "POD", value_parser = names::pod)]
        pod: String,
        #[command(flatten)]
        request: RequestArgs,
    },
    /// Asks to leave every pod of a KubervisorService as it is.
    Pause {
        /// The KubervisorService: web, kvs/web or rdc/web.
        #[arg(value_name = "NAME", value_parser = names::service)]
        name: String,
        #[command(flatten)]
        request: RequestArgs,
    },
    /// Ends a pause, or with pod/NAME the requests about a pod.
    Resume {
        /// The KubervisorService, or pod/web-1.
        #[arg(value_name = "NAME", value_parser = names::request_target)]
        target: RequestTarget,
        #[command(flatten)]
        request: RequestArgs,
    },
    /// Prints a script that completes commands and flags of kubectl-kubervisor in a shell.
    Completion {
        #[command(flatten)]
        completion: CompletionArgs,
    },
    /// What kubectl asks for completion.
    #[command(name = "__complete", hide = true)]
    Complete {
        #[command(flatten)]
        complete: CompleteArgs,
    },
}

/// What the plugin prints.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PluginOutput {
    /// For stdout.
    pub data: String,
    /// For stderr.
    pub notice: String,
    /// A check failed: exit code 3.
    pub findings: bool,
}

/// Reads the cluster and renders the answer.
///
/// # Errors
/// [`Exit::Usage`] for arguments that exclude each other; [`Exit::Failed`] without a cluster, a resource or a right.
/// Each message names the remedy.
pub async fn run(cli: PluginCli) -> Result<PluginOutput, Exit> {
    let PluginCli { name, global, command } = cli;
    check_combinations(name.as_deref(), &global, command.as_ref())?;
    match command {
        None => list(global, name, &WatchArgs::default()).await,
        Some(PluginCommand::List { name: named, watch }) => list(global, named.or(name), &watch).await,
        Some(PluginCommand::Tree { name, watch }) => {
            let session = global.open().await?;
            watch.show(&session, async || tree::tree(&session, &name).await).await
        }
        Some(PluginCommand::Explain { pod, watch }) => {
            let session = global.open().await?;
            let read = async || explanation::explain(&session.cluster, &session.namespace, &pod).await;
            watch.show(&session, read).await
        }
        Some(PluginCommand::Check { check }) => check::check(&global.open().await?, &check).await,
        Some(PluginCommand::Report { name, replay }) => report(global, name, &replay).await,
        Some(PluginCommand::Enable { name, dry_run }) => {
            switch::enable(&global.open().await?, &name, dry_run).await
        }
        Some(PluginCommand::Disable { name, dry_run }) => {
            switch::disable(&global.open().await?, &name, dry_run).await
        }
        Some(PluginCommand::Withhold { pod, request }) => {
            ask(global, RequestVerb::Withhold, RequestTarget::Pod(pod), request).await
        }
        Some(PluginCommand::Admit { pod, request }) => {
            ask(global, RequestVerb::Admit, RequestTarget::Pod(pod), request).await
        }
        Some(PluginCommand::Pause { name, request }) => {
            ask(global, RequestVerb::Pause, RequestTarget::Service(name), request).await
        }
        Some(PluginCommand::Resume { target, request }) => {
            ask(global, RequestVerb::Resume, target, request).await
        }
        Some(PluginCommand::Completion { completion }) => Ok(completion::script(&completion)),
        Some(PluginCommand::Complete { complete }) => completion::candidates(complete).await,
    }
}

/// Prints the report itself, because it may be printed and fail nevertheless.
async fn report(global: GlobalArgs, name: Option<String>, replay: &ReplayArgs) -> Result<PluginOutput, Exit> {
    let format = match &global.output {
        OutputFormat::Table | OutputFormat::Wide => ReportFormat::Text,
        OutputFormat::Json => ReportFormat::Json,
        OutputFormat::Yaml => ReportFormat::Yaml,
        OutputFormat::Junit => ReportFormat::Junit,
        OutputFormat::Name | OutputFormat::JsonPath(_) => {
            return Err(Exit::Usage("of a report, -o is table, json, yaml or junit".to_owned()));
        }
    };
    match name {
        Some(name) => {
            let session = global.open().await?;
            report::recorded(&session.cluster, &session.namespace, &name, replay, format).await?;
        }
        None => report::replayed(replay, global.report_scope(), format).await?,
    }
    Ok(PluginOutput::default())
}

async fn ask(
    global: GlobalArgs,
    verb: RequestVerb,
    target: RequestTarget,
    request: RequestArgs,
) -> Result<PluginOutput, Exit> {
    request.check()?;
    person::ask(&global.open().await?, verb, &target, &request).await
}

/// Checks the combinations of arguments that clap does not check.
fn check_combinations(
    name: Option<&str>,
    global: &GlobalArgs,
    command: Option<&PluginCommand>,
) -> Result<(), Exit> {
    if !matches!(command, Some(PluginCommand::Check { .. } | PluginCommand::Report { .. })) {
        check::junit_is_of_check(&global.output)?;
    }
    let named = match command {
        None => name.is_some(),
        Some(PluginCommand::List { name: named, .. }) => named.is_some() || name.is_some(),
        Some(_) if name.is_some() => {
            let what = "-k is of the list; name the object behind the command; see kubectl kubervisor --help";
            return Err(Exit::Usage(what.to_owned()));
        }
        Some(PluginCommand::Explain { .. }) => return global.one_of_a_namespace("a pod"),
        Some(
            PluginCommand::Check { .. } | PluginCommand::Completion { .. } | PluginCommand::Complete { .. },
        ) => false,
        Some(PluginCommand::Report { name, .. }) => name.is_some(),
        Some(_) => true,
    };
    if named { global.one_of_a_namespace("a name") } else { Ok(()) }
}

async fn list(global: GlobalArgs, name: Option<String>, watch: &WatchArgs) -> Result<PluginOutput, Exit> {
    let session = global.open().await?;
    let read = async || {
        let resources = match &name {
            Some(name) => vec![session.cluster.service(&session.namespace, name).await?],
            None => session.cluster.services(session.scope(), session.selector.as_deref()).await?,
        };
        Ok(ResourceTable { resources, single: name.is_some() })
    };
    let mut output = watch.show(&session, read).await?;
    let empty = output.data.is_empty() && !watch.watch;
    if empty && (session.format.is_text() || session.format == OutputFormat::Name) {
        output.notice = format!("No KubervisorServices in {}\n", session.scope());
    }
    Ok(output)
}

fn answer(session: &PluginSession, found: &dyn CommandOutput) -> Result<PluginOutput, Exit> {
    Ok(PluginOutput { data: session.format.render(found, session.style)?, ..PluginOutput::default() })
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
            assert_eq!(cli.global.output, OutputFormat::Json, "{line}");
            assert!(
                matches!(cli.command, Some(PluginCommand::Explain { pod, .. }) if pod == "web-1"),
                "{line}"
            );
        }
    }

    #[test]
    fn arguments_that_exclude_each_other_are_wrong_usage() {
        let lines =
            ["-k web -A", "list web -A", "list web -l app=web", "-k web explain web-1", "-A explain web-1"];
        for line in lines {
            let cli = read(line).unwrap();
            let refused = check_combinations(cli.name.as_deref(), &cli.global, cli.command.as_ref());
            assert!(matches!(refused, Err(Exit::Usage(_))), "{line}: {refused:?}");
        }
        for line in ["-n shop -A", "-o xml", "-k svc/web", "-n ../x", "explain", "explain a/b/c", "-k Web"] {
            assert_eq!(read(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
