//! One session of bash: its input and its output.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Time limit of one command.
const LIMIT: Duration = Duration::from_secs(120);
/// Precedes the exit code of a command.
const ENDED: &str = "--- ended with";

/// A shell, and everything that was started in it: all of it ends with it.
pub(crate) struct Terminal {
    desk: PathBuf,
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Terminal {
    /// Opens one at that directory, with the programs of `bin` and ours before all others.
    pub(crate) fn open(desk: &Path, bin: &Path) -> Self {
        let ours = Path::new(env!("CARGO_BIN_EXE_kubervisor")).parent().unwrap();
        let others = env::var_os("PATH").unwrap_or_default();
        let path = [bin.to_owned(), ours.to_owned()].into_iter().chain(env::split_paths(&others));
        let mut command = Command::new("timeout");
        // It makes a process group of its own and ends all of it, also when it is told to end.
        command.args(["--kill-after=5", "900", "bash", "--noprofile", "--norc"]);
        command.current_dir(desk).env("HOME", desk).env("PATH", env::join_paths(path).unwrap());
        command.env_remove("KUBECONFIG").stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: prctl is one system call, and nothing else runs between fork and exec.
        unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?)) };
        let mut child = command.spawn().unwrap();
        let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        writeln!(input, "exec 2>&1").unwrap();
        let (line, lines) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).all(|read| line.send(read).is_ok())
        });
        Self { desk: desk.to_owned(), child, input, lines }
    }

    /// Types it, and waits for its end: the exit code and what it printed.
    pub(crate) fn run(&mut self, command: &str) -> (i32, String) {
        // The rest of the session is not its input.
        writeln!(self.input, "{{\n{command}\n}} </dev/null; printf '\\n{ENDED} %d\\n' $?").unwrap();
        let (until, mut output) = (Instant::now() + LIMIT, String::new());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|why| panic!("{command}: {why}; it printed:\n{output}"));
            if let Some(code) = line.strip_prefix(ENDED) {
                return (code.trim().parse().unwrap(), output.trim_end().to_owned());
            }
            output = output + &line + "\n";
        }
    }

    /// A file that a command wrote.
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.desk.join(name)).unwrap_or_default()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone_already = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM);
        let _code = self.child.wait();
    }
}
