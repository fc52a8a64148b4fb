//! Completion in a shell: a script for the program itself, and the words that kubectl asks its plugins for.
//!
//! kubectl runs `kubectl_complete-kubervisor`, a script that calls `kubectl-kubervisor __complete` with the words behind
//! `kubectl kubervisor`, of which the last one may be empty. The answer has the form of kubectl's own: a line for each
//! candidate with its description behind a tab, then a colon and a number.

mod objects;

use std::{ffi::OsString, fmt::Write as _, io};

use clap::{Args, CommandFactory};
use clap_complete::{Shell, engine::complete, generate};

use super::{PluginCli, PluginOutput};
use crate::exit::Exit;

const PROGRAM: &str = "kubectl-kubervisor";

/// cobra's `ShellCompDirectiveNoFileComp`: names of files are no candidates.
const NO_FILES: u8 = 4;

/// `completion`.
#[derive(Debug, Args)]
pub(super) struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// `__complete`.
#[derive(Debug, Args)]
pub(super) struct CompleteArgs {
    /// The words so far.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// The script for the shell.
pub(super) fn script(args: &CompletionArgs) -> PluginOutput {
    let mut script = Vec::new();
    generate(args.shell, &mut PluginCli::command(), PROGRAM, &mut script);
    PluginOutput { data: String::from_utf8_lossy(&script).into_owned(), ..PluginOutput::default() }
}

/// What the last word may become.
///
/// # Errors
/// When the current directory cannot be read.
pub(super) async fn candidates(args: CompleteArgs) -> Result<PluginOutput, Exit> {
    let mut words = vec![OsString::from(PROGRAM)];
    words.extend(args.words);
    if words.len() == 1 {
        words.push(OsString::new());
    }
    let last = words.len() - 1;
    let unfinished = PluginCli::command().ignore_errors(true);
    let mut command = match unfinished.try_get_matches_from(&words[..last]) {
        Ok(so_far) => objects::with_names(PluginCli::command(), &so_far),
        // It asks for help or the version.
        Err(_) => PluginCli::command(),
    };
    let completion = tokio::task::spawn_blocking(move || complete(&mut command, words, last, None));
    let found = completion.await.map_err(io::Error::other).flatten().map_err(|error| {
        Exit::Failed(anyhow::Error::new(error).context("cannot complete the command line"))
    })?;
    let mut data = String::new();
    for candidate in found.iter().filter(|candidate| !candidate.is_hide_set()) {
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.lines().next().unwrap_or_default();
        let value = candidate.get_value().to_string_lossy();
        let _infallible = writeln!(data, "{}", format!("{value}\t{help}").trim_end());
    }
    let _infallible = writeln!(data, ":{NO_FILES}");
    Ok(PluginOutput { data, ..PluginOutput::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(words: &[&str]) -> Vec<String> {
        let words = words.iter().map(OsString::from).collect();
        candidates(CompleteArgs { words }).await.unwrap().data.lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn the_last_word_becomes_a_command_a_flag_or_a_value() {
        assert_eq!(lines(&["exp"]).await[0].split('\t').next(), Some("explain"));
        for (words, expected) in [
            (&[][..], "explain\t"),
            (&["list", "--all-n"], "--all-namespaces\t"),
            (&["list", "--color", "nev"], "never"),
            (&["--version", "exp"], "explain\t"),
        ] {
            let found = lines(words).await;
            assert!(found.iter().any(|line| line.starts_with(expected)), "{words:?}: {found:?}");
        }
        assert_eq!(lines(&["no-such-command", "x"]).await, [":4"]);
        assert!(!lines(&["__"]).await.iter().any(|line| line.contains("complete")), "it is for kubectl");
    }
}
