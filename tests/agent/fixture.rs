//! Fixture: agents as real processes on addresses of their own, and a master that records keepalives.

use std::{
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use kubervisor::adapters::wire::{Answer, Handler, Limits, Refusal, RefusalKind, Server, WireMetrics};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// No step of a test takes longer.
pub(crate) const CAP: Duration = Duration::from_secs(20);

/// A loopback address that no other test of this machine is likely to have.
pub(crate) fn address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(2);
    let [_, low] = (std::process::id() as u16).to_be_bytes();
    let [third, fourth] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, low | 1, third | 0x40, fourth)
}

pub(crate) fn free_port(ip: Ipv4Addr) -> u16 {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port()
}

/// One keepalive as a master heard it.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedPing {
    pub(crate) raw: String,
    pub(crate) peer: SocketAddr,
    pub(crate) at: Instant,
}

impl ReceivedPing {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.raw).unwrap()
    }

    pub(crate) fn payload(&self) -> Value {
        self.json()["payload"].clone()
    }

    pub(crate) fn down(&self) -> bool {
        self.json()["down"] == true
    }
}

/// What the master does with the ping of this number.
pub(crate) type ReactionRule = Box<dyn Fn(usize) -> Reaction + Send + Sync>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaction {
    Answer,
    /// Never answers: the ping is lost.
    Swallow,
    Refuse,
}

struct RecordingMaster {
    heard: Mutex<Vec<ReceivedPing>>,
    count: watch::Sender<usize>,
    rule: ReactionRule,
}

impl Handler for RecordingMaster {
    fn ping(&self, peer: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>> {
        let raw = String::from_utf8(raw.to_vec()).unwrap();
        let number = {
            let mut heard = self.heard.lock().unwrap();
            heard.push(ReceivedPing { raw, peer, at: Instant::now() });
            heard.len()
        };
        self.count.send_replace(number);
        match (self.rule)(number - 1) {
            Reaction::Answer => Answer::Now(Ok(())),
            Reaction::Swallow => Answer::Later(Box::pin(std::future::pending())),
            Reaction::Refuse => {
                let message = "the key is taken".to_owned();
                Answer::Now(Err(Refusal { kind: RefusalKind::Conflict, message }))
            }
        }
    }

    fn forwarded(&self, _: SocketAddr, _: &[u8]) -> Answer<Result<(), Refusal>> {
        Answer::Now(Ok(()))
    }

    fn invoke(&self, _: SocketAddr, _: Bytes) -> BoxFuture<'static, Result<Option<String>, Refusal>> {
        Box::pin(async { Ok(None) })
    }

    fn challenge(&self, _: SocketAddr) -> Result<String, Refusal> {
        Ok(String::new())
    }

