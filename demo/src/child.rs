//! A child process of the demo: started like any command of the product, so that it dies with the demo.
//!
//! A shell writes its pid, which a SIGKILL needs, redirects the log and becomes the program.

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

use kubervisor::{
    adapters::process::{self, Ended, Finished, Job, ProcessError},
    config::CommandLine,
};

const LINE: &str =
    r#"echo $$ > "$DEMO_FILES.pid"; exec "$DEMO_PROGRAM" $DEMO_ARGUMENTS 2>> "$DEMO_FILES.log""#;
/// Timeout of a child: longer than any demo.
const LIFE: Duration = Duration::from_secs(365 * 86_400);

/// How to start a child, any number of times.
#[derive(Clone, Debug)]
pub(super) struct ChildSpec {
    /// For messages and file names.
    pub(super) name: String,
    pub(super) program: PathBuf,
    /// Separated by blanks; none may hold one.
    pub(super) arguments: String,
    /// All of its environment but `PATH`.
    pub(super) environment: Vec<(&'static str, OsString)>,
    /// Folder of its log and pid.
    pub(super) directory: PathBuf,
}

/// A running child.
pub(super) struct Child {
    spec: ChildSpec,
    cancel: CancellationToken,
    running: JoinHandle<Result<Finished, ProcessError>>,
}

impl ChildSpec {
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
        Child { spec: self.clone(), cancel, running }
    }

    /// The last lines that it logged.
    pub(super) fn log_tail(&self) -> String {
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
    /// That it has ended by itself, with the end of its log; `None` while it runs.
    pub(super) fn unexpected_exit(&self) -> Option<String> {
        let Self { spec, running, .. } = self;
        let ended = || format!("{} has ended by itself; the end of its log:\n{}", spec.name, spec.log_tail());
        running.is_finished().then(ended)
    }

    /// Sends SIGKILL and waits for its end; returns its pid.
    pub(super) async fn kill(self) -> anyhow::Result<i32> {
        let name = &self.spec.name;
        let pid = pid_in(&self.spec.directory.join(format!("{name}.pid")))?;
        if self.running.is_finished() {
            bail!("{name} has ended by itself:\n{}", self.spec.log_tail());
        }
        kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("cannot kill {name}"))?;
        let finished = self.running.await.context("cannot wait for a child")?;
        match finished.with_context(|| format!("cannot wait for {name}"))?.ended {
            Ended::Signalled(_) => Ok(pid),
            other => bail!("{name} was to die of SIGKILL, and ended as {other:?}"),
        }
    }

    /// Sends TERM and, if it does not end soon, KILL.
    pub(super) async fn stop(self) {
        self.cancel.cancel();
        let _ended = self.running.await;
    }
}

fn pid_in(file: &Path) -> anyhow::Result<i32> {
    let text = std::fs::read_to_string(file).with_context(|| format!("no pid in {}", file.display()))?;
    text.trim().parse().with_context(|| format!("no pid in {}", file.display()))
}
