//! Validated configuration: `KONTROL_*` and `KUBERVISOR_*` read once, into types that only hold valid settings.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use self::environment::Environment;
use crate::exit::Exit;

pub mod address;
mod endpoints;
pub mod environment;
pub mod flags;
pub mod hosted;
mod identity;
mod mode;
pub mod reading;
pub mod store;
#[cfg(test)]
mod tests;
pub mod variables;

/// The variables of this process with `flags` over them; a misspelt setting is logged.
///
/// # Errors
/// [`Exit::Usage`] for a variable of ours that is not UTF-8.
pub fn environment(flags: &flags::Flags) -> Result<Environment, Exit> {
    let mut env = Environment::of_process()?;
    for (name, value) in flags.as_variables() {
        env.set(&name, &value);
    }
    for name in variables::unknown(env.names()) {
        tracing::warn!("{name} is set, but there is no such setting; see docs/configuration.md");
    }
    Ok(env)
}

/// Whether this process runs in a pod with a service account.
pub fn in_pod(env: &Environment) -> bool {
    env.get("KUBERNETES_SERVICE_HOST").is_some() && Path::new(SERVICE_ACCOUNT).join("token").exists()
}

/// The namespace of this process's pod, from its service account; `None` outside a pod.
pub fn pod_namespace() -> Option<String> {
    let namespace = std::fs::read_to_string(Path::new(SERVICE_ACCOUNT).join("namespace")).ok()?;
    Some(namespace.trim().to_owned()).filter(|namespace| !namespace.is_empty())
}

/// Where a pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Metadata of this process's pod, as a role reads it from the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// `metadata.name`.
    pub name: String,
    /// `status.podIPs`, in their order.
    pub addresses: Vec<String>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
}

/// A process that takes part in an ensemble: an agent, a master, or both.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this process is.
    pub identity: Identity,
    /// The keepalive port (an agent listens too: for commands).
    pub listen: Listen,
    /// Sends keepalives.
    pub agent: Option<AgentConfig>,
    /// Keeps the ensemble.
    pub master: Option<MasterConfig>,
}

/// Identity of a process: from the variables, else from its pod's metadata.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `NAMESPACE`, default `default`.
    pub namespace: String,
    /// `KONTROL_ID`: the pod's name.
    pub id: String,
    /// `KONTROL_IP`: the pod's IPv4 address.
    pub ip: Ipv4Addr,
    /// The label `app`.
    pub app: String,
    /// The label `role`.
    pub role: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The keepalive port and its limits.
#[derive(Clone, Debug)]
pub struct Listen {
    /// `KONTROL_BIND`:`KONTROL_PORT`.
    pub address: SocketAddr,
    /// `KUBERVISOR_MAX_CONNECTIONS`, default 16384.
    pub max_connections: usize,
    /// `KUBERVISOR_MAX_CONNECTIONS_PER_PEER`, default 4096.
    pub max_per_peer: usize,
    /// `KUBERVISOR_KEEPALIVE_TRUSTED`: exempt from the per-peer limit, and allowed to send keepalives of other addresses.
    pub trusted: Vec<IpNet>,
    /// Idle connections are closed after max(2 TTL, 60 s).
    pub idle: Duration,
}

/// Settings of an agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The masters; each gets every keepalive.
    pub masters: Vec<MasterTarget>,
    /// `KONTROL_PING`, default TTL/3.
    pub ping_every: Duration,
    /// Deadline of a keepalive, min(TTL/6, 2 s); then the agent reconnects and retries at once.
    pub ping_deadline: Duration,
    /// `KONTROL_PAYLOAD`.
    pub payload: Option<PathBuf>,
    /// `KONTROL_PAYLOAD_MAX_AGE`; `None` is no limit.
    pub payload_max_age: Option<Duration>,
    /// `KONTROL_INVOKE`: which commands run here.
    pub invoke: InvokePolicy,
    /// The user of those commands.
    pub user: RunAs,
}

/// One master, as an agent reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterTarget {
    /// Host name or address, resolved anew at each connect.
    pub host: String,
    /// Port, default our own.
    pub port: u16,
    /// `ZeroRPC` or HTTP.
    pub dialect: Dialect,
}

impl fmt::Display for MasterTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.dialect {
            Dialect::ZeroRpc => "",
            Dialect::Http => "http://",
        };
        write!(f, "{scheme}{}:{}", self.host, self.port)
    }
}

/// The wire dialect of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// ZMTP 3 and msgpack (default).
    ZeroRpc,
    /// `PUT /ping` (a target written `http://host`).
    Http,
}

/// `KONTROL_INVOKE`: which commands an agent runs.
#[derive(Clone, Debug)]
pub enum InvokePolicy {
    /// None.
    Off,
    /// Those signed by the holder of the private key.
    Signed {
        /// `KONTROL_INVOKE_PUBKEY_FILE`: PEM, SPKI.
        public_key: PathBuf,
        /// `KONTROL_INVOKE_ALLOW`: only the commands named in this file.
        allow: Option<PathBuf>,
    },
    /// Any caller's, as in the original; a warning is logged at each start.
    Open(Option<PathBuf>),
}

