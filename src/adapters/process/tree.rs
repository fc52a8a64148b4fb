//! A job's process tree: waits for the end of its main child and kills the rest.
//!
//! Each job is a session of its own. Its members are the session, all descendants, and the orphans that this
//! process adopted as a child subreaper. An orphan is a child of ours in another session that is no job's main
//! child. It belongs to the job of its session or of the marker in its environment; without either it is
//! killed when no other job runs. Children that other code of this process started share our session and are
//! never killed.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    slice,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process_group, pidfd_open,
        pidfd_send_signal, set_child_subreaper, waitid, waitpgid, waitpid,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    Ended,
    table::{ProcessEntry, ProcessTable},
};

/// The variable that assigns an orphan to its job.
pub(super) const MARKER: &str = "KUBERVISOR_JOB";

/// Rounds of killing before a tree is given up (processes stuck in the kernel), and the duration of a round.
const ROUNDS: usize = 40;
const ROUND: Duration = Duration::from_millis(50);

/// Between two looks for dead members of a group whose processes cannot be listed.
const REAP_INTERVAL: Duration = Duration::from_millis(2);

/// The markers of running jobs, by the main child's pid.
static RUNNING: Mutex<BTreeMap<i32, String>> = Mutex::new(BTreeMap::new());

/// Makes orphaned descendants children of this process instead of init's. Idempotent.
///
/// # Errors
/// The kernel's error; then daemons that a command leaves behind are not found.
pub fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// How the markers of jobs end whose survivors live on.
const KEPT: &str = ".kept";

/// Whether any such job has run: from then on an orphan without a marker may be such a survivor.
static ANY_KEPT: AtomicBool = AtomicBool::new(false);

