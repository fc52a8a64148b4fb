//! Starts a job's main child, from one thread that never ends.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that made the child ends, and the runtime's blocking threads
//! end when they are idle; so all jobs are started by one thread of their own. It also waits until the child
//! has become its program, which is no business of a runtime thread's.

use std::{
    ffi::CString,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    sync::{
        OnceLock,
        mpsc::{self, Sender},
    },
    thread,
};

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    pipe::{PipeFlags, pipe_with},
    process::{
        DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, dumpable_behavior, kill_process_group,
        pidfd_open, set_dumpable_behavior, waitpid,
    },
};
use tokio::sync::oneshot;

use super::{
    Job, ProcessError,
    child::{Failure, Preparation, become_image},
    image::{self, Image},
    tree::{self, Root},
    user,
};

/// A started job: the root of its tree, and our ends of its pipes.
pub(super) struct Spawned {
    pub(super) root: Root,
    pub(super) ends: Ends,
}

/// Our ends of a job's pipes.
pub(super) struct Ends {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Starts `job`. A caller that goes away meanwhile leaves nothing behind: the answer kills what it holds when dropped.
pub(super) async fn spawn(job: &Job) -> Result<Spawned, ProcessError> {
    let program = image::program(&job.command);
    let failed = |source| ProcessError::sort(program, source);
    let account = user::resolve(&job.user)?;
    let directory = job.directory.as_deref().map(|directory| enterable(directory, program)).transpose()?;
    let marker = tree::new_marker();
    let image = Image::new(job, account.as_ref(), &marker).map_err(|nul| failed(nul.into()))?;
    let preparation = Preparation::new(job, account.as_ref(), directory);
    let (answer, started) = oneshot::channel();
    starter()
        .map_err(failed)?
        .send(SpawnOrder { preparation, image, marker, answer })
        .map_err(|_| failed(gone()))?;
    started.await.map_err(|_| failed(gone()))?.map_err(failed)
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts processes is gone")
}

/// A missing directory and a missing program are the same error number in the child, so look before.
fn enterable(directory: &Path, program: &str) -> Result<CString, ProcessError> {
    match directory.metadata() {
        Ok(meta) if meta.is_dir() => CString::new(directory.as_os_str().as_bytes()).map_err(io::Error::from),
        Ok(_) => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        Err(error) => Err(error),
    }
    .map_err(|source| ProcessError::NoDirectory {
        program: program.to_owned(),
        directory: directory.display().to_string(),
        source,
    })
}

struct SpawnOrder {
    preparation: Preparation,
    image: Image,
    marker: String,
    answer: oneshot::Sender<io::Result<Spawned>>,
}

/// The thread that starts jobs, started itself by the first one.
fn starter() -> io::Result<&'static Sender<SpawnOrder>> {
    static STARTER: OnceLock<Sender<SpawnOrder>> = OnceLock::new();
    if let Some(sender) = STARTER.get() {
        return Ok(sender);
    }
    let (sender, orders) = mpsc::channel::<SpawnOrder>();
    thread::Builder::new().name("starter".into()).spawn(move || {
        // A handler of ours must not run in a child that borrows our memory; children unblock them again.
        let blocked = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
        if let Err(error) = tree::become_subreaper() {
            tracing::warn!(%error, "daemons that a command leaves behind cannot be found");
        }
        for SpawnOrder { preparation, image, marker, answer } in orders {
            let started = blocked.map_err(io::Error::from).and_then(|()| start(&preparation, image, marker));
            // A caller that is gone drops the answer, and with it the tree.
            let _ = answer.send(started);
        }
    })?;
    // A thread that loses the race ends when its sender is dropped here; it has started nothing.
    Ok(STARTER.get_or_init(|| sender))
}

fn start(preparation: &Preparation, image: Image, marker: String) -> io::Result<Spawned> {
    let (stdin, stdout, stderr) = (pipe()?, pipe()?, pipe()?);
    let ends = Ends { stdin: stdin.1, stdout: stdout.0, stderr: stderr.0 };
    let theirs = [stdin.0, stdout.1, stderr.1];
    let root = tree::register(marker, || {
        let pid = with_dumps_kept(preparation, || make(preparation, image, &theirs))?;
        pidfd_open(pid, PidfdFlags::NONBLOCK).map(|pidfd| (pid, pidfd)).map_err(|errno| {
            let _ = kill_process_group(pid, Signal::KILL);
            reap(pid);
            errno.into()
        })
    })?;
    Ok(Spawned { root, ends })
}

/// Makes the child; a program of no known format is a script without a first line, and the shell's.
fn make(preparation: &Preparation, image: Image, stdio: &[OwnedFd; 3]) -> io::Result<Pid> {
    match attempt(preparation, &image, stdio) {
        Err(Failure { errno: Errno::NOEXEC, candidate, .. }) => {
            attempt(preparation, &image.into_script(candidate)?, stdio)
        }
        other => other,
    }
    .map_err(|failure| failure.errno.into())
}

fn attempt(preparation: &Preparation, image: &Image, stdio: &[OwnedFd; 3]) -> Result<Pid, Failure> {
    become_image(preparation, image, stdio).inspect_err(|failure| {
        if let Some(child) = failure.child {
            reap(child);
        }
    })
}

/// Waits for a child that is about to end.
fn reap(pid: Pid) {
    while let Err(Errno::INTR) = waitpid(Some(pid), WaitOptions::empty()) {}
}

/// A child that changes its user marks the memory that it shares with us as not to be dumped: mark it as it was.
fn with_dumps_kept<T>(preparation: &Preparation, act: impl FnOnce() -> T) -> T {
    let before = dumpable_behavior().ok().filter(|_| preparation.changes_user());
    let result = act();
    if before == Some(DumpableBehavior::Dumpable) {
        let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    }
    result
}

/// A pipe whose ends are none of the three standard descriptors, even if we have none of those open.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    use std::os::fd::AsRawFd;
    let raise = |fd: OwnedFd| if fd.as_raw_fd() > 2 { Ok(fd) } else { fcntl_dupfd_cloexec(fd, 3) };
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((raise(read)?, raise(write)?))
}
