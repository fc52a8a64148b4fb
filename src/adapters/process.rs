//! Runs one command to its end and leaves nothing of it behind: bounded output, a deadline, its whole process tree.
//!
//! Both the callback and an agent's `invoke` are this, with different settings.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use bytes::Bytes;

use crate::config::{CommandLine, RunAs};

/// A command to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// What.
    pub command: CommandLine,
    /// Starts from an empty environment instead of ours.
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
}