    fn state(&self) -> BoxFuture<'static, Result<Option<Bytes>, Refusal>> {
        Box::pin(async { Ok(None) })
    }

    fn down(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

/// A master that only listens. It closes when dropped.
pub(crate) struct Master {
    pub(crate) address: SocketAddr,
    ear: Arc<RecordingMaster>,
    shutdown: CancellationToken,
}

impl Master {
    pub(crate) fn open() -> Self {
        Self::moody(Box::new(|_| Reaction::Answer))
    }

    pub(crate) fn moody(rule: ReactionRule) -> Self {
        Self::at((address(), 0).into(), rule)
    }

    pub(crate) fn at(address: SocketAddr, rule: ReactionRule) -> Self {
        let limits = Limits { drain: Duration::from_millis(10), ..Limits::default() };
        let server =
            Server::bind_with(address, limits, WireMetrics::register(&mut Registry::default())).unwrap();
        let address = server.local_addr().unwrap();
        let ear = Arc::new(RecordingMaster { heard: Mutex::default(), count: watch::Sender::new(0), rule });
        let shutdown = CancellationToken::new();
        tokio::spawn(server.serve(Arc::clone(&ear) as Arc<dyn Handler>, shutdown.clone()));
        Self { address, ear, shutdown }
    }

    pub(crate) fn heard(&self) -> Vec<ReceivedPing> {
        self.ear.heard.lock().unwrap().clone()
    }

    /// Waits until `count` keepalives were heard; returns them all.
    pub(crate) async fn hears(&self, count: usize) -> Vec<ReceivedPing> {
        let mut seen = self.ear.count.subscribe();
        let reached = timeout(CAP, seen.wait_for(|&seen| seen >= count)).await;
        assert!(reached.is_ok(), "heard only {:?}", self.heard());
        self.heard()
    }

    /// Waits for the first keepalive, from number `from` on, that `wanted` likes.
    pub(crate) async fn hears_that(
        &self,
        from: usize,
        wanted: impl Fn(&ReceivedPing) -> bool,
    ) -> (usize, ReceivedPing) {
        let mut seen = self.ear.count.subscribe();
        let found = async {
            loop {
                let heard = self.heard();
                let there = heard.iter().enumerate().skip(from).find(|(_, heard)| wanted(heard));
                if let Some((number, heard)) = there {
                    return (number, heard.clone());
                }
                seen.changed().await.unwrap();
            }
        };
        timeout(CAP, found).await.unwrap_or_else(|_| panic!("not among {:?}", self.heard()))
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// How an agent is started; each has an address and a port of its own.
pub(crate) struct Recipe {
    pub(crate) ip: Ipv4Addr,
    pub(crate) port: u16,
    env: Vec<(String, String)>,
}

impl Recipe {
    /// An agent of these masters, `host:port` or URLs.
    pub(crate) fn of(masters: &[String]) -> Self {
        let ip = address();
        let recipe = Self { ip, port: free_port(ip), env: Vec::new() };
        let annotations = serde_json::json!({ "kontrol.unity3d.com/master": masters.join(",") });
        let (ip, port) = (recipe.ip.to_string(), recipe.port.to_string());
        recipe
            .with("KONTROL_MODE", "slave,verbose")
            .with("KONTROL_ID", "web-1")
            .with("KONTROL_IP", ip)
            .with("KONTROL_PORT", port)
            .with("KONTROL_LABELS", r#"{"app":"shop","role":"web"}"#)
            .with("KONTROL_ANNOTATIONS", annotations.to_string())
            .with("KONTROL_USER", "")
    }

    pub(crate) fn of_master(master: &Master) -> Self {
        Self::of(&[master.address.to_string()])
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Pings only when something changes, as far as a test can tell.
    pub(crate) fn quiet(self) -> Self {
        self.with("KONTROL_TTL", "600").with("KONTROL_PING", "500")
    }

    pub(crate) fn watching(self, payload: &Path) -> Self {
        self.with("KONTROL_PAYLOAD", payload.to_str().unwrap())
    }

    pub(crate) fn start(&self) -> Agent {
        self.start_logging_to(Stdio::inherit())
    }

    pub(crate) fn start_logging_to(&self, log: Stdio) -> Agent {
        let mut command = kubervisor(["run"]);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Agent { process: command.stdout(Stdio::null()).stderr(log).spawn().unwrap() }
    }

    /// As [`start`](Self::start), by a command that gets the program and its argument behind its own.
    pub(crate) fn start_by<S: AsRef<OsStr>>(&self, command: &[S]) -> Agent {
        let mut process = Command::new(&command[0]);
        process.args(&command[1..]).args([env!("CARGO_BIN_EXE_kubervisor"), "run"]);
        process.envs(self.env.iter().map(|(name, value)| (name, value)));
        Agent {
            process: process.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap(),
        }
    }

    /// Where it takes commands.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}:{}", self.ip, self.port)
    }

    /// Starts it and waits until its port is open.
    pub(crate) async fn start_listening(&self) -> Agent {
        let agent = self.start();
        let open = async {
            while tokio::net::TcpStream::connect((self.ip, self.port)).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(CAP, open).await.expect("the agent opens its port");
        agent
    }
}

/// The beginning of a command that has `hosts` for `/etc/hosts`; `None`, and why, where this is not allowed.
pub(crate) fn with_hosts(folder: &Path, hosts: &str) -> Option<Vec<String>> {
    let path = folder.join("hosts");
    std::fs::write(&path, hosts).unwrap();
    let unshare = ["unshare", "--map-root-user", "--mount"];
    let tried = std::process::Command::new(unshare[0]).args(&unshare[1..]).arg("true").status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("unshare is not allowed: a name of several addresses is not tested here");
        return None;
    }
    let bind = format!("mount --bind {} /etc/hosts && exec \"$0\" \"$@\"", path.display());
    Some(unshare.into_iter().chain(["sh", "-c", &bind]).map(str::to_owned).collect())
}

/// Our binary with nothing of this process's configuration.
pub(crate) fn kubervisor<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubervisor"));
    let ours =
        |name: &String| name.starts_with("KONTROL_") || name.starts_with("KUBERVISOR_") || name == "PODS";
    std::env::vars().map(|(name, _)| name).filter(ours).for_each(|name| {
        command.env_remove(name);
    });
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    process: Child,
}

impl Agent {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id().expect("it runs")).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(CAP, self.process.wait()).await.expect("the agent ends in time").unwrap()
    }
}
