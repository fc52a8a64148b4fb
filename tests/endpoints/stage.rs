//! Fixtures: configurations, projections, processes that end with their test, and waiting for a condition.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kubervisor::{
    adapters::sink::endpoints::Projection,
    config::{CommandLine, EndpointsConfig, EndpointsFormat, RunAs, TargetPort},
};

/// The longest that any condition is waited for.
pub(crate) const CAP: Duration = Duration::from_secs(20);

pub(crate) fn config(path: &Path, format: EndpointsFormat, command: Option<String>) -> EndpointsConfig {
    EndpointsConfig {
        path: path.to_owned(),
        format,
        port: TargetPort::Fixed(80),
        roles: Vec::new(),
        fleet_size: None,
        command: command.map(CommandLine::Shell),
        user: RunAs::Ourselves,
        in_place: false,
    }
}

pub(crate) fn listing<A: ToString>(addresses: impl IntoIterator<Item = A>) -> Projection {
    let addresses = addresses.into_iter().map(|address| address.to_string().parse().unwrap()).collect();
    Projection { addresses, all_said_down: false }
}

/// Waits until `holds`, without blocking the runtime.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < CAP, "waited {CAP:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A free address, for a server that cannot choose its port.
pub(crate) fn free_address(ip: [u8; 4]) -> SocketAddrV4 {
    let ip = Ipv4Addr::from(ip);
    let port = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
    SocketAddrV4::new(ip, port)
}

/// A server process that is killed when its test ends.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {program} ({error}): run scripts/need test"));
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // TERM first, on which nginx's master ends its workers.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let begun = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(3) {
            std::thread::yield_now();
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `GET path`, HTTP/1.0: status and body; `None` without a response.
pub(crate) fn get(address: SocketAddrV4, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: fleet\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split_whitespace().nth(1)?.parse().ok()?, body.to_owned()))
}
