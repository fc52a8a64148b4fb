//! Real processes of ours for one test: addresses of their own, logs that show when the test fails, gone when it ends.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "several test binaries share it, none uses all"
)]

#[path = "stage/puppet.rs"]
mod puppet;
#[path = "stage/wait.rs"]
mod wait;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use kubervisor::config::{Dialect, MasterTarget};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use self::{
    puppet::{Puppet, keeping_alive},
    wait::{CAP, throughout, until},
};
use crate::ports;

/// The TTL of these tests, in seconds.
pub const TTL: f64 = 2.5;

/// The product.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_kubervisor");

/// Writes down each run, and answers what the test tells it to.
const RECORDER: &str = include_str!("stage/recorder.py");

/// A test's own directory and its own network.
pub struct Stage {
    directory: TempDir,
    net: [u8; 3],
}

impl Stage {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let drawn = std::process::id().wrapping_mul(251).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let [_, _, high, low] = drawn.to_be_bytes();
        // 127.0.x.y belongs to everybody.
        Self { directory: tempfile::tempdir().unwrap(), net: [127, 1 + high % 254, low] }
    }

    /// The `host`th address of this test's network.
    pub fn ip(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, host)
    }

    /// The network, as a CIDR.
    pub fn network(&self) -> String {
        format!("{}/24", self.ip(0))
    }

    /// Where all files of the test are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        // Renamed into place: whoever reads it sees the old or the new.
        let (draft, path) = (self.file(&format!("{name}.draft")), self.file(name));
        fs::write(&draft, text).unwrap();
        fs::rename(draft, &path).unwrap();
        path
    }

    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    pub fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(str::to_owned).collect()
    }

    /// A callback that writes down its runs; what it answers is in `answer`, that it fails in `fail`, how long it takes in `sleep`.
    pub fn recorder(&self) -> PathBuf {
        self.script("recorder.py", RECORDER)
    }

    /// The recorder's runs so far.
    pub fn runs(&self) -> Vec<Run> {
        let whole = self.read("runs");
        let complete = whole.rfind('\n').map_or("", |end| &whole[..end]);
        complete.lines().map(|line| Run(serde_json::from_str(line).unwrap())).collect()
    }

    /// Waits for a run that `holds` is true of, and returns the newest such one.
    pub async fn run_where(&self, what: &str, holds: impl Fn(&Run) -> bool) -> Run {
        until(what, async || self.runs().into_iter().rev().find(|run| holds(run))).await
    }

    /// A master at `host`, on a file of its own and with the recorder for a callback.
    pub fn master(&self, host: u8) -> Node {
        let node = self
            .node(&format!("master-{host}"), host, "master")
            .env("KONTROL_MODE", "master")
            .env(
                "KUBERVISOR_STORE",
                format!("embedded:{}", self.file(&format!("master-{host}.redb")).display()),
            )
            .env("KONTROL_CALLBACK", self.recorder().display());
        let (probes, admin) = (ports::free(*node.address.ip()), ports::free(*node.address.ip()));
        let mut node = node.env("KUBERVISOR_ADDR", probes).env("KUBERVISOR_ADMIN_ADDR", admin);
        (node.probes, node.admin) = (Some(probes), Some(admin));
        node
    }

    /// An agent at `host` of these masters.
    pub fn agent(&self, host: u8, masters: &[&Node]) -> Node {
        self.node(&format!("web-{host}"), host, "web").env("KONTROL_MODE", "slave").masters(masters)
    }

    fn node(&self, id: &str, host: u8, role: &str) -> Node {
        let ip = self.ip(host);
        let address = ports::free(ip);
        Node {
            id: id.to_owned(),
            address,
            probes: None,
            admin: None,
            env: BTreeMap::new(),
            log: self.file(&format!("{id}.log")),
            hosts: None,
            child: None,
        }
        .env("KONTROL_ID", id)
        .env("KONTROL_IP", ip)
        .env("KONTROL_PORT", address.port())
        .env("KONTROL_LABELS", json!({"app": "shop", "role": role}))
        .env("KONTROL_TTL", TTL)
        .env("KONTROL_DAMPER", 0.1)
        .env("KONTROL_FOVER", 3)
        .env("KONTROL_USER", "")
        .env("NAMESPACE", "test")
    }
}

