//! The child between clone and exec, in memory that it shares with this process.
//!
//! A fork copies page tables: 10 ms at 64 MiB (measured). So the child is created as `posix_spawn` does it
//! (`CLONE_VM | CLONE_VFORK`): it shares our memory, and the calling thread waits until exec. Therefore the child
//! makes only raw system calls on memory that was allocated before: no allocation, no lock.

use std::{
    ffi::CString,
    os::fd::{OwnedFd, RawFd},
    sync::atomic::{AtomicI32, AtomicUsize, Ordering},
};

use nix::{
    libc::{self, c_char},
    sched::{CloneFlags, clone},
};
use rustix::{
    fs::Mode,
    io::Errno,
    process::{
        Gid, Pid, Resource, Rlimit, Signal, Uid, chdir, getpid, getppid, getrlimit,
        set_parent_process_death_signal, setrlimit, setsid, umask,
    },
    thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::{
    Job,
    image::{Image, pointers},
    user::Account,
};

/// The least umask: files of a command are not writable by group and others.
const MASK: u32 = 0o022;

/// Bytes of the child's stack, of which it uses a few hundred.
const STACK: usize = 128 << 10;

/// The settings that the child applies to itself.
pub(super) struct Preparation {
    parent: Pid,
    directory: Option<CString>,
    pub(super) identity: Option<(Uid, Gid, Vec<Gid>)>,
    limits: Vec<(Resource, Rlimit)>,
}

impl Preparation {
    pub(super) fn new(job: &Job, account: Option<&Account>, directory: Option<CString>) -> Self {
        let gid = |gid: &nix::unistd::Gid| Gid::from_raw(gid.as_raw());
        let identity = account.map(|account| {
            (Uid::from_raw(account.uid.as_raw()), gid(&account.gid), account.groups.iter().map(gid).collect())
        });
        let limits = [
            (Resource::Cpu, job.limits.cpu_seconds),
            (Resource::As, job.limits.address_space),
            (Resource::Nofile, job.limits.open_files),
            (Resource::Fsize, job.limits.file_size),
            (Resource::Core, job.limits.core_size),
        ];
        let limits = limits.into_iter().filter_map(|(resource, wanted)| {
            let wanted =
                wanted.map(|wanted| getrlimit(resource).maximum.map_or(wanted, |max| max.min(wanted)))?;
            Some((resource, Rlimit { current: Some(wanted), maximum: Some(wanted) }))
        });
        Self { parent: getpid(), directory, identity, limits: limits.collect() }
    }

    /// Runs in the child. Rights are dropped late; the death signal comes after that, as a change of user resets it.
    fn apply(&self) -> Result<(), Errno> {
        // A process in a new session cannot return to ours, which tells a job's orphans from our own children.
        setsid()?;
        let inherited = umask(Mode::from_raw_mode(0o777));
        umask(inherited | Mode::from_raw_mode(MASK));
        for (resource, limit) in &self.limits {
            setrlimit(*resource, *limit)?;
        }
        if let Some((uid, gid, groups)) = &self.identity {
            // For this thread only, unlike the C library's functions; the child has no other.
            set_thread_groups(groups)?;
            set_thread_res_gid(*gid, *gid, *gid)?;
            set_thread_res_uid(*uid, *uid, *uid)?;
        }
        if let Some(directory) = &self.directory {
            chdir(directory.as_c_str())?;
        }
        set_no_new_privs(true)?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above.
        if getppid() == Some(self.parent) { Ok(()) } else { Err(Errno::SRCH) }
    }
}

/// A child that failed before or at exec.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) errno: Errno,
    /// The index of the failing candidate.
    pub(super) candidate: usize,
    /// The child to reap, if one was created.
    pub(super) child: Option<Pid>,
}

/// Creates the child; returns after its exec or failure. All signals must be blocked in the calling thread.
pub(super) fn become_image(
    preparation: &Preparation,
    image: &Image,
    stdio: &[OwnedFd; 3],
) -> Result<Pid, Failure> {
    let (arguments, environment) = (pointers(&image.arguments), pointers(&image.environment));
    let (failed, candidate) = (AtomicI32::new(0), AtomicUsize::new(0));
    let mut stack = vec![0; STACK];
    let child = Box::new(|| {
        let errno = match prepare(preparation, stdio) {
            Ok(()) => exec(&image.candidates, &arguments, &environment, &candidate),
            Err(errno) => errno,
        };
        failed.store(errno.raw_os_error(), Ordering::Relaxed);
        // The exit code; the caller reads the error from `failed`.
        127
    });
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: the child runs on its own stack while this thread is suspended (CLONE_VFORK), so that whatever it borrows
    // outlives it; it makes only raw system calls and touches only what was laid out above. Descriptors, signal
    // dispositions, limits, umask and directory are copies of ours, not shared.
    let cloned = unsafe { clone(child, &mut stack, flags, Some(libc::SIGCHLD)) };
    let candidate = candidate.load(Ordering::Relaxed);
    let none = |errno: nix::errno::Errno| Failure {
        errno: Errno::from_raw_os_error(errno as i32),
        candidate,
        child: None,
    };
    let pid = Pid::from_raw(cloned.map_err(none)?.as_raw()).ok_or_else(|| none(nix::errno::Errno::ECHILD))?;
    match failed.load(Ordering::Relaxed) {
        0 => Ok(pid),
        errno => Err(Failure { errno: Errno::from_raw_os_error(errno), candidate, child: Some(pid) }),
    }
}

fn prepare(preparation: &Preparation, stdio: &[OwnedFd; 3]) -> Result<(), Errno> {
    reset_signals();
    preparation.apply()?;
    for (target, fd) in stdio.iter().enumerate() {
        duplicate(fd, target as RawFd)?;
    }
    close_descriptors_at_exec();
    Ok(())
}

/// Resets handlers to the default, as they must not run in the child. Ignored signals stay ignored, except
/// SIGPIPE, which our runtime ignores. Then unblocks all signals.
fn reset_signals() {
    // SAFETY: the structures are plain data on this stack; dispositions and mask are the child's own copies.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        for signal in 1..=libc::SIGRTMAX() {
            let known = libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0;
            let handled = action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN;
            if known && (handled || signal == libc::SIGPIPE) {
                action = std::mem::zeroed();
                action.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Duplicates `fd`, which is never 0, 1 or 2 (see `spawn::pipe`).
fn duplicate(fd: &OwnedFd, target: RawFd) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    // SAFETY: dup2 of an open descriptor over one of the child's own three.
    if unsafe { libc::dup2(fd.as_raw_fd(), target) } < 0 { Err(last_error()) } else { Ok(()) }
}

/// Our descriptors are all close-on-exec; inherited ones (from a shell or make) may not be.
fn close_descriptors_at_exec() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: only flags of descriptors in this child change, and no memory is touched. A kernel without the call
    // returns ENOSYS; then they stay open.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Tries the candidates in order, as a shell does; returns only on failure.
fn exec(
    candidates: &[CString],
    arguments: &[*const c_char],
    environment: &[*const c_char],
    reached: &AtomicUsize,
) -> Errno {
    let mut error = Errno::NOENT;
    for (index, candidate) in candidates.iter().enumerate() {
        // SAFETY: all are null-terminated arrays of null-terminated strings that outlive the call.
        unsafe { libc::execve(candidate.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        match last_error() {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => error = Errno::ACCESS,
            errno => {
                reached.store(index, Ordering::Relaxed);
                return errno;
            }
        }
    }
    error
}

fn last_error() -> Errno {
    // SAFETY: reads this thread's own error number, which the suspended parent does not use meanwhile.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}
