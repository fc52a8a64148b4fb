//! How a command ends: the exit codes that scripts rely on.

use std::process::ExitCode;

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Exit {
    /// The work failed: 1.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// Wrong usage or configuration: 2. The text says what, where and what to do.
    #[error("{0}")]
    Usage(String),
    /// A `--timeout` ran out: 124.
    #[error("{0}")]
    TimedOut(String),
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::TimedOut(_) => 124,
        })
    }
}