/// One run of the recorder.
#[derive(Clone, Debug)]
pub struct Run(pub Value);

impl Run {
    /// The pods' bytes, as given.
    pub fn pods(&self) -> &str {
        self.0["pods"].as_str().unwrap()
    }

    /// Their ids, in order.
    pub fn ids(&self) -> Vec<String> {
        self.list().iter().map(|pod| pod["id"].as_str().unwrap().to_owned()).collect()
    }

    pub fn list(&self) -> Vec<Value> {
        serde_json::from_str(self.pods()).unwrap()
    }

    pub fn pod(&self, id: &str) -> Value {
        self.list().into_iter().find(|pod| pod["id"] == id).unwrap_or_default()
    }

    pub fn env(&self, name: &str) -> Option<&str> {
        self.0["env"][name].as_str()
    }

    /// The state that it was handed.
    pub fn state(&self) -> Option<Value> {
        self.0["state"].as_str().map(|text| serde_json::from_str(text).unwrap())
    }

    /// Which master ran it.
    pub fn by(&self) -> &str {
        self.0["by"].as_str().unwrap()
    }
}

/// One process of ours, running or not.
pub struct Node {
    pub id: String,
    /// Its keepalive port.
    pub address: SocketAddrV4,
    pub probes: Option<SocketAddrV4>,
    pub admin: Option<SocketAddrV4>,
    env: BTreeMap<String, String>,
    log: PathBuf,
    hosts: Option<PathBuf>,
    child: Option<Child>,
}

