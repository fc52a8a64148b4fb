//! Server and client on different cores: a child inherits the core of the thread that starts it, so
//! the client goes to the server's core for as long as it takes to start one.

use std::process::{Command, Stdio};

use anyhow::Context;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Pid,
};

/// This process, the client: on the second core, with descriptors enough.
pub(crate) fn take_the_second() -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    if allowed()?.len() < 2 {
        eprintln!("one core only: server and client share it");
    }
    pin(client_core()?)
}

/// This process and what it starts from now on run before other work of this machine, where we may (real-time
/// round robin: callbacks have sessions of their own, and a niceness counts within a session); or beside it again.
pub(crate) fn go_ahead_of_others(ahead: bool) {
    let policy = if ahead { ["--rr", "-p", "1"] } else { ["--other", "-p", "0"] };
    let pid = std::process::id().to_string();
    let done = Command::new("chrt").args(policy).arg(pid).stderr(Stdio::null()).status();
    if ahead && !done.is_ok_and(|status| status.success()) {
        eprintln!("other work on this machine disturbs the figures as it likes: chrt needs root");
    }
}

/// Starts something on the server's core.
pub(crate) fn on_the_first<T>(start: impl FnOnce() -> T) -> anyhow::Result<T> {
    let (client, server) = (client_core()?, server_core()?);
    pin(server)?;
    let started = start();
    pin(client)?;
    Ok(started)
}

/// Does something that has processes of its own on every core.
pub(crate) fn on_all<T>(something: impl FnOnce() -> T) -> anyhow::Result<T> {
    let mut set = CpuSet::new();
    for core in allowed()? {
        set.set(core)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)?;
    let done = something();
    pin(client_core()?)?;
    Ok(done)
}

fn server_core() -> anyhow::Result<usize> {
    allowed()?.first().copied().context("no core")
}

fn client_core() -> anyhow::Result<usize> {
    allowed()?.get(1).copied().map_or_else(server_core, Ok)
}

/// The cores of this process before it pinned itself.
fn allowed() -> anyhow::Result<Vec<usize>> {
    static FIRST_ASKED: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    if let Some(cores) = FIRST_ASKED.get() {
        return Ok(cores.clone());
    }
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let cores: Vec<usize> = (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect();
    Ok(FIRST_ASKED.get_or_init(|| cores).clone())
}

fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
