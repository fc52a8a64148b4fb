//! Variables to [`Config`]: pure, except that it reads the password file and looks up the user.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    AgentConfig, CallbackConfig, CommandLine, Config, Dialect, Identity, InvokePolicy, Listen, MasterConfig,
    MasterTarget, PodFacts, RunAs, address, endpoints,
    environment::{Environment, Reader},
    identity,
    mode::Mode,
    store,
    variables::VARIABLES,
};
use crate::exit::Exit;

/// The annotation that names the masters.
pub const MASTER_ANNOTATION: &str = "kontrol.unity3d.com/master";

/// Whether `env` leaves out something that the pod's metadata can supply.
pub fn needs_pod(env: &Environment) -> bool {
    let mut reader = Reader::new(env);
    let mode = Mode::read(&mut reader);
    identity::leaves_open(&reader, mode)
}

/// Reads `env`, with `pod` for what it leaves out; `in_pod` changes a few defaults.
///
/// # Errors
/// [`Exit::Usage`] with all complaints.
pub fn read(env: &Environment, in_pod: bool, pod: Option<&PodFacts>) -> Result<Config, Exit> {
    let mut reader = Reader::new(env);
    reader.check_texts(VARIABLES.iter().map(|variable| variable.name));
    let mode = Mode::read(&mut reader);
    let identity = identity::read(&mut reader, mode, pod);
    let port = reader.port("KONTROL_PORT").unwrap_or(8000);
    let times = Times::read(&mut reader);
    let user = user(&mut reader);
    let listen = listen(&mut reader, identity.as_ref(), port, &times);
    let agent = mode.slave.then(|| agent(&mut reader, mode, identity.as_ref(), port, &times, &user));
    let master = mode.master.then(|| master(&mut reader, mode, in_pod, identity.as_ref(), &times, &user));
    let is_whole = master.as_ref().is_none_or(Option::is_some);
    let identity = identity.filter(|_| is_whole);
    reader.finish(identity.map(|identity| Config { identity, listen, agent, master: master.flatten() }))
}

/// TTL and ping interval, from which other times are derived.
struct Times {
    ttl: Duration,
    ping: Duration,
}

impl Times {
    fn read(reader: &mut Reader<'_>) -> Self {
        let ttl = reader.seconds("KONTROL_TTL", 25.0, 0.05);
        let third = ttl.as_secs_f64() / 3.0;
        let ping = reader.seconds("KONTROL_PING", third, 0.01);
        if ping >= ttl {
            reader.complain(
                "KONTROL_PING",
                format!(
                    "not below KONTROL_TTL ({} s): every pod would expire between two pings",
                    ttl.as_secs_f64()
                ),
            );
        }
        Self { ttl, ping }
    }

    /// min(TTL/6, 2 s).
    fn ping_deadline(&self) -> Duration {
        (self.ttl / 6).min(Duration::from_secs(2))
    }

    /// max(2 TTL, 60 s).
    fn idle(&self) -> Duration {
        (self.ttl * 2).max(Duration::from_secs(60))
    }
}

fn user(reader: &mut Reader<'_>) -> RunAs {
    match reader.env.get_even_empty("KONTROL_USER") {
        None => RunAs::KontrolIfThere,
        Some("") => RunAs::Ourselves,
        Some(name) => {
            let known = nix::unistd::User::from_name(name).is_ok_and(|user| user.is_some());
            if !known {
                let instead = "no such user on this machine; create it, or write KONTROL_USER= to run commands as we are";
                reader.complain("KONTROL_USER", instead);
            }
            RunAs::User(name.to_owned())
        }
    }
}

fn listen(reader: &mut Reader<'_>, identity: Option<&Identity>, port: u16, times: &Times) -> Listen {
    let ours = identity.map(|identity| identity.ip).filter(Ipv4Addr::is_loopback);
    let bind = reader.ipv4("KONTROL_BIND").or(ours).unwrap_or(Ipv4Addr::UNSPECIFIED);
    let mut count = |name, default| reader.count(name).and_then(|n| n.try_into().ok()).unwrap_or(default);
    Listen {
        address: SocketAddr::new(IpAddr::V4(bind), port),
        max_connections: count("KUBERVISOR_MAX_CONNECTIONS", 16_384),
        max_per_peer: count("KUBERVISOR_MAX_CONNECTIONS_PER_PEER", 4_096),
        trusted: reader.networks("KUBERVISOR_KEEPALIVE_TRUSTED"),
        idle: times.idle(),
    }
}

fn agent(
    reader: &mut Reader<'_>,
    mode: Mode,
    identity: Option<&Identity>,
    port: u16,
    times: &Times,
    user: &RunAs,
) -> AgentConfig {
    let max_age = reader.seconds("KONTROL_PAYLOAD_MAX_AGE", times.ping.as_secs_f64() * 10.0, 0.0);
    AgentConfig {
        masters: masters(reader, mode, identity, port),
        ping_every: times.ping,
        ping_deadline: times.ping_deadline(),
        payload: reader.get("KONTROL_PAYLOAD").map(PathBuf::from),
        payload_max_age: Some(max_age).filter(|age| !age.is_zero()),
        invoke: invoke(reader),
        user: user.clone(),
    }
}

