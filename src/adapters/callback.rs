//! The user's callback: what it is told, and what its answer means.
//!
//! It is told the snapshot in five ways at once (`$PODS`, stdin, `$PODS_FILE`, and `$STATE` and
//! `$STATE_FILE` beside it), because the kernel takes at most 128 KiB in one variable and the original's
//! callbacks read variables. Its answer is whatever JSON it prints: all of it is the next run's state.
//! A run that fails leaves everything as it was and says why; the next run goes on.

mod answer;
mod files;
mod metrics;

use std::{ffi::OsString, time::Duration};

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::files::CallbackFiles;
pub use self::{
    answer::{AGAIN_LIMITS, Warning},
    metrics::CallbackMetrics,
};
use super::{
    process::{self, Ended, Finished, Job, ProcessError, ResourceLimits},
    store::STATE_LIMIT,
};
use crate::config::CallbackConfig;

/// Bytes of a callback's stdout that are kept.
const STDOUT_LIMIT: usize = 16 << 20;

/// What one run is told.
#[derive(Clone, Debug)]
pub struct CallbackInput {
    /// The canonical snapshot, exactly the bytes that the digest is of.
    pub pods: Bytes,
    /// The digest as `ab:cd:...`.
    pub digest: String,
    /// What the last successful run printed.
    pub state: Option<Bytes>,
    /// What the gate knows of each pod: JSON, outside the digest.
    pub fleet: Bytes,
}

/// What one run came to.
#[derive(Debug)]
pub struct CallbackOutcome {
    /// Its answer, or why there is none; then state and verdicts stay in force.
    pub result: Result<CallbackAnswer, CallbackError>,
    /// What was odd about it and did no harm.
    pub warnings: Vec<Warning>,
    /// From the start of the files to the end of its last process.
    pub duration: Duration,
}

/// A callback's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallbackAnswer {
    /// To be persisted as the next run's state; `None` leaves it as it was.
    pub state: Option<Bytes>,
    /// The member `traffic` as printed: verdicts for the gate, which replace all earlier ones of this callback.
    pub traffic: Option<Value>,
    /// The member `again`: run again after this, even if nothing changed.
    pub again: Option<Duration>,
}

/// A run without an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackError {
    /// It was not started.
    #[error(transparent)]
    NotStarted(#[from] ProcessError),
    /// The files that it reads could not be written.
    #[error("cannot write the callback's files below {directory}: {source}; make it writable, or set TMPDIR")]
    WriteFiles {
        /// The last directory that was tried.
        directory: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It ended with an exit code that is not 0.
    #[error("the callback ended with exit code {code}{}", said(.complaint))]
    ExitCode {
        /// The code.
        code: i32,
        /// The last line of its stderr.
        complaint: String,
    },
    /// A signal ended it.
    #[error("the callback was ended by signal {signal}{}", said(.complaint))]
    Signal {
        /// The signal's number.
        signal: i32,
        /// The last line of its stderr.
        complaint: String,
    },
    /// It took too long.
    #[error("the callback did not end within {timeout:?} and was killed; see KONTROL_CALLBACK_TIMEOUT")]
    TimedOut {
        /// What it had.
        timeout: Duration,
    },
    /// We ended it, because the lead is lost or the process stops.
    #[error("the callback was cancelled")]
    Cancelled,
    /// Its output is not one JSON value.
    #[error("the callback printed no valid JSON: {source}; logs belong on stderr")]
    InvalidJson {
        /// Where it went wrong.
        source: serde_json::Error,
    },
    /// Its output is valid or not, but more than a store takes.
    #[error("the callback printed {size} bytes or more; at most {STATE_LIMIT} can be kept as its state")]
    StateTooLarge {
        /// How much was read of it.
        size: usize,
    },
}

fn said(complaint: &str) -> String {
    if complaint.is_empty() { String::new() } else { format!("; the last line of its stderr: {complaint}") }
}

impl CallbackError {
    /// A static name of the kind, for a metric's label.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotStarted(error) => error.category(),
            Self::WriteFiles { .. } => "files",
            Self::ExitCode { .. } => "exit_code",
            Self::Signal { .. } => "signal",
            Self::TimedOut { .. } => "timeout",
            Self::Cancelled => "cancelled",
            Self::InvalidJson { .. } => "invalid_json",
            Self::StateTooLarge { .. } => "state_too_large",
        }
    }
}

/// Runs the callback; one run at a time is the caller's business.
#[derive(Clone, Debug)]
pub struct CallbackRunner {
    config: CallbackConfig,
    environment: Vec<(OsString, OsString)>,
    metrics: CallbackMetrics,
}

impl CallbackRunner {
    /// A runner for `config`. `environment` is set on top of what we inherited, below `PODS` and its like.
    #[must_use]
    pub fn new(
        config: CallbackConfig,
        environment: Vec<(OsString, OsString)>,
        metrics: CallbackMetrics,
    ) -> Self {
        Self { config, environment, metrics }
    }

    /// Runs it once, to the end of its last process.
    pub async fn run(&self, input: CallbackInput, cancel: CancellationToken) -> CallbackOutcome {
        let begun = Instant::now();
        let mut warnings = Vec::new();
        let result = self.attempt(input, cancel, &mut warnings).await;
        let duration = begun.elapsed();
        self.metrics.count(&result, &warnings, duration);
        for warning in &warnings {
            tracing::warn!(warning = warning.category(), "callback: {warning}");
        }
        if let Err(error) = &result {
            tracing::warn!(category = error.category(), ?duration, "{error}; its state stays as it was");
        }
        CallbackOutcome { result, warnings, duration }
    }

    async fn attempt(
        &self,
        input: CallbackInput,
        cancel: CancellationToken,
        warnings: &mut Vec<Warning>,
    ) -> Result<CallbackAnswer, CallbackError> {
        let account = process::resolve_user(&self.config.user).map_err(ProcessError::from)?;
        let pods = input.pods.clone();
        let environment = self.environment.clone();
        let files = CallbackFiles::write(input, account, environment).await?;
        let job = Job {
            environment: files.variables(true),
            without: CallbackFiles::names(),
            stdin: pods,
            timeout: self.config.timeout,
            stdout_limit: STDOUT_LIMIT,
            user: self.config.user.clone(),
            limits: ResourceLimits { core_size: Some(0), ..ResourceLimits::default() },
            ..Job::new("callback", self.config.command.clone())
        };
        let finished = match process::run(job.clone(), cancel.clone()).await {
            // The sum was more than we had reckoned with: the files still have everything.
            Err(ProcessError::TooLong { .. }) => {
                let slim = Job { environment: files.variables(false), ..job };
                process::run(slim, cancel).await
            }
            other => other,
        };
        files.remove().await;
        self.judge(finished?, warnings)
    }

    fn judge(
        &self,
        finished: Finished,
        warnings: &mut Vec<Warning>,
    ) -> Result<CallbackAnswer, CallbackError> {
        let Finished { ended, stdout, truncated, complaint } = finished;
        match ended {
            Ended::Exited(0) => answer::read(&stdout, truncated, warnings),
            Ended::Exited(code) => Err(CallbackError::ExitCode { code, complaint }),
            Ended::Signalled(signal) => Err(CallbackError::Signal { signal, complaint }),
            Ended::TimedOut => Err(CallbackError::TimedOut { timeout: self.config.timeout }),
            Ended::Cancelled => Err(CallbackError::Cancelled),
        }
    }
}