/// Settings of a master.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// `KONTROL_TTL`, default 25 s.
    pub ttl: Duration,
    /// Expected interval of keepalives: a newcomer on a live key is accepted once its holder has missed two.
    pub ping_every: Duration,
    /// `KONTROL_DAMPER`, default 10 s; the maximum wait is ten times that.
    pub damper: Duration,
    /// `KONTROL_FOVER`, default 60 s: the leader's lease.
    pub lease: Duration,
    /// `KONTROL_CALLBACK`.
    pub callback: Option<CallbackConfig>,
    /// `KUBERVISOR_STORE`, `KONTROL_ETCD`.
    pub store: StoreConfig,
    /// `KUBERVISOR_POLICY`.
    pub policy: Option<PathBuf>,
    /// Sources of metrics that the policy may name.
    pub sources: Option<PathBuf>,
    /// `KUBERVISOR_ENDPOINTS`.
    pub endpoints: Option<EndpointsConfig>,
    /// A keepalive must come from the address that it names, or from a trusted network, because traffic depends on it.
    pub own_address_only: bool,
    /// `--dry-run`: decide and report, do not write the endpoints file.
    pub dry_run: bool,
    /// `--addr`: `/metrics /live /ready`; `None` is off.
    pub addr: Option<SocketAddr>,
    /// `--admin-addr`: the other pages; `None` is off.
    pub admin_addr: Option<SocketAddr>,
}

/// Settings of the callback.
#[derive(Clone, Debug)]
pub struct CallbackConfig {
    /// The command.
    pub command: CommandLine,
    /// `KONTROL_CALLBACK_TIMEOUT`, default 60 s.
    pub timeout: Duration,
    /// Its user.
    pub user: RunAs,
}

/// A command as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Program and arguments, split on spaces. Never empty.
    Words(Vec<String>),
    /// A line for `/bin/sh -c` (`KONTROL_SHELL_CALLBACK=TRUE`).
    Shell(String),
}

/// `KONTROL_USER`: the user of callbacks and commands when this process is root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAs {
    /// Unset: `kontrol` if that user exists and this process is root, else our own, with one warning.
    KontrolIfThere,
    /// This user; a configuration error where it does not exist.
    User(String),
    /// Set and empty: our own user.
    Ourselves,
}

/// The store of leadership and records.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// `embedded:PATH`: one process, one crash-safe file.
    Embedded(PathBuf),
    /// `etcd:...`.
    Etcd(EtcdConfig),
    /// `kubernetes:NAMESPACE`: Leases and ConfigMaps.
    Kubernetes(KubernetesConfig),
}

/// Where the Leases and records are, and how the API server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// The namespace of the objects.
    pub namespace: String,
    /// The kubeconfig; without it those of `KUBECONFIG`, or the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The API server's URL, in place of the kubeconfig's.
    pub server: Option<String>,
}

/// Addresses, login and certificates of etcd: `KUBERVISOR_ETCD_{USER,PASSWORD_FILE,CA_FILE,CERT_FILE,KEY_FILE}`.
#[derive(Clone, Debug, Default)]
pub struct EtcdConfig {
    /// `http(s)://host:port`, at least one.
    pub endpoints: Vec<String>,
    /// User, and the file of the password.
    pub login: Option<(String, PathBuf)>,
    /// PEM of the CA that signed the servers' certificates.
    pub ca: Option<PathBuf>,
    /// PEM files of a client certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// The endpoints file.
#[derive(Clone, Debug)]
pub struct EndpointsConfig {
    /// `KUBERVISOR_ENDPOINTS`.
    pub path: PathBuf,
    /// `KUBERVISOR_ENDPOINTS_FORMAT`, default plain.
    pub format: EndpointsFormat,
    /// `KUBERVISOR_TARGET_PORT` or `KUBERVISOR_TARGET_PORT_POINTER`.
    pub port: TargetPort,
    /// `KUBERVISOR_ENDPOINTS_ROLES`: empty means all.
    pub roles: Vec<String>,
    /// `KUBERVISOR_FLEET_SIZE`.
    pub fleet_size: Option<u32>,
    /// `KUBERVISOR_ENDPOINTS_COMMAND`: runs after each write.
    pub command: Option<CommandLine>,
    /// The user of that command.
    pub user: RunAs,
    /// `KUBERVISOR_ENDPOINTS_IN_PLACE`: written into instead of replaced.
    pub in_place: bool,
}

/// Formats of the endpoints file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum EndpointsFormat {
    /// One `ip:port` per line.
    Plain,
    /// Envoy's EDS resource file.
    Envoy,
    /// Prometheus' file-based discovery.
    FileSd,
    /// An include of `server ip:port;` lines.
    Nginx,
}

/// Source of a pod's traffic port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// The same for all.
    Fixed(u16),
    /// The integer at this JSON pointer (RFC 6901) of the payload.
    Pointer(String),
}
