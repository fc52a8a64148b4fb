//! Starts a job's main child, from one thread that never ends.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that forked ends, and the runtime's blocking threads end
//! when they are idle; so all jobs are started by one thread of their own. Fork and exec also block for
//! about a millisecond, which is no business of a runtime thread's.

use std::{
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        OnceLock,
        mpsc::{self, Sender},
    },
    thread,
};

use rustix::{
    fs::Mode,
    io::Errno,
    process::{
        Gid, Pid, PidfdFlags, Resource, Rlimit, Signal, Uid, getpid, getppid, getrlimit, pidfd_open,
        set_parent_process_death_signal, setrlimit, setsid, umask,
    },
    thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use tokio::sync::oneshot;

use super::{
    Job, Limits, ProcessError,
    tree::{self, Root},
    user::{self, Account},
};
use crate::config::CommandLine;

/// Where programs are looked for when the environment is cleared.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Never given to others, whatever our own mask is: a callback's files are not world-writable.
const MASK: u32 = 0o022;

/// A started job: the root of its tree, and our ends of its pipes.
pub(super) struct Spawned {
    pub(super) root: Root,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

/// Starts `job`. A caller that goes away meanwhile leaves nothing behind: the answer kills what it holds when dropped.
pub(super) async fn spawn(job: &Job) -> Result<Spawned, ProcessError> {
    let program = program(&job.command);
    let account = user::resolve(&job.user)?;
    if let Some(directory) = &job.directory {
        enterable(directory, program)?;
    }
    let marker = tree::new_marker();
    let command = command(job, account.as_ref(), &marker);
    let (answer, started) = oneshot::channel();
    let failed = |source| ProcessError::sort(program, source);
    starter().map_err(failed)?.send(Order { command, marker, answer }).map_err(|_| failed(gone()))?;
    started.await.map_err(|_| failed(gone()))?.map_err(failed)
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts processes is gone")
}

fn program(command: &CommandLine) -> &str {
    match command {
        CommandLine::Words(words) => words.first().map_or("", String::as_str),
        CommandLine::Shell(_) => "/bin/sh",
    }
}

/// A missing directory and a missing program are the same error number after the fork, so look before.
fn enterable(directory: &Path, program: &str) -> Result<(), ProcessError> {
    match directory.metadata() {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        Err(error) => Err(error),
    }
    .map_err(|source| ProcessError::NoDirectory {
        program: program.to_owned(),
        directory: directory.display().to_string(),
        source,
    })
}

fn command(job: &Job, account: Option<&Account>, marker: &str) -> Command {
    let mut command = Command::new(program(&job.command));
    match &job.command {
        CommandLine::Words(words) => command.args(words.iter().skip(1)),
        CommandLine::Shell(line) => command.arg("-c").arg(line),
    };
    if job.clear_environment {
        command.env_clear().env("PATH", DEFAULT_PATH);
    }
    for name in &job.without {
        command.env_remove(name);
    }
    if let Some(account) = account {
        command.env("HOME", &account.home).env("USER", &account.name).env("LOGNAME", &account.name);
    }
    command.envs(job.environment.iter().map(|(name, value)| (name, value))).env(tree::MARKER, marker);
    if let Some(directory) = &job.directory {
        command.current_dir(directory);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let preparation = Preparation::new(account, &job.limits);
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe calls are
    // allowed: `Preparation::apply` makes raw system calls over memory that was laid out before the fork;
    // it neither allocates nor locks.
    unsafe { command.pre_exec(move || preparation.apply()) };
    command
}

/// What the child does to itself before exec, laid out before the fork.
struct Preparation {
    parent: Pid,
    identity: Option<(Uid, Gid, Vec<Gid>)>,
    limits: Vec<(Resource, Rlimit)>,
}

impl Preparation {
    fn new(account: Option<&Account>, limits: &Limits) -> Self {
        let gid = |gid: &nix::unistd::Gid| Gid::from_raw(gid.as_raw());
        let identity = account.map(|account| {
            (Uid::from_raw(account.uid.as_raw()), gid(&account.gid), account.groups.iter().map(gid).collect())
        });
        let limits = [
            (Resource::Cpu, limits.cpu_seconds),
            (Resource::As, limits.address_space),
            (Resource::Nofile, limits.open_files),
            (Resource::Fsize, limits.file_size),
            (Resource::Core, limits.core_size),
        ];
        let limits = limits.into_iter().filter_map(|(resource, wanted)| {
            let wanted =
                wanted.map(|wanted| getrlimit(resource).maximum.map_or(wanted, |max| max.min(wanted)))?;
            Some((resource, Rlimit { current: Some(wanted), maximum: Some(wanted) }))
        });
        Self { parent: getpid(), identity, limits: limits.collect() }
    }

    /// In the child. The order matters: rights go last but for what a change of user resets (the death signal).
    fn apply(&self) -> io::Result<()> {
        // A session of its own: nothing in it can ever return to ours, which is how strays are told from our own children.
        setsid()?;
        let inherited = umask(Mode::from_raw_mode(0o777));
        umask(inherited | Mode::from_raw_mode(MASK));
        for (resource, limit) in &self.limits {
            setrlimit(*resource, *limit)?;
        }
        if let Some((uid, gid, groups)) = &self.identity {
            set_thread_groups(groups)?;
            set_thread_res_gid(*gid, *gid, *gid)?;
            set_thread_res_uid(*uid, *uid, *uid)?;
        }
        set_no_new_privs(true)?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above.
        if getppid() != Some(self.parent) {
            return Err(Errno::SRCH.into());
        }
        close_descriptors_at_exec();
        Ok(())
    }
}

/// Ours are all close-on-exec; those that we inherited ourselves (a shell's, make's) may not be.
fn close_descriptors_at_exec() {
    use nix::libc::{CLOSE_RANGE_CLOEXEC, SYS_close_range, c_uint, syscall};
    // SAFETY: only flags of descriptors in this child change, and no memory is touched. A kernel without the call
    // answers ENOSYS; then they stay as they are.
    unsafe { syscall(SYS_close_range, 3 as c_uint, c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
}

struct Order {
    command: Command,
    marker: String,
    answer: oneshot::Sender<io::Result<Spawned>>,
}

/// The thread that starts jobs, started itself by the first one.
fn starter() -> io::Result<&'static Sender<Order>> {
    static STARTER: OnceLock<Sender<Order>> = OnceLock::new();
    if let Some(sender) = STARTER.get() {
        return Ok(sender);
    }
    let (sender, orders) = mpsc::channel::<Order>();
    thread::Builder::new().name("starter".into()).spawn(move || {
        if let Err(error) = tree::become_subreaper() {
            tracing::warn!(%error, "daemons that a command leaves behind cannot be found");
        }
        for Order { mut command, marker, answer } in orders {
            // A caller that is gone drops the answer, and with it the tree.
            let _ = answer.send(start(&mut command, marker));
        }
    })?;
    // A thread that loses the race ends when its sender is dropped here; it has started nothing.
    Ok(STARTER.get_or_init(|| sender))
}

fn start(command: &mut Command, marker: String) -> io::Result<Spawned> {
    tree::register(marker, || {
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => {
                let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
                Ok((pid, pidfd, pipes))
            }
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    })
    .map(|(root, (stdin, stdout, stderr))| Spawned { root, stdin, stdout, stderr })
}
