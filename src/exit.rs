//! Exit codes of the command, which scripts rely on.

use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Exit {
    /// The work failed: 1.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// Wrong usage or configuration: 2. The text names the setting and what to write.
    #[error("{0}")]
    Usage(String),
    /// The work was done, and found what it was told to fail on: 3.
    #[error("{0}")]
    Found(String),
    /// A `--timeout` ran out: 124.
    #[error("{0}")]
    TimedOut(String),
}

impl Exit {
    /// The process's exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Found(_) => 3,
            Self::TimedOut(_) => 124,
        })
    }
}

/// An error with its causes on one line, without repetitions.
pub fn chain(error: &dyn std::error::Error) -> String {
    with_causes(error.to_string(), error.source())
}

/// `text` with the causes that it does not have yet.
pub fn with_causes(mut text: String, mut next: Option<&dyn std::error::Error>) -> String {
    while let Some(cause) = next {
        let message = cause.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        next = cause.source();
    }
    text
}
