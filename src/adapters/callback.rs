//! Runs the user's callback: writes its input, interprets its output.
//!
//! The snapshot is passed as `$PODS`, stdin and `$PODS_FILE`, the state as `$STATE` and `$STATE_FILE`: the
//! original's callbacks read variables, of which the kernel takes at most 128 KiB each. The output is one JSON
//! value, which is the next run's state. A failed run changes nothing and returns the reason.

mod answer;
mod files;
mod metrics;

use std::{ffi::OsString, time::Duration};

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::files::CallbackFiles;
pub use self::{answer::Warning, metrics::CallbackMetrics};
use super::{
    process::{self, Ended, Finished, Job, ProcessError, ResourceLimits},
    store::STATE_LIMIT,
};
use crate::config::CallbackConfig;

/// Bytes of stdout that are kept.
const STDOUT_LIMIT: usize = 16 << 20;

/// The input of a run.
#[derive(Clone, Debug)]
pub struct CallbackInput {
    /// The canonical snapshot, the bytes that the digest covers.
    pub pods: Bytes,
    /// The digest as `ab:cd:...`.
    pub digest: String,
    /// The output of the last successful run.
    pub state: Option<Bytes>,
    /// The gate's state of each pod as JSON, not covered by the digest.
    pub fleet: Bytes,
}

/// The result of a run.
#[derive(Debug)]
pub struct CallbackOutcome {
    /// The answer; on an error state and verdicts stay in force.
    pub result: Result<CallbackAnswer, CallbackError>,
    /// Ignored mistakes of the answer.
    pub warnings: Vec<Warning>,
    /// From the writing of the files to the end of the last process.
    pub duration: Duration,
}

/// A callback's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallbackAnswer {
    /// The next run's state, to be persisted; `None` keeps the old one.
    pub state: Option<Bytes>,
    /// The member `traffic`: verdicts that replace all earlier ones of this callback.
    pub traffic: Option<Value>,
    /// The member `again`: time until the next run without a change.
    pub again: Option<Duration>,
}

/// A run without an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackError {
    /// The command was not started.
    #[error(transparent)]
    NotStarted(#[from] ProcessError),
    /// The input files could not be written below the directory.
    #[error("cannot write the callback's files below {0}: {1}; make it writable, or set TMPDIR")]
    WriteFiles(String, #[source] std::io::Error),
    /// An exit code other than 0.
    #[error("the callback ended with exit code {}{}", .0, stderr_hint(.1))]
    ExitCode(i32, String),
    /// Ended by a signal.
    #[error("the callback was ended by signal {}{}", .0, stderr_hint(.1))]
    Signal(i32, String),
    /// Killed at the configured timeout.
    #[error("the callback did not end within {0:?} and was killed; see KONTROL_CALLBACK_TIMEOUT")]
    TimedOut(Duration),
    /// Cancelled: the leadership is lost or the process stops.
    #[error("the callback was cancelled")]
    Cancelled,
    /// The output is not one JSON value.
    #[error("the callback printed no valid JSON: {0}; logs belong on stderr")]
    InvalidJson(#[source] serde_json::Error),
    /// The output, of which so many bytes were read, exceeds the limit of a store.
    #[error("the callback printed {0} bytes or more; at most {STATE_LIMIT} can be kept as its state")]
    StateTooLarge(usize),
}

fn stderr_hint(complaint: &str) -> String {
    if complaint.is_empty() { String::new() } else { format!("; the last line of its stderr: {complaint}") }
}

impl CallbackError {
    /// The metric's label.
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

/// Runs the callback. The caller must not run it concurrently.
#[derive(Clone, Debug)]
pub struct CallbackRunner {
    config: CallbackConfig,
    environment: Vec<(OsString, OsString)>,
    metrics: CallbackMetrics,
}

impl CallbackRunner {
    /// A runner for `config`. `environment` overrides inherited variables, not `PODS` and the like.
    pub fn new(
        config: CallbackConfig,
        environment: Vec<(OsString, OsString)>,
        metrics: CallbackMetrics,
    ) -> Self {
        Self { config, environment, metrics }
    }

    /// Runs it once, until the end of its last process.
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
            // The variables exceed the estimate: the files and stdin have the same data.
            Err(ProcessError::TooLong { .. }) => {
                let slim = Job { environment: files.variables(false), ..job };
                process::run(slim, cancel).await
            }
            other => other,
        };
        files.remove().await;
        self.interpret(finished?, warnings)
    }

    fn interpret(
        &self,
        finished: Finished,
        warnings: &mut Vec<Warning>,
    ) -> Result<CallbackAnswer, CallbackError> {
        let Finished { ended, stdout, truncated, complaint } = finished;
        match ended {
            Ended::Exited(0) => answer::read(&stdout, truncated, warnings),
            Ended::Exited(code) => Err(CallbackError::ExitCode(code, complaint)),
            Ended::Signalled(signal) => Err(CallbackError::Signal(signal, complaint)),
            Ended::TimedOut => Err(CallbackError::TimedOut(self.config.timeout)),
            Ended::Cancelled => Err(CallbackError::Cancelled),
        }
    }
}
