//! A job's process tree: knows when its main child has ended, and kills whatever is left of it.
//!
//! Each job is a session of its own. Its members are: the session, all descendants by parentage, and
//! orphans that came to us because we are a child subreaper. An orphan is a child of ours in a foreign
//! session that is no job's main child; whose it is, its session or the marker in its environment
//! says. One that says neither goes when no other job runs. Children that other code of this
//! process has started share our session and are never touched.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    slice,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process_group, pidfd_open,
        pidfd_send_signal, set_child_subreaper, waitid, waitpid,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    Ended,
    table::{ProcessEntry, ProcessTable},
};

/// The variable by which a stray is known: whose job it was.
pub(super) const MARKER: &str = "KUBERVISOR_JOB";

/// Rounds of killing before a tree is given up (processes stuck in the kernel), and how long a round waits.
const ROUNDS: usize = 40;
const ROUND: Duration = Duration::from_millis(50);

/// Jobs that run now, by the main child's pid: its marker.
static RUNNING: Mutex<BTreeMap<i32, String>> = Mutex::new(BTreeMap::new());

fn running() -> MutexGuard<'static, BTreeMap<i32, String>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes orphaned descendants children of this process instead of init's. Called once at the start; again is harmless.
///
/// # Errors
/// What the kernel says; then daemons that a command leaves behind are not found.
pub fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// A marker that no other job of this machine has.
pub(super) fn new_marker() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}.{}", getpid().as_raw_nonzero(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Starts a main child and registers it in one step, so that nobody takes it for a stray in between.
pub(super) fn register(
    marker: String,
    start: impl FnOnce() -> io::Result<(Pid, OwnedFd)>,
) -> io::Result<Root> {
    let mut running = running();
    let (pid, pidfd) = start()?;
    running.insert(pid.as_raw_nonzero().get(), marker.clone());
    Ok(Root { pid, pidfd, marker, dead: false })
}

/// The main child of a job. Dropped before its tree is dead, it kills it in the background.
pub(super) struct Root {
    pid: Pid,
    pidfd: OwnedFd,
    marker: String,
    dead: bool,
}

impl AsRawFd for Root {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

impl Root {
    /// How it ended, if it has; it stays a zombie, so that its pid and group cannot be used again yet.
    fn status(&self) -> io::Result<Option<Ended>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options)?;
        Ok(status.map(|status| match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ended::Exited(code),
            (None, signal) => Ended::Signalled(signal.unwrap_or_default()),
        }))
    }

    /// Kills everything that is left and reaps it. Blocks for as long as that takes, at most `ROUNDS * ROUND`.
    fn extinguish(&mut self) {
        self.dead = true;
        let mut left = 0;
        for _ in 0..ROUNDS {
            // The group first: the kernel kills it in one step, no fork escapes.
            let _ = kill_process_group(self.pid, Signal::KILL);
            let table = ProcessTable::take();
            let dying = self.kill_members(&table);
            left = dying.len();
            if left == 0 {
                break;
            }
            wait_for_one(&dying);
        }
        if left > 0 {
            tracing::warn!(left, "processes of a command do not die; they are left to the next one's end");
        }
        // Without /proc nobody has waited for the main child yet; a signal takes its time.
        wait_for_one(slice::from_ref(&self.pidfd));
        let mut running = running();
        running.remove(&self.pid.as_raw_nonzero().get());
        // Reaped last: until here its pid could not be used again.
        let _ = waitpid(Some(self.pid), WaitOptions::NOHANG);
    }

    /// One round: signals all members that live, reaps orphans that do not. Holds the register, so that a job that is
    /// just starting is not taken for a stray.
    fn kill_members(&self, table: &ProcessTable) -> Vec<OwnedFd> {
        let running = running();
        let main = self.pid.as_raw_nonzero().get();
        let ours = |process: &ProcessEntry| belongs(process, main, &self.marker, &running);
        let mut dying = Vec::new();
        for member in table.members(main, ours) {
            if !member.zombie {
                dying.extend(kill(member));
            } else if member.pid != main && table.is_orphan(member) && !running.contains_key(&member.pid) {
                let _ = Pid::from_raw(member.pid).map(|pid| waitpid(Some(pid), WaitOptions::NOHANG));
            }
        }
        dying
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if self.dead {
            return;
        }
        let _ = kill_process_group(self.pid, Signal::KILL);
        // Keep the descriptor's number out of it: the grave needs the pid only, which stays ours until reaped.
        let Ok(pidfd) = self.pidfd.try_clone() else {
            self.extinguish();
            return;
        };
        let mut root = Self { pid: self.pid, pidfd, marker: self.marker.clone(), dead: true };
        self.dead = true;
        if thread::Builder::new().name("undertaker".into()).spawn(move || root.extinguish()).is_err() {
            self.extinguish();
        }
    }
}

/// Whether an orphan is this job's; called with the register held.
fn belongs(orphan: &ProcessEntry, main: i32, marker: &str, running: &BTreeMap<i32, String>) -> bool {
    if orphan.session == main {
        return true;
    }
    if running.contains_key(&orphan.pid) || running.contains_key(&orphan.session) {
        return false;
    }
    match orphan.variable(MARKER) {
        Some(found) if found == marker => true,
        Some(found) => !running.values().any(|other| *other == found),
        None => running.len() <= 1,
    }
}

/// Kills one process, and with it its group, if it is still the one that was counted.
fn kill(process: &ProcessEntry) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
    if !process.is_still_there() {
        return None;
    }
    if let Some(group) = Pid::from_raw(process.group) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    Some(pidfd)
}

fn wait_for_one(dying: &[OwnedFd]) {
    let mut ends: Vec<PollFd<'_>> = dying.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(ROUND.subsec_nanos()) };
    let _ = poll(&mut ends, Some(&timeout));
}

/// The tree as a task sees it.
pub(super) struct Tree {
    root: AsyncFd<Root>,
}

impl Tree {
    pub(super) fn watch(root: Root) -> io::Result<Self> {
        // SAFETY: `Root` owns its pidfd, open for as long as `Root` lives, and never replaces it.
        let root = unsafe { AsyncFd::register_with_interest(root, Interest::READABLE)? };
        Ok(Self { root })
    }

    /// Waits for the main child's end.
    pub(super) async fn ended(&self) -> io::Result<Ended> {
        loop {
            let mut ready = self.root.readable().await?;
            if let Some(ended) = self.root.get_ref().status()? {
                return Ok(ended);
            }
            ready.clear_ready();
        }
    }

    /// Asks the group to end.
    pub(super) fn terminate(&self) {
        let _ = kill_process_group(self.root.get_ref().pid, Signal::TERM);
    }

    /// Kills and reaps all that is left, on a blocking thread.
    pub(super) async fn extinguish(self) {
        let mut root = self.root.into_inner();
        let _ = tokio::task::spawn_blocking(move || root.extinguish()).await;
    }
}
