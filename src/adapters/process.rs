//! Runs one command to its end and leaves nothing of it behind: bounded output, a deadline, its whole process tree.
//!
//! Both the callback and an agent's `invoke` are this, with different settings.
//!
//! # Guarantees
//! - Output is drained while the command runs, so that no pipe fills up; what is kept is bounded.
//! - When [`run`] returns, or its future is dropped, the command's session is killed, and so is every
//!   descendant that left it (`setsid`, double fork): this process is a child subreaper, so that orphans
//!   come to us instead of to init.
//! - If this process dies first, the kernel kills the command (`PR_SET_PDEATHSIG`).
//!
//! # Not guaranteed
//! What a command did to the rest of the world before it was killed.

mod child;
mod drain;
mod errors;
mod image;
mod namespace;
mod spawn;
mod table;
mod tree;
mod user;

use std::{ffi::OsString, io, path::PathBuf, pin::pin, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::FusedFuture};
use tokio::time;
use tokio_util::sync::CancellationToken;

use self::{
    drain::{Captured, Log, Pipes},
    tree::Tree,
};
pub use self::{
    errors::ProcessError,
    tree::become_subreaper,
    user::{Account, UserError, resolve as resolve_user},
};
use crate::config::{CommandLine, RunAs};

/// How long a cancelled command may take to end by itself after TERM.
pub const GRACE: Duration = Duration::from_millis(500);

/// How long output is read after the main child has ended.
pub const LINGER: Duration = Duration::from_millis(100);

/// The largest string that the kernel takes as one variable, name and `=` included (`MAX_ARG_STRLEN` less its NUL).
pub const VARIABLE_LIMIT: usize = 131_071;

/// A command to run. [`Job::new`] gives the defaults; set the rest by struct update.
#[derive(Clone, Debug)]
pub struct Job {
    /// What it is for (`callback`, `invoke`): static, it labels log lines.
    pub name: &'static str,
    /// What.
    pub command: CommandLine,
    /// Starts from an empty environment (but for a default `PATH`) instead of ours.
    pub clear_environment: bool,
    /// Set on top.
    pub environment: Vec<(OsString, OsString)>,
    /// Removed from the inherited environment.
    pub without: Vec<OsString>,
    /// Written to its stdin, then closed; a command that does not read it is fine.
    pub stdin: Bytes,
    /// Where it runs; ours when `None`.
    pub directory: Option<PathBuf>,
    /// After this the whole tree is killed.
    pub timeout: Duration,
    /// Bytes of stdout that are kept; more is drained and dropped.
    pub stdout_limit: usize,
    /// Whose rights.
    pub user: RunAs,
    /// What it may use of the machine.
    pub limits: ResourceLimits,
}

impl Job {
    /// A job with our environment, no stdin, 60 s, 16 MiB of stdout, our user and no limits.
    #[must_use]
    pub fn new(name: &'static str, command: CommandLine) -> Self {
        Self {
            name,
            command,
            clear_environment: false,
            environment: Vec::new(),
            without: Vec::new(),
            stdin: Bytes::new(),
            directory: None,
            timeout: Duration::from_secs(60),
            stdout_limit: 16 << 20,
            user: RunAs::Ourselves,
            limits: ResourceLimits::default(),
        }
    }
}

/// Resource limits of a job; `None` leaves what we have ourselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Seconds of CPU (`RLIMIT_CPU`).
    pub cpu_seconds: Option<u64>,
    /// Bytes of address space (`RLIMIT_AS`).
    pub address_space: Option<u64>,
    /// Open descriptors (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// Bytes of the largest file that it may write (`RLIMIT_FSIZE`).
    pub file_size: Option<u64>,
    /// Bytes of a core dump (`RLIMIT_CORE`).
    pub core_size: Option<u64>,
}

impl ResourceLimits {
    /// For commands that arrive over the network: enough to heal a pod, not enough to fill a disk.
    #[must_use]
    pub fn for_invoke() -> Self {
        Self {
            cpu_seconds: Some(120),
            address_space: Some(4 << 30),
            open_files: Some(1024),
            file_size: Some(1 << 30),
            core_size: Some(0),
        }
    }
}

/// How the main child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// By us: the time ran out.
    TimedOut,
    /// By us: the caller cancelled.
    Cancelled,
}

/// What came of a job.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub ended: Ended,
    /// Its stdout, at most `stdout_limit` bytes.
    pub stdout: Bytes,
    /// Whether there was more.
    pub truncated: bool,
    /// The last line that it wrote to stderr, shortened: for messages.
    pub complaint: String,
}

/// Runs `job` until it ends, its time is up, or `cancel` fires (TERM, [`GRACE`], KILL).
///
/// # Errors
/// When it could not be started. A command that ran and failed is `Ok`: see [`Finished::ended`].
pub async fn run(job: Job, cancel: CancellationToken) -> Result<Finished, ProcessError> {
    if cancel.is_cancelled() {
        return Ok(Finished {
            ended: Ended::Cancelled,
            stdout: Bytes::new(),
            truncated: false,
            complaint: String::new(),
        });
    }
    let spawned = spawn::spawn(&job).await?;
    let failed = |source| ProcessError::sort(job.name, source);
    let tree = Tree::watch(spawned.root).map_err(failed)?;
    let pipes = Pipes::new(spawned.ends).map_err(failed)?;
    let (mut kept, mut log) = (Captured::new(job.stdout_limit), Log::new(job.name));
    let ended = {
        let mut pump = pin!(pipes.pump(job.stdin, &mut kept, &mut log).fuse());
        let ended = {
            let mut fate = pin!(fate(&tree, job.timeout, &cancel).fuse());
            loop {
                tokio::select! {
                    ended = &mut fate => break ended.map_err(failed)?,
                    () = &mut pump, if !pump.is_terminated() => {}
                }
            }
        };
        // Whoever still holds the pipes dies meanwhile, so that usually they close at once.
        let linger = async {
            if !pump.is_terminated() {
                let _ = time::timeout(LINGER, pump).await;
            }
        };
        tokio::join!(tree.extinguish(), linger);
        ended
    };
    let (stdout, truncated) = kept.into_parts();
    Ok(Finished { ended, stdout, truncated, complaint: log.finish() })
}

/// Waits for the first of: the end, the time, the caller's cancel.
async fn fate(tree: &Tree, timeout: Duration, cancel: &CancellationToken) -> io::Result<Ended> {
    tokio::select! {
        biased;
        ended = tree.ended() => ended,
        () = time::sleep(timeout) => Ok(Ended::TimedOut),
        () = cancel.cancelled() => {
            tree.terminate();
            let _ = time::timeout(GRACE, tree.ended()).await;
            Ok(Ended::Cancelled)
        }
    }
}
