//! A child process of the demo: started by the same code as any command of ours, so that it dies with us.
//!
//! The shell in front writes its pid, redirects the log and becomes the program; the pid is what a SIGKILL needs.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    adapters::process::{self, Ended, Finished, Job, ProcessError},
    config::CommandLine,
};

const LINE: &str =
    r#"echo $$ > "$DEMO_FILES.pid"; exec "$DEMO_PROGRAM" $DEMO_ARGUMENTS 2>> "$DEMO_FILES.log""#;
/// No child of the demo lives longer than this.
const LIFE: Duration = Duration::from_secs(365 * 86_400);

/// How to start a child, again and again.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    /// For messages and file names.
    pub(super) name: String,
    /// Our own executable.
    pub(super) program: PathBuf,
    /// Separated by blanks; none may hold one.
    pub(super) arguments: String,
    /// All of its environment but `PATH`.
    pub(super) environment: Vec<(&'static str, OsString)>,
    /// Where its log and pid go.
    pub(super) directory: PathBuf,
}

/// A running child.
pub(super) struct Child {
    recipe: Recipe,
    cancel: CancellationToken,
    running: JoinHandle<Result<Finished, ProcessError>>,
}

impl Recipe {
    /// Starts it.
    pub(super) fn start(&self) -> Child {
        let files = self.directory.join(&self.name);
        let mut job = Job::new("demo", CommandLine::Shell(LINE.to_owned()));
        job.clear_environment = true;
        job.environment =
            self.environment.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        job.environment.push(("DEMO_FILES".into(), files.into()));
        job.environment.push(("DEMO_PROGRAM".into(), self.program.clone().into()));
        job.environment.push(("DEMO_ARGUMENTS".into(), self.arguments.clone().into()));
        job.timeout = LIFE;
        job.stdout_limit = 1 << 16;
        let cancel = CancellationToken::new();
        let running = tokio::spawn(process::run(job, cancel.clone()));
        Child { recipe: self.clone(), cancel, running }
    }

    /// The last lines that it logged.
    pub(super) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Its log.
    pub(super) fn log(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }
}

impl Child {
    /// How to start it again.
    pub(super) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Whether it still runs.
    pub(super) fn runs(&self) -> bool {
        !self.running.is_finished()
    }

    /// SIGKILL, and waits until it is gone. Its pid.
    pub(super) async fn kill(self) -> anyhow::Result<i32> {
        let name = &self.recipe.name;
        let pid = pid_in(&self.recipe.directory.join(format!("{name}.pid")))?;
        if self.running.is_finished() {
            bail!("{name} has ended by itself:\n{}", self.recipe.last_words());
        }
        kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("cannot kill {name}"))?;
        let finished = self.running.await.context("lost sight of a child")?;
        match finished.with_context(|| format!("lost sight of {name}"))?.ended {
            Ended::Signalled(_) => Ok(pid),
            other => bail!("{name} was to die of SIGKILL, and ended as {other:?}"),
        }
    }

    /// TERM, a moment, KILL.
    pub(super) async fn stop(self) {
        self.cancel.cancel();
        let _ended = self.running.await;
    }
}

fn pid_in(file: &Path) -> anyhow::Result<i32> {
    let text = std::fs::read_to_string(file).with_context(|| format!("no pid in {}", file.display()))?;
    text.trim().parse().with_context(|| format!("no pid in {}", file.display()))
}
