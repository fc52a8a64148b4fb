//! A real `kubervisor controller` process: started, killed, frozen and started again, asked for its pages.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, none uses all")]

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::ports;

/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a controller is started.
#[derive(Clone, Debug)]
pub struct Recipe {
    kubeconfig: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Recipe {
    /// A controller that reaches the API server by that kubeconfig, with everything else at its default.
    pub fn with_kubeconfig(kubeconfig: impl Into<PathBuf>) -> Self {
        let variables = vec![("RUST_LOG".to_owned(), "info".to_owned())];
        Self { kubeconfig: kubeconfig.into(), arguments: Vec::new(), variables }
    }

    /// Only that namespace; once for each.
    pub fn namespace(self, namespace: &str) -> Self {
        self.argument("--namespace").argument(namespace)
    }

    /// One more word of the command line.
    pub fn argument(mut self, word: impl Into<String>) -> Self {
        self.arguments.push(word.into());
        self
    }

    /// Sets a variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it, and waits for nothing.
    pub fn start(self) -> Controller {
        let controller = self.prepared();
        controller.launch();
        controller
    }

    /// Ports and all, but no process yet.
    pub fn prepared(self) -> Controller {
        let directory = tempfile::tempdir().unwrap();
        Controller { addr: free(), admin: free(), directory, recipe: self, child: Arc::default() }
    }
}

/// One controller: its ports and its log stay the same over all its lives.
pub struct Controller {
    recipe: Recipe,
    addr: SocketAddr,
    admin: SocketAddr,
    directory: TempDir,
    child: Arc<Mutex<Option<Child>>>,
}

/// Kills its controller, from wherever it is called.
#[derive(Clone)]
pub struct Killer(Arc<Mutex<Option<Child>>>);

impl Killer {
    /// SIGKILL, and it is gone when this returns; nothing if it is gone already.
    pub fn kill(&self) {
        if let Some(mut child) = locked(&self.0).take() {
            let _gone_already = child.kill();
            child.wait().unwrap();
        }
    }
}

fn locked(child: &Mutex<Option<Child>>) -> MutexGuard<'_, Option<Child>> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Controller {
    /// Starts it: for the first time, or after its end.
    pub fn launch(&self) {
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubervisor"));
        command
            .arg("controller")
            .arg("--kubeconfig")
            .arg(&self.recipe.kubeconfig)
            .args(["--addr", &self.addr.to_string(), "--admin-addr", &self.admin.to_string()])
            .args(&self.recipe.arguments)
            .envs(self.recipe.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        // SAFETY: prctl is one system call, and nothing else runs between fork and exec.
        unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)) };
        self.kill();
        *locked(&self.child) = Some(command.spawn().unwrap());
    }

    /// SIGKILL; nothing if it is gone already.
    pub fn kill(&self) {
        self.killer().kill();
    }

    /// `--addr`.
    pub const fn address(&self) -> SocketAddr {
        self.addr
    }

    /// Something that kills it, for a hook.
    pub fn killer(&self) -> Killer {
        Killer(Arc::clone(&self.child))
    }

    /// SIGTERM, and waits for its end: the exit code.
    pub fn stop(&self) -> Option<i32> {
        self.stop_by(Signal::SIGTERM)
    }

    /// Another signal that ends it, as [`stop`](Self::stop).
    pub fn stop_by(&self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        let ended = locked(&self.child).take().map(|mut child| child.wait().unwrap());
        ended.and_then(|status| status.code())
    }

    /// Its admin port.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// A JSON page of the admin port.
    pub async fn page(&self, path: &str) -> serde_json::Value {
        let (_, body) = self.admin(&format!("/{path}")).await.unwrap();
        serde_json::from_str(&body).unwrap()
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = locked(&self.child).as_ref() {
            let _gone_already = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal);
        }
    }

    /// The process, while it lives.
    pub fn pid(&self) -> Option<u32> {
        locked(&self.child).as_ref().map(Child::id)
    }

    /// Whether it was started and has not ended, frozen or not.
    pub fn lives(&self) -> bool {
        locked(&self.child).as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits until `/ready` says 200.
    pub async fn ready(&self) {
        let began = Instant::now();
        while self.get("/ready").await.map_or(0, |(code, _)| code) != 200 {
            assert!(self.lives(), "the controller ended");
            assert!(began.elapsed() < PATIENCE, "the controller did not get ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// One page of `--addr`: the status code and the text.
    pub async fn get(&self, path: &str) -> io::Result<(u16, String)> {
        ask(self.addr, path).await
    }

    /// One page of `--admin-addr`.
    pub async fn admin(&self, path: &str) -> io::Result<(u16, String)> {
        ask(self.admin, path).await
    }

    /// The sum over all labels of one metric.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await.unwrap();
        let rows = text.lines().filter_map(|line| line.strip_prefix(name));
        let rows = rows.filter(|rest| rest.starts_with([' ', '{']));
        rows.filter_map(|row| row.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// What it has logged, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// A directory that lives as long as it does.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let start = log.len().saturating_sub(20_000);
            let start = (start..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("--- what the controller logged:\n{}---", &log[start..]);
        }
    }
}

fn free() -> SocketAddr {
    ports::free(ports::own_address(254)).into()
}

async fn ask(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((code.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
    })
    .await
    .map_err(io::Error::other)?
}