fn masters(reader: &mut Reader<'_>, mode: Mode, identity: Option<&Identity>, port: u16) -> Vec<MasterTarget> {
    let Some(identity) = identity else { return Vec::new() };
    let named = identity.annotations.get(MASTER_ANNOTATION).map(String::as_str).unwrap_or_default();
    let mut masters: Vec<MasterTarget> = Vec::new();
    for entry in named.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match address::master(entry, port) {
            Ok(master) if !masters.contains(&master) => masters.push(master),
            Ok(_) => {}
            Err(error) => reader.complain("KONTROL_ANNOTATIONS", format!("{MASTER_ANNOTATION}: {error}")),
        }
    }
    if named.trim().is_empty() && mode.debug {
        let host = identity::debug_host(reader).to_string();
        masters.push(MasterTarget { host, port, dialect: Dialect::ZeroRpc });
    } else if named.trim().is_empty() {
        reader.complain(
            "KONTROL_ANNOTATIONS",
            format!("names no master, and a slave needs one; write for example {{\"{MASTER_ANNOTATION}\":\"monitor\"}}"),
        );
    }
    masters
}

fn invoke(reader: &mut Reader<'_>) -> InvokePolicy {
    let public_key = reader.get("KONTROL_INVOKE_PUBKEY_FILE").map(PathBuf::from);
    let allow = reader.get("KONTROL_INVOKE_ALLOW").map(PathBuf::from);
    match (reader.get("KONTROL_INVOKE"), public_key) {
        (None, None) | (Some("off"), _) => InvokePolicy::Off,
        (None | Some("signed"), Some(public_key)) => InvokePolicy::Signed { public_key, allow },
        (Some("open"), _) => InvokePolicy::Open(allow),
        (Some("signed"), None) => {
            reader.complain(
                "KONTROL_INVOKE_PUBKEY_FILE",
                "not set, but KONTROL_INVOKE=signed needs it; write the path of the public key (PEM) that \
                 `kubervisor keygen` made",
            );
            InvokePolicy::Off
        }
        (Some(_), _) => {
            reader.complain("KONTROL_INVOKE", "write off, signed or open");
            InvokePolicy::Off
        }
    }
}

fn master(
    reader: &mut Reader<'_>,
    mode: Mode,
    in_pod: bool,
    identity: Option<&Identity>,
    times: &Times,
    user: &RunAs,
) -> Option<MasterConfig> {
    let everywhere = if in_pod { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let damper = reader.seconds("KONTROL_DAMPER", 10.0, 0.0);
    let lease = reader.seconds("KONTROL_FOVER", 60.0, 1.0);
    let callback = callback(reader, user);
    let store = store::read(reader, mode, in_pod, identity);
    let asked_for_endpoints = reader.get("KUBERVISOR_ENDPOINTS").is_some();
    let endpoints = endpoints::read(reader, user);
    let policy = reader.get("KUBERVISOR_POLICY").map(PathBuf::from);
    let sources = reader.get("KUBERVISOR_SOURCES").map(PathBuf::from);
    let dry_run = reader.switch("KUBERVISOR_DRY_RUN");
    let addr = reader.serve_on("KUBERVISOR_ADDR", SocketAddr::new(everywhere.into(), 8086));
    let admin_addr =
        reader.serve_on("KUBERVISOR_ADMIN_ADDR", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8087));
    if asked_for_endpoints && endpoints.is_none() {
        return None;
    }
    Some(MasterConfig {
        ttl: times.ttl,
        ping_every: times.ping,
        damper,
        lease,
        callback,
        store: store?,
        policy,
        sources,
        own_address_only: endpoints.is_some(),
        endpoints,
        dry_run,
        addr,
        admin_addr,
    })
}

fn callback(reader: &mut Reader<'_>, user: &RunAs) -> Option<CallbackConfig> {
    let timeout = reader.seconds("KONTROL_CALLBACK_TIMEOUT", 60.0, 0.01);
    let line = reader.get("KONTROL_CALLBACK").filter(|line| !line.trim().is_empty())?;
    let shell = reader.get("KONTROL_SHELL_CALLBACK").unwrap_or_default();
    let command = if shell == "TRUE" {
        CommandLine::Shell(line.to_owned())
    } else {
        if !shell.is_empty() {
            tracing::warn!(
                "KONTROL_SHELL_CALLBACK={shell:?} has no effect: the callback is split on spaces; write TRUE for the shell"
            );
        }
        CommandLine::Words(line.split_whitespace().map(str::to_owned).collect())
    };
    Some(CallbackConfig { command, timeout, user: user.clone() })
}
