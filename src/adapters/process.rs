//! Runs one command (the callback, an agent's `invoke`) with bounded output and a deadline, and kills its whole
//! process tree at the end.
//!
//! # Guarantees
//! - Output is drained while the command runs, so that no pipe fills up; the kept part is bounded.
//! - When [`run`] returns, or its future is dropped, the command's session is killed, and so is every
//!   descendant that left it (`setsid`, double fork): this process is a child subreaper, so that orphans
//!   become its children instead of init's. With [`Job::keeps_survivors`] they live on after exit code 0, and are only
//!   reaped when they end.
//! - If this process dies first, the kernel kills the command (`PR_SET_PDEATHSIG`).
//!
//! # Not guaranteed
//! Effects of a command before it was killed are not undone.

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

/// Time between TERM and KILL of a cancelled command.
pub const GRACE: Duration = Duration::from_millis(500);

/// Time for which output is read after the main child has ended.
pub const OUTPUT_GRACE: Duration = Duration::from_millis(100);

/// Bytes of one variable, name and `=` included, at most (the kernel's `MAX_ARG_STRLEN` without the NUL).
pub const VARIABLE_LIMIT: usize = 131_071;

/// A command to run, with [`Job::new`] for the defaults.
#[derive(Clone, Debug)]
pub struct Job {
    /// The label in log lines: `callback`, `invoke`.
    pub name: &'static str,
    /// The command line.
    pub command: CommandLine,
    /// Starts with a default `PATH` only, instead of our environment.
    pub clear_environment: bool,
    /// Variables that are added; later ones win.
    pub environment: Vec<(OsString, OsString)>,
    /// Variables that are not inherited.
    pub without: Vec<OsString>,
    /// Written to stdin, which is then closed; the command need not read it.
    pub stdin: Bytes,
    /// The working directory; ours when `None`.
    pub directory: Option<PathBuf>,
    /// Time after which the whole tree is killed.
    pub timeout: Duration,
    /// Bytes of stdout that are kept; the rest is drained and dropped.
    pub stdout_limit: usize,
    /// The user to run as.
    pub user: RunAs,
    /// Resource limits.
    pub limits: ResourceLimits,
    /// After exit code 0 the processes that it has left behind live on, such as the daemon that it started.
    pub keeps_survivors: bool,
}

impl Job {
    /// A job with our environment, no stdin, 60 s, 16 MiB of stdout, our user and no limits.
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
            keeps_survivors: false,
        }
    }
}

/// Resource limits of a job; `None` inherits ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Seconds of CPU (`RLIMIT_CPU`).
    pub cpu_seconds: Option<u64>,
    /// Bytes of address space (`RLIMIT_AS`).
    pub address_space: Option<u64>,
    /// Open descriptors (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// Bytes of the largest file written (`RLIMIT_FSIZE`).
    pub file_size: Option<u64>,
    /// Bytes of a core dump (`RLIMIT_CORE`).
    pub core_size: Option<u64>,
}

impl ResourceLimits {
    /// The limits of commands from the network.
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
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// Killed at its timeout.
    TimedOut,
    /// Killed on cancellation.
    Cancelled,
}

/// The result of a job.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How the main child ended.
    pub ended: Ended,
    /// The first `stdout_limit` bytes of stdout.
    pub stdout: Bytes,
    /// Whether stdout was longer.
    pub truncated: bool,
    /// The last line of stderr, at most 300 bytes, for messages.
    pub complaint: String,
}

/// Runs `job` until it ends, its timeout, or `cancel` (TERM, KILL after [`GRACE`]).
///
/// # Errors
/// When it could not be started. A command that failed is `Ok`: see [`Finished::ended`].
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
    let failed = |source| ProcessError::classify(job.name, source);
    let tree = Tree::watch(spawned.root).map_err(failed)?;
    let pipes = Pipes::new(spawned.ends).map_err(failed)?;
    let (mut kept, mut log) = (Captured::new(job.stdout_limit), Log::new(job.name));
    let ended = {
        let mut pump = pin!(pipes.pump(job.stdin, &mut kept, &mut log).fuse());
        let ended = {
            let mut end = pin!(wait_for_end(&tree, job.timeout, &cancel).fuse());
            loop {
                tokio::select! {
                    ended = &mut end => break ended.map_err(failed)?,
                    () = &mut pump, if !pump.is_terminated() => {}
                }
            }
        };
        // Killing the rest of the tree meanwhile usually closes the pipes at once.
        let drain = async {
            if !pump.is_terminated() {
                let _ = time::timeout(OUTPUT_GRACE, pump).await;
            }
        };
        let survivors_live = job.keeps_survivors && ended == Ended::Exited(0);
        let end = async {
            if survivors_live {
                tree.release();
            } else {
                tree.kill_all().await;
            }
        };
        tokio::join!(end, drain);
        ended
    };
    let (stdout, truncated) = kept.into_parts();
    Ok(Finished { ended, stdout, truncated, complaint: log.finish() })
}

/// Waits for the main child's end, the timeout or the cancellation.
async fn wait_for_end(tree: &Tree, timeout: Duration, cancel: &CancellationToken) -> io::Result<Ended> {
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
