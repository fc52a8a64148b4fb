//! A real Kubernetes control plane for the tests of one binary: its components are processes of their
//! own, and all of them end with the tests, however those end.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, none uses all")]

use std::{
    fmt::Display,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Seek, Write},
    ops::Deref,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Output, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Config,
    api::{ObjectMeta, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// May do everything.
    Admin,
    /// Has the controller's rights, all of them and no others.
    Kubervisor,
    /// Has no rights but those that a test gives it.
    Nobody,
}

impl User {
    /// As the API server knows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Kubervisor => "kubervisor",
            Self::Nobody => "nobody",
        }
    }
}

/// A process of the plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
    /// The stand-in for all kubelets.
    Kubelet,
}

impl Component {
    /// All of them, in the order of their start.
    pub const ALL: [Self; 5] =
        [Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Scheduler, Self::Kubelet];

    const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
        }
    }
}

/// The control plane.
pub struct Plane {
    directory: PathBuf,
    etcd: String,
    pid: u32,
    control: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    frozen: Mutex<Vec<Component>>,
}

static PLANE: OnceLock<Plane> = OnceLock::new();
static TURN: RwLock<()> = RwLock::const_new(());

/// The plane, for a test that harms nobody else's.
pub struct Shared(RwLockReadGuard<'static, ()>);
/// The plane, for a test that breaks it; no other test runs meanwhile. What is frozen at its end goes on, also when the
/// test has failed.
pub struct Alone(RwLockWriteGuard<'static, ()>);

/// The binary's plane, started by whoever comes first.
pub async fn shared() -> Shared {
    let turn = TURN.read().await;
    PLANE.get_or_init(Plane::launch);
    Shared(turn)
}

/// As [`shared`], alone.
pub async fn alone() -> Alone {
    let turn = TURN.write().await;
    PLANE.get_or_init(Plane::launch);
    Alone(turn)
}

impl Deref for Shared {
    type Target = Plane;
    fn deref(&self) -> &Plane {
        PLANE.get().expect("it was launched")
    }
}

impl Deref for Alone {
    type Target = Plane;
    fn deref(&self) -> &Plane {
        PLANE.get().expect("it was launched")
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        frozen.into_iter().for_each(|component| self.thaw(component));
    }
}

impl Plane {
    fn launch() -> Self {
        let _already = rustls::crypto::ring::default_provider().install_default();
        // The kernel ends the plane with the thread that started it: one that lives as long as we do.
        let (answer, plane) = mpsc::channel();
        thread::spawn(move || {
            let _receiver_waits = answer.send(Self::start());
            loop {
                thread::park();
            }
        });
        match plane.recv().expect("the keeper answers") {
            Ok(plane) => plane,
            Err(why) => panic!("no control plane: {why}"),
        }
    }

    fn start() -> Result<Self, String> {
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster");
        let built = Command::new(build).output().map_err(said)?;
        if !built.status.success() {
            return Err(format!("scripts/cluster: {}", String::from_utf8_lossy(&built.stderr)));
        }
        let mut log = tempfile::tempfile().map_err(said)?;
        let mut command = Command::new(String::from_utf8_lossy(&built.stdout).trim());
        command.arg("--control").stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(log.try_clone().map_err(said)?);
        // SAFETY: prctl is one system call, and nothing else runs between fork and exec.
        unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?)) };
        let mut child = command.spawn().map_err(said)?;
        let (pid, input) = (child.id(), child.stdin.take().ok_or("no input")?);
        let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let (mut directory, mut etcd) = (PathBuf::new(), String::new());
        loop {
            let mut line = String::new();
            if output.read_line(&mut line).map_err(said)? == 0 {
                return Err(read_all(&mut log));
            }
            match line.trim_end().split_once(' ') {
                Some(("dir", path)) => directory = path.into(),
                Some(("etcd", url)) => url.clone_into(&mut etcd),
                None if line.trim_end() == "ready" => break,
                _ => {}
            }
        }
        Ok(Self { directory, etcd, pid, control: Mutex::new((input, output)), frozen: Mutex::default() })
    }

    fn tell(&self, verb: &str, component: Component) -> String {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(control.0, "{verb} {}", component.name()).unwrap();
        let mut answer = String::new();
        control.1.read_line(&mut answer).unwrap();
        assert!(!answer.is_empty(), "the plane is gone");
        assert!(!answer.starts_with("error"), "{verb} {component:?}: {answer}");
        answer.trim_end().to_owned()
    }

    /// SIGKILL, and its port is free when this returns; what it stored stays.
    pub fn kill(&self, component: Component) {
        self.tell("kill", component);
        self.set_frozen(component, false);
    }

    /// SIGSTOP: its connections stay, nothing is answered.
    pub fn freeze(&self, component: Component) {
        self.tell("freeze", component);
        self.set_frozen(component, true);
    }

    /// SIGCONT.
    pub fn thaw(&self, component: Component) {
        self.tell("thaw", component);
        self.set_frozen(component, false);
    }

    fn set_frozen(&self, component: Component, is_frozen: bool) {
        let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        frozen.retain(|other| *other != component);
        frozen.extend(is_frozen.then_some(component));
    }

    /// Starts one that was killed; it serves when this returns.
    pub fn restart(&self, component: Component) {
        self.tell("start", component);
    }

    /// They are away while this is done.
    pub fn while_away(&self, who: &[Component], work: impl FnOnce()) {
        who.iter().for_each(|component| self.kill(*component));
        work();
        who.iter().for_each(|component| self.restart(*component));
    }

    /// Copies all that is stored, for [`Plane::restore`].
    pub fn back_up(&self) {
        let (data, backup) = (self.directory.join("etcd"), self.directory.join("backup"));
        self.while_away(&[Component::Etcd, Component::ApiServer], || copy(&data, &backup));
    }

    /// Puts the copy in the place of all that is stored. The other components are restarted too: they must not act on
    /// what they saw in the future.
    pub fn restore(&self) {
        let (data, backup) = (self.directory.join("etcd"), self.directory.join("backup"));
        self.while_away(&Component::ALL, || {
            fs::remove_dir_all(&data).unwrap();
            fs::rename(&backup, &data).unwrap();
        });
    }

    /// The process of the component.
    pub fn pid(&self, component: Component) -> u32 {
        self.tell("pid", component).parse().unwrap()
    }

    /// The process that holds them all.
    pub fn holder(&self) -> u32 {
        self.pid
    }

    /// etcd's URL: every revision since the first is there.
    pub fn etcd(&self) -> &str {
        &self.etcd
    }

    /// Where everything of the plane is, logs too.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The user's kubeconfig.
    pub fn kubeconfig(&self, user: User) -> PathBuf {
        self.directory.join(format!("{}.kubeconfig", user.name()))
    }

    /// A client of the test's own runtime.
    pub async fn client(&self, user: User) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(user)).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// A namespace of the test's own, such as `hint-3`.
    pub async fn namespace(&self, client: &Client, hint: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{hint}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        name
    }

    /// Runs the plane's own `kubectl`, with `input` as its standard input.
    pub fn kubectl(&self, user: User, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(self.directory.join("bin/kubectl"))
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig(user))
            // Its caches, and no settings of whoever runs the tests.
            .env("HOME", &self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may end, for a usage error say, before it has read everything.
        let _broken_pipe = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// The audit log's events that name the namespace, in order.
    pub fn audit(&self, namespace: &str) -> Vec<Value> {
        let log = fs::read_to_string(self.directory.join("audit.log")).unwrap_or_default();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _torn)| whole);
        let events = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["objectRef"]["namespace"] == namespace).collect()
    }
}

fn said(error: impl Display) -> String {
    error.to_string()
}

fn read_all(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    read.map_or_else(said, |_| text)
}

/// A directory with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Asks until there is an answer; how long it took.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> (T, Duration) {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return (answer, began.elapsed());
        }
        assert!(began.elapsed() < Duration::from_secs(90), "not within 90 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