/// A marker that is unique in this pid namespace.
pub(super) fn new_marker(keeps_survivors: bool) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    if keeps_survivors {
        ANY_KEPT.store(true, Ordering::Relaxed);
    }
    let kept = if keeps_survivors { KEPT } else { "" };
    format!("{}.{}{kept}", getpid().as_raw_nonzero(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Starts and registers a main child under one lock, so that it never counts as an orphan.
pub(super) fn register(
    marker: String,
    start: impl FnOnce() -> io::Result<(Pid, OwnedFd)>,
) -> io::Result<Root> {
    let mut running = RUNNING.lock();
    let (pid, pidfd) = start()?;
    running.insert(pid.as_raw_nonzero().get(), marker.clone());
    Ok(Root { pid, pidfd, marker, killed: false })
}

/// The main child of a job. Dropping it kills its tree in the background.
pub(super) struct Root {
    pid: Pid,
    pidfd: OwnedFd,
    marker: String,
    killed: bool,
}

impl AsRawFd for Root {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

impl Root {
    /// How it ended, if it has. It stays a zombie, which reserves its pid and group.
    fn status(&self) -> io::Result<Option<Ended>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options)?;
        Ok(status.map(|status| match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ended::Exited(code),
            (None, signal) => Ended::Signalled(signal.unwrap_or_default()),
        }))
    }

    /// Reaps the main child, which has ended, and leaves the rest alone.
    fn release(&mut self) {
        self.killed = true;
        let mut running = RUNNING.lock();
        running.remove(&self.pid.as_raw_nonzero().get());
        let _ = waitpid(Some(self.pid), WaitOptions::NOHANG);
    }

    /// Kills and reaps the tree. Blocks, at most for `ROUNDS * ROUND`.
    fn kill_all(&mut self) {
        self.killed = true;
        let mut left = 0;
        for _ in 0..ROUNDS {
            // The group first: the kernel kills it atomically, without a race with fork.
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
            tracing::warn!(
                left,
                "processes of a command survive SIGKILL; the end of the next command tries again"
            );
        }
        // Without /proc nothing has waited for the main child yet.
        wait_for_one(slice::from_ref(&self.pidfd));
        let mut running = RUNNING.lock();
        running.remove(&self.pid.as_raw_nonzero().get());
        // Reaped last, which releases its pid.
        self.reap_group(if left == 0 { ROUNDS } else { 1 });
    }

    /// Reaps the main child and the members of its group that this process adopted. Without /proc they are in
    /// no table, and SIGKILL takes effect some time after the call.
    #[allow(clippy::disallowed_methods, reason = "runs on blocking threads and on one of its own")]
    fn reap_group(&self, rounds: usize) {
        for _ in 0..rounds {
            loop {
                match waitpgid(self.pid, WaitOptions::NOHANG) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            wait(&mut [], REAP_INTERVAL);
        }
    }

    /// One round: kills the living members and reaps dead orphans. Holds the lock, so that a job that is
    /// starting does not count as an orphan.
    fn kill_members(&self, table: &ProcessTable) -> Vec<OwnedFd> {
        let running = RUNNING.lock();
        let main = self.pid.as_raw_nonzero().get();
        let ours = |process: &ProcessEntry| belongs(process, main, &self.marker, &running);
        let living = table.members(main, ours).into_iter().filter(|member| !member.zombie);
        let dying = living.filter_map(kill).collect();
        // Also those of other jobs, such as a survivor that has ended: a zombie has no marker.
        for orphan in table.orphans().filter(|orphan| orphan.zombie && !running.contains_key(&orphan.pid)) {
            let _ = Pid::from_raw(orphan.pid).map(|pid| waitpid(Some(pid), WaitOptions::NOHANG));
        }
        dying
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if self.killed {
            return;
        }
        let _ = kill_process_group(self.pid, Signal::KILL);
        // The thread gets a descriptor of its own; the pid stays ours until it is reaped.
        let Ok(pidfd) = self.pidfd.try_clone() else {
            self.kill_all();
            return;
        };
        let mut root = Self { pid: self.pid, pidfd, marker: self.marker.clone(), killed: true };
        self.killed = true;
        if thread::Builder::new().name("reaper".into()).spawn(move || root.kill_all()).is_err() {
            self.kill_all();
        }
    }
}

/// Whether an orphan belongs to this job; called with the lock held.
fn belongs(orphan: &ProcessEntry, main: i32, marker: &str, running: &BTreeMap<i32, String>) -> bool {
    if orphan.session == main {
        return true;
    }
    if running.contains_key(&orphan.pid) || running.contains_key(&orphan.session) {
        return false;
    }
    match orphan.variable(MARKER) {
        Some(found) if found == marker => true,
        Some(found) => !found.ends_with(KEPT) && !running.values().any(|other| *other == found),
        None => running.len() <= 1 && !ANY_KEPT.load(Ordering::Relaxed),
    }
}

/// Kills a process and its group, unless its pid belongs to another process by now.
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
    wait(&mut ends, ROUND);
}

/// For one of the descriptors, or less than a second.
fn wait(ends: &mut [PollFd<'_>], longest: Duration) {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(longest.subsec_nanos()) };
    let _ = poll(ends, Some(&timeout));
}

/// The asynchronous handle of a tree.
pub(super) struct Tree {
    root: AsyncFd<Root>,
}

impl Tree {
    pub(super) fn watch(root: Root) -> io::Result<Self> {
        // SAFETY: `Root` owns its pidfd, open for as long as `Root` lives, and never replaces it.
        let root = unsafe { AsyncFd::register_with_interest(root, Interest::READABLE)? };
        Ok(Self { root })
    }

    /// Waits for the end of the main child.
    pub(super) async fn ended(&self) -> io::Result<Ended> {
        loop {
            let mut ready = self.root.readable().await?;
            if let Some(ended) = self.root.get_ref().status()? {
                return Ok(ended);
            }
            ready.clear_ready();
        }
    }

    /// Sends TERM to the group.
    pub(super) fn terminate(&self) {
        let _ = kill_process_group(self.root.get_ref().pid, Signal::TERM);
    }

    /// Leaves what the main child has left behind alone.
    pub(super) fn release(self) {
        self.root.into_inner().release();
    }

    /// Kills and reaps the tree on a blocking thread.
    pub(super) async fn kill_all(self) {
        let mut root = self.root.into_inner();
        let _ = tokio::task::spawn_blocking(move || root.kill_all()).await;
    }
}