impl Node {
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.insert(name.to_owned(), value.to_string());
        self
    }

    /// Where its output goes instead of a file of the test.
    pub fn logging_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = path.into();
        self
    }

    /// Has this file for `/etc/hosts`, in a mount namespace of its own.
    pub fn with_hosts(mut self, hosts: PathBuf) -> Self {
        self.hosts = Some(hosts);
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// Sends its keepalives to these.
    pub fn masters(self, masters: &[&Self]) -> Self {
        let masters: Vec<_> = masters.iter().map(|master| master.address.to_string()).collect();
        self.env("KONTROL_ANNOTATIONS", json!({"kontrol.unity3d.com/master": masters.join(",")}))
    }

    /// Starts it, and waits until its port is open.
    pub async fn start(mut self) -> Self {
        self.launch().await;
        self
    }

    /// Starts it (again), and waits until its port is open.
    pub async fn launch(&mut self) {
        self.spawn();
        let address = self.address;
        until(&format!("{} listens on {address}", self.id), async || {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait().unwrap()
            {
                panic!("{} ended early with {status}\n{}", self.id, tail(&self.log));
            }
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await;
    }

    /// Starts it and waits for nothing.
    pub fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.command(&["run"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(die_with_us(&mut command).spawn().unwrap());
    }

    /// Runs what must end by itself, at most for [`CAP`].
    pub fn output(&self) -> Output {
        let mut command = self.command(&["run"]);
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = die_with_us(piped).spawn().unwrap();
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() && begun.elapsed() < CAP {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let ended = begun.elapsed() < CAP;
        let _killed = child.kill();
        let output = child.wait_with_output().unwrap();
        assert!(ended, "{} still ran after {CAP:?}: {}", self.id, said(&output));
        output
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.hosts {
            None => Command::new(PROGRAM),
            Some(hosts) => {
                let bind = format!("mount --bind {} /etc/hosts && exec \"$0\" \"$@\"", hosts.display());
                let mut command = Command::new("unshare");
                command.args(["--map-root-user", "--mount", "sh", "-c", &bind, PROGRAM]);
                command
            }
        };
        let path = std::env::var("PATH").unwrap();
        command.args(arguments).env_clear().env("PATH", path).env("RUST_LOG", "info,kubervisor=debug");
        command.envs(&self.env);
        command
    }

    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        until(&format!("{} ends", self.id), async || child.try_wait().unwrap()).await
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn wake(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its admin port.
    pub fn admin(&self) -> std::net::SocketAddr {
        self.admin.unwrap().into()
    }

    /// A page of the admin port.
    pub async fn page(&self, path: &str) -> Value {
        let text = get(&format!("http://{}/{path}", self.admin.unwrap())).await;
        text.and_then(|(_, text)| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Waits until the pod of this id is explained as one without traffic. (A short endpoints file
    /// is no sign of it: while the pods join, it grows through every length.)
    pub async fn until_withheld(&self, id: &str) {
        let path = format!("explain/test/{id}");
        until(&format!("{id} is withheld"), async || self.page(&path).await["pod"]["traffic"] == "no").await;
    }

    /// `/metrics`.
    pub async fn metrics(&self) -> String {
        get_as(&format!("http://{}/metrics", self.probes.unwrap()), "application/openmetrics-text")
            .await
            .map(|(_, text)| text)
            .unwrap_or_default()
    }

    /// The sample that begins like this, `None` when there is none.
    pub async fn metric(&self, sample: &str) -> Option<f64> {
        let text = self.metrics().await;
        let line =
            text.lines().find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    /// The ids of the live pods, in the order of their numbers, as `/ensemble` shows them; empty for a follower.
    pub async fn pods(&self) -> Vec<String> {
        let page = self.page("ensemble").await;
        let live = page["pods"].as_array().into_iter().flatten().filter(|pod| pod["status"] == "live");
        live.map(|pod| pod["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Sequence numbers by id.
    pub async fn seqs(&self) -> BTreeMap<String, u64> {
        let page = self.page("ensemble").await;
        let live = page["pods"].as_array().into_iter().flatten().filter(|pod| pod["status"] == "live");
        live.map(|pod| (pod["id"].as_str().unwrap().to_owned(), pod["seq"].as_u64().unwrap())).collect()
    }

    pub async fn leads(&self) -> bool {
        self.page("ensemble").await["leadership"]["posture"] == "leading"
    }

    /// Whether the alarm is in the history.
    pub async fn alarmed(&self, reason: &str) -> bool {
        let page = self.page("services").await;
        page["alarms"]["history"].as_array().into_iter().flatten().any(|change| change["reason"] == reason)
    }

    /// Whether the alarm is up.
    pub async fn alarm_is_up(&self, reason: &str) -> bool {
        let page = self.page("services").await;
        page["alarms"]["up"].as_array().into_iter().flatten().any(|change| change["reason"] == reason)
    }

    pub fn target(&self) -> MasterTarget {
        MasterTarget {
            host: self.address.ip().to_string(),
            port: self.address.port(),
            dialect: Dialect::ZeroRpc,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.id, tail(&self.log));
        }
    }
}

/// Status and text of a page.
pub async fn get(url: &str) -> Option<(u16, String)> {
    get_as(url, "*/*").await
}

/// As [`get`], in the format that `accept` names.
pub async fn get_as(url: &str, accept: &str) -> Option<(u16, String)> {
    // An error only says that another test was first.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
    let answer = client.get(url).header("accept", accept).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

/// Runs the product's command line.
pub fn kubervisor(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().env("PATH", std::env::var("PATH").unwrap());
    command.envs(env.iter().copied()).stdin(Stdio::null()).output().unwrap()
}

/// What a command printed, both ways.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The kernel kills the process when the test's thread ends, however it ends.
fn die_with_us(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: prctl is one system call, and nothing else runs between fork and exec.
    unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)) }
}
