//! Logs on stderr, as text or JSON; stdout is for data. Logging is best effort: see `stderr`.

mod stderr;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use self::stderr::LogLines;
pub use self::stderr::lost_lines;

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// The log level unless `RUST_LOG` sets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings and errors: command line tools.
    Warnings,
    /// Information too: `run` and `controller`.
    Normal,
    /// Debug messages of this crate too: `verbose` or `debug` in `KONTROL_MODE`, `controller --debug`.
    Verbose,
}

impl Verbosity {
    /// The level that the tokens of `KONTROL_MODE` select.
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

/// Starts logging. A valid `RUST_LOG` takes precedence over `verbosity`. A second call has no effect.
pub fn start(format: LogFormat, verbosity: Verbosity) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(verbosity.directives()));
    // The subscriber reports its own errors with `eprintln!`, which panics where stderr takes nothing.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(|| LogLines);
    // A subscriber that a test has installed stays.
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
