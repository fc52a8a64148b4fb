//! Commands and callbacks against the real kernel: output, result, and the end of their process trees.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

#[path = "process/callbacks.rs"]
mod callbacks;
#[path = "process/namespaces.rs"]
mod namespaces;
#[path = "process/runs.rs"]
mod runs;
#[path = "process/trees.rs"]
mod trees;
#[path = "process/users.rs"]
mod users;

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kubervisor::{
    adapters::process::{self, Finished, Job, ProcessError},
    config::CommandLine,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio_util::sync::CancellationToken;

/// A job for the shell.
fn shell(line: &str) -> Job {
    Job::new("test", CommandLine::Shell(line.to_owned()))
}

/// A job without a shell.
fn words(words: &[&str]) -> Job {
    Job::new("test", CommandLine::Words(words.iter().map(|word| (*word).to_owned()).collect()))
}

async fn run(job: Job) -> Result<Finished, ProcessError> {
    process::run(job, CancellationToken::new()).await
}

fn text(finished: &Finished) -> &str {
    std::str::from_utf8(&finished.stdout).unwrap().trim_end()
}

/// Whether a process with this pid exists and is no zombie. By pidfd: /proc may belong to another pid namespace.
fn alive(pid: i32) -> bool {
    let Ok(process) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) else { return false };
    // A pidfd is readable from its process's end on, reaped or not.
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 0
}

/// Waits for a condition, at most ten seconds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not reached within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const ISOLATED: &str = "KUBERVISOR_TEST_ISOLATED";

/// Runs the test `name` again in a process of its own, without other jobs and with limits of its own; returns true there.
fn isolated(name: &str) -> bool {
    if std::env::var_os(ISOLATED).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ISOLATED, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "no test is called {name}: {said}");
    false
}
