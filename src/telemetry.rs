//! Logs: on stderr, as text for people or JSON for collectors; stdout is for data.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

/// How much is logged unless `RUST_LOG` says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings and errors: command line tools.
    Warnings,
    /// What a service did: `run`.
    Normal,
    /// Every step of ours: `verbose` or `debug` among the tokens of `KONTROL_MODE`.
    Verbose,
}

impl Verbosity {
    /// What the tokens of `KONTROL_MODE` ask for.
    #[must_use]
    pub fn of_mode(mode: &str) -> Self {
        let verbose = mode.split(',').any(|token| matches!(token.trim(), "verbose" | "debug"));
        if verbose { Self::Verbose } else { Self::Normal }
    }

    fn directives(self) -> &'static str {
        match self {
            Self::Warnings => "warn",
            Self::Normal => "info",
            Self::Verbose => "info,kubervisor=debug",
        }
    }
}

/// Starts logging. `RUST_LOG`, where it is valid, wins over `verbosity`. A second call changes nothing.
pub fn start(format: LogFormat, verbosity: Verbosity) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(verbosity.directives()));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A subscriber that somebody else has installed (a test) stays.
    let _installed = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_tokens_verbose_and_debug_turn_debug_logs_on() {
        assert_eq!(Verbosity::of_mode("slave"), Verbosity::Normal);
        assert_eq!(Verbosity::of_mode("slave, verbose"), Verbosity::Verbose);
        assert_eq!(Verbosity::of_mode("debug"), Verbosity::Verbose);
        assert_eq!(Verbosity::of_mode(""), Verbosity::Normal);
    }
}
