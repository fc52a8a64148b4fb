//! Starts a job's main child, on one dedicated thread that never ends.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that created the child ends, and the runtime's blocking threads
//! end when they are idle. The thread also blocks until the child's exec.

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

/// Starts `job`. Cancel-safe: an answer that is not received kills its tree when dropped.
pub(super) async fn spawn(job: &Job) -> Result<Spawned, ProcessError> {
    let program = image::program(&job.command);
    let failed = |source| ProcessError::classify(program, source);
    let account = user::resolve(&job.user)?;
    let directory = job.directory.as_deref().map(|directory| enterable(directory, program)).transpose()?;
    let marker = tree::new_marker(job.keeps_survivors);
    let image = Image::new(job, account.as_ref(), &marker).map_err(|nul| failed(nul.into()))?;
    let preparation = Preparation::new(job, account.as_ref(), directory);
    let (answer, started) = oneshot::channel();
    starter()
        .map_err(failed)?
        .send(SpawnRequest { preparation, image, marker, answer })
        .map_err(|_| failed(thread_ended()))?;
    started.await.map_err(|_| failed(thread_ended()))?.map_err(failed)
}

fn thread_ended() -> io::Error {
    io::Error::other("the thread that starts processes has ended")
}

/// Checks the directory here: in the child its absence has the same error number as that of the program.
fn enterable(directory: &Path, program: &str) -> Result<CString, ProcessError> {
    match directory.metadata() {
        Ok(meta) if meta.is_dir() => CString::new(directory.as_os_str().as_bytes()).map_err(io::Error::from),
        Ok(_) => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        Err(error) => Err(error),
    }
    .map_err(|source| ProcessError::NoDirectory(program.into(), directory.display().to_string(), source))
}

struct SpawnRequest {
    preparation: Preparation,
    image: Image,
    marker: String,
    answer: oneshot::Sender<io::Result<Spawned>>,
}

/// The channel to the thread that starts jobs, which the first job starts.
fn starter() -> io::Result<&'static Sender<SpawnRequest>> {
    static STARTER: OnceLock<Sender<SpawnRequest>> = OnceLock::new();
    if let Some(sender) = STARTER.get() {
        return Ok(sender);
    }
    let (sender, requests) = mpsc::channel::<SpawnRequest>();
    thread::Builder::new().name("starter".into()).spawn(move || {
        // Our signal handlers must not run in a child that shares our memory; the child unblocks the signals.
        let blocked = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
        if let Err(error) = tree::become_subreaper() {
            tracing::warn!(%error, "daemons that a command leaves behind cannot be found");
        }
        for SpawnRequest { preparation, image, marker, answer } in requests {
            let started = blocked.map_err(io::Error::from).and_then(|()| start(&preparation, image, marker));
            // If the caller is gone, this drops the answer, which kills the tree.
            let _ = answer.send(started);
        }
    })?;
    // Of two concurrent threads, one ends here with its sender, before it has started a job.
    Ok(STARTER.get_or_init(|| sender))
}

fn start(preparation: &Preparation, image: Image, marker: String) -> io::Result<Spawned> {
    let (stdin, stdout, stderr) = (pipe()?, pipe()?, pipe()?);
    let ends = Ends { stdin: stdin.1, stdout: stdout.0, stderr: stderr.0 };
    let stdio = [stdin.0, stdout.1, stderr.1];
    let root = tree::register(marker, || {
        let pid = preserving_dumpable(preparation, || create(preparation, image, &stdio))?;
        pidfd_open(pid, PidfdFlags::NONBLOCK).map(|pidfd| (pid, pidfd)).map_err(|errno| {
            let _ = kill_process_group(pid, Signal::KILL);
            reap(pid);
            errno.into()
        })
    })?;
    Ok(Spawned { root, ends })
}

/// Creates the child; a program of unknown format is a script without `#!` and goes to the shell.
fn create(preparation: &Preparation, image: Image, stdio: &[OwnedFd; 3]) -> io::Result<Pid> {
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

/// Waits for a child that is ending.
fn reap(pid: Pid) {
    while let Err(Errno::INTR) = waitpid(Some(pid), WaitOptions::empty()) {}
}

/// Restores the dumpable flag, which a child that changes its user clears on the memory that it shares with us.
fn preserving_dumpable<T>(preparation: &Preparation, act: impl FnOnce() -> T) -> T {
    let before = dumpable_behavior().ok().filter(|_| preparation.identity.is_some());
    let result = act();
    if before == Some(DumpableBehavior::Dumpable) {
        let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    }
    result
}

/// A pipe with descriptors above 2, even when our standard descriptors are closed.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    use std::os::fd::AsRawFd;
    let raise = |fd: OwnedFd| if fd.as_raw_fd() > 2 { Ok(fd) } else { fcntl_dupfd_cloexec(fd, 3) };
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((raise(read)?, raise(write)?))
}
