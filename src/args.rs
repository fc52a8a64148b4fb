//! The command line: subcommands and their dispatch. Each role owns its `Args`.
//!
//! Every flag has a variable, so that a container needs no command line.

use clap::{Parser, Subcommand};

use crate::{
    exit::Exit,
    roles,
    telemetry::{LogFormat, Verbosity},
};

/// The parsed command line.
#[derive(Debug, Parser)]
#[command(name = "kubervisor", version, about, max_term_width = 110)]
pub struct Cli {
    /// How log lines look on stderr; data is always on stdout.
    #[arg(long, global = true, env = "KUBERVISOR_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Which role; `run` when `KONTROL_MODE` is set.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The roles.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Kontrol: agent, master or both, as the KONTROL_* variables say.
    Run(roles::run::Args),
    /// Has an agent run a command, and prints its output.
    Invoke(roles::invoke::Args),
    /// Writes a key pair for `invoke`.
    Keygen(roles::keygen::Args),
    /// Shows the fleet: ensemble, services, alarms.
    Status(roles::status::StatusArgs),
    /// Runs the main job on this machine, with figures: 12 apps, one master, and nine masters on one etcd.
    Demo(roles::demo::Args),
    /// Says why a pod is or is not withheld.
    Explain(roles::status::ExplainArgs),
    /// The built-in breaker as a callback: reads what a callback reads, prints verdicts.
    Breaker(roles::breaker::Args),
    /// Validates KubervisorService manifests and policies, offline.
    Check(roles::check::Args),
    /// Replays manifests over the history in Prometheus: what they would have withheld, and when.
    Report(roles::report::Args),
    /// Shows the replicas that share the work, and moves work off one.
    Cluster(roles::cluster::command::Args),
    /// Works on the KubervisorServices of a cluster.
    Controller(roles::controller::Args),
    /// Prints the CustomResourceDefinition of KubervisorService.
    Crd(roles::crd::Args),
}

impl Cli {
    /// Parses `arguments` (the first is the program); without a subcommand it is `run` when `kontrol_mode` is set.
    ///
    /// # Errors
    /// Wrong usage, or the help text that was requested.
    pub fn read(mut arguments: Vec<std::ffi::OsString>, kontrol_mode: bool) -> Result<Self, clap::Error> {
        let cli = Self::try_parse_from(&arguments)?;
        if cli.command.is_some() || !kontrol_mode {
            return Ok(cli);
        }
        arguments.push("run".into());
        Self::try_parse_from(&arguments)
    }
}

impl Command {
    /// The role's log level unless `RUST_LOG` sets one; command line tools log warnings only.
    pub fn verbosity(&self) -> Verbosity {
        match self {
            Self::Run(_) => Verbosity::of_mode(std::env::var("KONTROL_MODE").unwrap_or_default().as_str()),
            Self::Controller(args) if args.debug => Verbosity::Verbose,
            Self::Controller(_) => Verbosity::Normal,
            _ => Verbosity::Warnings,
        }
    }

    /// Runs the role to its end.
    ///
    /// # Errors
    /// The role's own, as exit code and message.
    pub async fn run(self) -> Result<(), Exit> {
        match self {
            Self::Run(args) => roles::run::run(args).await,
            Self::Invoke(args) => roles::invoke::run(args).await,
            Self::Keygen(args) => roles::keygen::run(args).await,
            Self::Status(args) => roles::status::status(args).await,
            Self::Demo(_) => roles::demo::run(),
            Self::Explain(args) => roles::status::explain(args).await,
            Self::Breaker(args) => roles::breaker::run(args).await,
            Self::Check(args) => roles::check::run(args).await,
            Self::Report(args) => roles::report::run(args).await,
            Self::Cluster(args) => roles::cluster::command::run(args).await,
            Self::Controller(args) => roles::controller::run(args).await,
            Self::Crd(args) => roles::crd::run(args).await,
        }
    }
}

#[cfg(test)]
mod reference;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn read(arguments: &[&str], kontrol_mode: bool) -> Result<Cli, clap::Error> {
        Cli::read(arguments.iter().map(Into::into).collect(), kontrol_mode)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default_only_when_kontrol_mode_is_set() {
        assert!(matches!(read(&["kubervisor"], true).unwrap().command, Some(Command::Run(_))));
        let json = read(&["kubervisor", "--log-format", "json"], true).unwrap();
        assert!(matches!(json.command, Some(Command::Run(_))));
        assert_eq!(json.log_format, LogFormat::Json);
        assert!(read(&["kubervisor"], false).unwrap().command.is_none());
        assert!(matches!(
            read(&["kubervisor", "keygen", "--out", "x"], true).unwrap().command,
            Some(Command::Keygen(_))
        ));
    }

    #[test]
    fn every_flag_has_a_variable() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments().filter(|a| a.get_long().is_some()) {
                let id = argument.get_id().as_str();
                if matches!(id, "help" | "version") {
                    continue;
                }
                let variable = argument.get_env().and_then(|v| v.to_str()).unwrap_or_default();
                let ours = variable.starts_with("KUBERVISOR_") || variable.starts_with("KONTROL_");
                assert!(ours, "--{id} of {} has no variable", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
