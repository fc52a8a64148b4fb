//! A real `kubervisor run` process: its port, its probes, what it uses, its end.
#![allow(dead_code, unreachable_pub, reason = "several binaries share it, none uses all")]

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// How a master is started; [`start`](Recipe::start) does it.
#[derive(Clone, Debug)]
pub struct Recipe {
    id: String,
    variables: Vec<(String, String)>,
}

impl Recipe {
    /// A master of that name with an embedded store of its own, and everything else at its default.
    pub fn master(id: &str) -> Self {
        Self { id: id.to_owned(), variables: Vec::new() }
    }

    /// Sets a variable.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Starts it and waits until it takes keepalives.
    pub fn start(&self) -> io::Result<Running> {
        let directory = tempfile::tempdir()?;
        let (port, probes) = (free(address())?, free(Ipv4Addr::LOCALHOST)?);
        let log = File::create(directory.path().join("log"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_kubervisor"))
            .arg("run")
            .env("KONTROL_MODE", "master")
            .env("KONTROL_ID", &self.id)
            .env("KONTROL_IP", port.ip().to_string())
            .env("KONTROL_PORT", port.port().to_string())
            .env("KONTROL_LABELS", r#"{"app":"shop","role":"master"}"#)
            .env("KONTROL_USER", "")
            .env("KUBERVISOR_ADDR", probes.to_string())
            .env("KUBERVISOR_ADMIN_ADDR", "off")
            .env("KUBERVISOR_STORE", format!("embedded:{}", directory.path().join("store.redb").display()))
            .env("RUST_LOG", "warn")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut running = Running { child, port, probes, directory };
        running.wait_until_ready()?;
        Ok(running)
    }
}

/// An address in 127/8 that nobody else in this process, and hardly anybody on this host, uses.
fn address() -> Ipv4Addr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 0x80, low, 1 + COUNT.fetch_add(1, Ordering::Relaxed) % 250)
}

fn free(ip: Ipv4Addr) -> io::Result<SocketAddr> {
    TcpListener::bind((ip, 0))?.local_addr()
}

/// A process of ours.
pub struct Running {
    child: Child,
    /// Where it takes keepalives.
    pub port: SocketAddr,
    probes: SocketAddr,
    directory: TempDir,
}

impl Running {
    fn wait_until_ready(&mut self) -> io::Result<()> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            if self
                .get("/ready")
                .is_ok_and(|answer| answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"))
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the master ended: {status}\n{}", self.log())));
            }
            pause(Duration::from_millis(10));
        }
        Err(io::Error::other(format!("the master did not become ready\n{}", self.log())))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// A directory that lives as long as it does.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.probes)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: probes\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The sum over all labels of one metric (its name without the prefix).
    pub fn metric(&self, name: &str) -> io::Result<f64> {
        let whole = format!("kubervisor_{name}");
        let answer = self.get("/metrics")?;
        let rows = answer.lines().filter_map(|line| line.strip_prefix(&whole));
        let rows = rows.filter(|rest| rest.starts_with([' ', '{']));
        Ok(rows.filter_map(|row| row.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Waits until that metric is at least `least`.
    pub fn wait_for(&self, name: &str, least: f64, cap: Duration) -> io::Result<()> {
        let began = Instant::now();
        while self.metric(name)? < least {
            if began.elapsed() > cap {
                let found = self.metric(name)?;
                return Err(io::Error::other(format!("{name} is {found}, not {least}\n{}", self.log())));
            }
            pause(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Processor time that it has used, its ended children not included.
    pub fn processor_time(&self) -> io::Result<Duration> {
        processor_time(self.child.id())
    }

    /// Memory that is in RAM, in bytes.
    pub fn resident(&self) -> io::Result<u64> {
        resident(self.child.id())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<()> {
        self.child.wait().map(drop)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Processor time of any process.
pub fn processor_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    // The kernel reports hundredths of a second to user space, whatever its own tick.
    Ok(Duration::from_millis(ticks * 10))
}

/// Memory of any process that is in RAM, in bytes.
pub fn resident(pid: u32) -> io::Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most that it had in RAM so far, in bytes; 0 after its end.
pub fn peak(pid: u32) -> io::Result<u64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}

/// Waits. The clients of real processes are plain threads: there is no virtual time for them.
#[allow(clippy::disallowed_methods, reason = "no runtime thread waits here")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
