//! The stage: a loopback network, a directory, and all processes.
//!
//! Every address is in one random 127.x.y.0/24 whose ports are free, so that several demos can run at the same time.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use futures::future;

use super::{
    app::Fault,
    child::{Child, ChildSpec},
    client,
    janitor::Janitor,
    masters::{ENSEMBLES, HOSTS, Masters, PODS, etcd_is_installed},
};

/// How many apps there are.
pub(super) const APPS: usize = 12;
/// `KONTROL_TTL`.
pub(super) const TTL: Duration = Duration::from_secs(6);
/// `KONTROL_DAMPER`.
pub(super) const DAMPER: Duration = Duration::from_millis(200);
/// `evaluationPeriod` of both breakers.
pub(super) const EVALUATION: Duration = Duration::from_millis(500);
/// How many come back at once.
pub(super) const BATCH: usize = 2;
/// The error rate that one breaker never accepts.
pub(super) const BROKEN: f64 = 0.6;

const NAMESPACE: &str = "default";
const SERVICE: &str = "shop";
/// Networks that are tried.
const ATTEMPTS: usize = 50;

/// The gate's policy.
pub(super) const POLICY: &str = "\
apiVersion: kubervisor.k8s.io/v1alpha1
kind: KubervisorService
metadata:
  name: shop
spec:
  service: shop
  panicThreshold: 50
  defaultActivator: {mode: periodic, period: 3, batch: 2}
  breakers:
    - name: unlike-its-peers
      evaluationPeriod: 0.5
      minPodsAvailableRatio: 50
      outlier:
        pointer: /errorRate
        minDeviation: 0.1
        consecutive: {of: 3, bad: 2}
    - name: broken
      evaluationPeriod: 0.5
      minPodsAvailableRatio: 50
      keepalive:
        pointer: /errorRate
        max: 0.6
";

/// The callback: counts its runs in STATE and remembers since when, so that a lost STATE shows.
const CALLBACK: &str = r#"
field() { printf '%s' "$STATE" | sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"; }
runs=$(field runs); born=$(field born)
printf '{"runs":%d,"born":%d}\n' $((${runs:-0} + 1)) "${born:-$(date +%s%N)}""#;

/// One port for each kind of listener: their addresses differ.
#[derive(Clone, Copy, Debug)]
struct Ports {
    kontrol: u16,
    app: u16,
    probes: u16,
    admin: u16,
    etcd: u16,
    etcd_peer: u16,
}

/// A free network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    prefix: [u8; 3],
    ports: Ports,
}

/// One app and its agent.
struct AppUnit {
    address: SocketAddrV4,
    specs: [ChildSpec; 2],
    running: Vec<Child>,
}

/// All processes but ourselves.
pub(super) struct Stage {
    directory: PathBuf,
    network: Network,
    apps: Vec<AppUnit>,
    master: ChildSpec,
    running_master: Option<Child>,
    /// The masters of the last act; `None` where etcd is not installed.
    pub(super) masters: Option<Masters>,
    client: reqwest::Client,
    janitor: Option<Janitor>,
}

/// Addresses and paths of the demo.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// The apps, in order.
    pub(super) apps: Vec<SocketAddrV4>,
    /// The endpoints file.
    pub(super) endpoints: PathBuf,
    /// `http://...` of the admin pages.
    pub(super) admin: String,
    /// `http://...` of metrics and probes.
    pub(super) probes: String,
    /// `http://...` of the keepalive port.
    pub(super) kontrol: String,
    /// Folder of logs and files.
    pub(super) directory: PathBuf,
}

/// An app's name.
pub(super) fn name(app: usize) -> String {
    format!("app-{:02}", app + 1)
}

impl Stage {
    /// Finds a network, makes the directory, and starts the janitor only.
    pub(super) fn set(with_policy: bool) -> anyhow::Result<Self> {
        let demo = std::env::current_exe().context("cannot find our own executable")?;
        let kubervisor = demo.with_file_name("kubervisor");
        ensure!(kubervisor.exists(), "{} is missing: build it with `cargo build`", kubervisor.display());
        let network = free_network()?;
        let directory = tempfile::Builder::new()
            .prefix("kubervisor-demo-")
            .tempdir()
            .context("cannot make a directory for the demo")?
            .keep();
        let janitor = Janitor::start(&demo, &directory).context("cannot start the janitor")?;
        std::fs::write(directory.join("policy.yaml"), POLICY).context("cannot write the policy")?;
        let apps = (0..APPS).map(|app| network.app_unit(app, [&demo, &kubervisor], &directory)).collect();
        let master = network.master(with_policy, &kubervisor, &directory);
        let masters =
            etcd_is_installed().then(|| Masters::new(network, &kubervisor, &directory)).transpose()?;
        let client = client(Duration::from_secs(2))?;
        let (running_master, janitor) = (None, Some(janitor));
        Ok(Self { directory, network, apps, master, running_master, masters, client, janitor })
    }

    pub(super) fn places(&self) -> Places {
        let Ports { kontrol, probes, admin, .. } = self.network.ports;
        let master = self.network.host(1);
        Places {
            apps: self.apps.iter().map(|app_unit| app_unit.address).collect(),
            endpoints: self.directory.join("endpoints"),
            admin: format!("http://{master}:{admin}"),
            probes: format!("http://{master}:{probes}"),
            kontrol: format!("http://{master}:{kontrol}"),
            directory: self.directory.clone(),
        }
    }

    /// Starts an app and its agent.
    pub(super) fn start_app(&mut self, app: usize) {
        if let Some(app_unit) = self.apps.get_mut(app) {
            app_unit.running = app_unit.specs.iter().map(ChildSpec::start).collect();
        }
    }

    /// Sends SIGKILL to an app and its agent.
    pub(super) async fn kill_app(&mut self, app: usize) -> anyhow::Result<()> {
        let Some(app_unit) = self.apps.get_mut(app) else { return Ok(()) };
        for gone in future::join_all(app_unit.running.drain(..).map(Child::kill)).await {
            gone?;
        }
        Ok(())
    }

    pub(super) fn start_master(&mut self) {
        self.running_master = Some(self.master.start());
    }

    /// Sends SIGKILL to the master; returns its pid.
    pub(super) async fn kill_master(&mut self) -> anyhow::Result<i32> {
        self.running_master.take().context("there is no master to kill")?.kill().await
    }

    /// A process that has ended by itself, with the end of its log.
    pub(super) fn unexpected_exit(&self) -> Option<String> {
        let all = self.apps.iter().flat_map(|app_unit| &app_unit.running).chain(&self.running_master);
        let mut dead = all.filter_map(Child::unexpected_exit);
        dead.next().or_else(|| self.masters.as_ref()?.unexpected_exit())
    }

    /// The end of the master's log, for the report of a broken promise.
    pub(super) fn master_log_tail(&self) -> String {
        self.master.log_tail()
    }

    /// Sets an app's fault.
    pub(super) async fn set_fault(&self, app: usize, fault: Fault) -> anyhow::Result<()> {
        let Some(app_unit) = self.apps.get(app) else { return Ok(()) };
        let url = format!("http://{}/fault", app_unit.address);
        let answer = self.client.put(&url).json(&fault).send().await;
        answer
            .and_then(reqwest::Response::error_for_status)
            .with_context(|| format!("cannot set the fault of {}", name(app)))?;
        Ok(())
    }

    /// Sets the fault of several apps at the same time.
    pub(super) async fn set_faults(&self, apps: &[usize], fault: Fault) -> anyhow::Result<()> {
        future::try_join_all(apps.iter().map(|&app| self.set_fault(app, fault))).await.map(|_| ())
    }

    /// STATE, as the master has persisted it.
    pub(super) async fn state(&self) -> anyhow::Result<serde_json::Value> {
        let url = format!("{}/state", self.places().kontrol);
        let answer = self.client.get(url).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    /// Ends all processes, and removes the directory.
    pub(super) async fn clear(&mut self) {
        let all = self
            .apps
            .iter_mut()
            .flat_map(|app_unit| app_unit.running.drain(..))
            .chain(self.running_master.take());
        let all: Vec<Child> = all.collect();
        future::join_all(all.into_iter().map(Child::stop)).await;
        if let Some(masters) = &mut self.masters {
            masters.stop().await;
        }
        if let Some(janitor) = self.janitor.take() {
            let _done = tokio::task::spawn_blocking(|| janitor.finish()).await;
        }
    }
}

impl Network {
    fn host(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, host)
    }

    fn app(&self, app: usize) -> Ipv4Addr {
        self.numbered(11 + app)
    }

    fn numbered(&self, host: usize) -> Ipv4Addr {
        self.host(u8::try_from(host).unwrap_or(u8::MAX))
    }

    /// Every address that will be listened on.
    fn listeners(&self) -> Vec<SocketAddrV4> {
        let Ports { kontrol, app, probes, admin, .. } = self.ports;
        let apps =
            (0..APPS).flat_map(|one| [kontrol, app].map(|port| SocketAddrV4::new(self.app(one), port)));
        let master = [kontrol, probes, admin].map(|port| SocketAddrV4::new(self.host(1), port));
        let each = (0..HOSTS).flat_map(|host| (0..ENSEMBLES.len()).map(move |ensemble| (host, ensemble)));
        let masters = each
            .flat_map(|(host, ensemble)| [self.master_address(host, ensemble), self.admin(host, ensemble)]);
        let pods = (0..ENSEMBLES.len()).flat_map(|ensemble| (0..PODS).map(move |pod| (ensemble, pod)));
        let agents = pods.map(|(ensemble, pod)| self.agent_address(ensemble, pod));
        apps.chain(master).chain(masters).chain(agents).chain(self.etcd()).collect()
    }

    /// Where etcd listens for clients, and for peers.
    pub(super) fn etcd(&self) -> [SocketAddrV4; 2] {
        [self.ports.etcd, self.ports.etcd_peer].map(|port| SocketAddrV4::new(self.host(100), port))
    }

    /// The keepalive port of an ensemble's master on a host.
    pub(super) fn master_address(&self, host: usize, ensemble: usize) -> SocketAddrV4 {
        SocketAddrV4::new(self.numbered(101 + 10 * host + ensemble), self.ports.kontrol)
    }

    /// The admin port of an ensemble's master on a host.
    pub(super) fn admin(&self, host: usize, ensemble: usize) -> SocketAddrV4 {
        SocketAddrV4::new(*self.master_address(host, ensemble).ip(), self.ports.admin)
    }

    /// The keepalive port of an ensemble's pod.
    pub(super) fn agent_address(&self, ensemble: usize, pod: usize) -> SocketAddrV4 {
        SocketAddrV4::new(self.numbered(151 + 10 * ensemble + pod), self.ports.kontrol)
    }

    fn is_free(&self) -> bool {
        // All at once: two equal addresses would each be free on their own.
        let bound: Vec<_> = self.listeners().into_iter().map(TcpListener::bind).collect();
        bound.iter().all(Result::is_ok)
    }

    /// What an agent or a master of this ensemble is called.
    pub(super) fn identity(
        &self,
        name: &str,
        ip: Ipv4Addr,
        app: &str,
        role: &str,
    ) -> Vec<(&'static str, OsString)> {
        vec![
            ("KONTROL_ID", name.into()),
            ("KONTROL_IP", ip.to_string().into()),
            ("KONTROL_PORT", self.ports.kontrol.to_string().into()),
            ("KONTROL_LABELS", format!(r#"{{"app":"{app}","role":"{role}"}}"#).into()),
            ("KONTROL_TTL", TTL.as_secs_f64().to_string().into()),
            ("KONTROL_USER", "".into()),
            ("NAMESPACE", NAMESPACE.into()),
        ]
    }

    fn app_unit(&self, app: usize, [demo, kubervisor]: [&Path; 2], directory: &Path) -> AppUnit {
        let (name, ip) = (name(app), self.app(app));
        let address = SocketAddrV4::new(ip, self.ports.app);
        let payload = directory.join(format!("{name}.json"));
        let spec = |name: &str, program: &Path, arguments: String, environment| ChildSpec {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments,
            environment,
            directory: directory.to_owned(),
        };
        let mut agent = self.identity(&name, ip, SERVICE, "web");
        let master = format!(r#"{{"kontrol.unity3d.com/master":"{}:{}"}}"#, self.host(1), self.ports.kontrol);
        agent.push(("KONTROL_MODE", "slave".into()));
        agent.push(("KONTROL_ANNOTATIONS", master.into()));
        agent.push(("KONTROL_PAYLOAD", payload.clone().into()));
        let serve = vec![("DEMO_PAYLOAD", payload.into())];
        AppUnit {
            address,
            specs: [
                spec(&name, demo, format!("app {address}"), serve),
                spec(&format!("{name}-agent"), kubervisor, "run".to_owned(), agent),
            ],
            running: Vec::new(),
        }
    }

    fn master(&self, with_policy: bool, program: &Path, directory: &Path) -> ChildSpec {
        let Ports { probes, admin, .. } = self.ports;
        let ip = self.host(1);
        let mut environment = self.identity("master", ip, SERVICE, "master");
        environment.extend([
            ("KONTROL_MODE", "master".into()),
            ("KONTROL_DAMPER", DAMPER.as_secs_f64().to_string().into()),
            ("KONTROL_CALLBACK", CALLBACK.into()),
            ("KONTROL_SHELL_CALLBACK", "TRUE".into()),
            ("KUBERVISOR_STORE", format!("embedded:{}", directory.join("store.redb").display()).into()),
            ("KUBERVISOR_ENDPOINTS", directory.join("endpoints").into()),
            ("KUBERVISOR_ENDPOINTS_FORMAT", "plain".into()),
            ("KUBERVISOR_TARGET_PORT_POINTER", "/port".into()),
            ("KUBERVISOR_ADDR", format!("{ip}:{probes}").into()),
            ("KUBERVISOR_ADMIN_ADDR", format!("{ip}:{admin}").into()),
        ]);
        if with_policy {
            environment.push(("KUBERVISOR_POLICY", directory.join("policy.yaml").into()));
        }
        let (program, directory) = (program.to_owned(), directory.to_owned());
        ChildSpec { name: "master".to_owned(), program, arguments: "run".to_owned(), environment, directory }
    }
}

/// The default ports first, because they are easy to read; random ones if something listens on all addresses.
fn free_network() -> anyhow::Result<Network> {
    for attempt in 0..ATTEMPTS {
        let drawn = getrandom::u64().context("no randomness")?.to_le_bytes();
        let [x, y, low, high, ..] = drawn;
        let base = 20_000 + u16::from_le_bytes([low, high]) % 12_000;
        let ports = if attempt < ATTEMPTS / 2 {
            Ports { kontrol: 8000, app: 8080, probes: 8086, admin: 8087, etcd: 2379, etcd_peer: 2380 }
        } else {
            Ports {
                kontrol: base,
                app: base + 1,
                probes: base + 2,
                admin: base + 3,
                etcd: base + 4,
                etcd_peer: base + 5,
            }
        };
        let network = Network { prefix: [127, x.clamp(1, 254), y], ports };
        if network.is_free() {
            return Ok(network);
        }
    }
    anyhow::bail!(
        "no free ports on any of {ATTEMPTS} loopback networks; is 127.0.0.0/8 usable on this machine?"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubervisor::api::{Context as PolicyContext, Detectors};

    #[test]
    fn a_network_is_free_until_somebody_listens_on_one_of_its_addresses() {
        let network = free_network().unwrap();
        assert_eq!(network.listeners().len(), 2 * APPS + 3 + 2 * 9 + 6 + 2);
        let taken = TcpListener::bind(network.listeners()[5]).unwrap();
        assert!(!network.is_free());
        drop(taken);
        assert!(network.is_free());
    }

    #[test]
    fn the_policy_is_what_the_figures_say() {
        let context = PolicyContext { detectors: Detectors::Keepalives, timing: None, sources: &[] };
        let manifests = kubervisor::api::parse("policy.yaml", POLICY, context).unwrap();
        let policy = &manifests[0].policy;
        assert_eq!(policy.panic_threshold, Some(50));
        assert!(policy.breakers.iter().all(|breaker| breaker.evaluation_period == EVALUATION));
        assert!(policy.breakers.iter().all(|breaker| breaker.activator.batch == u32::try_from(BATCH).ok()));
        assert!(policy.breakers.iter().all(|breaker| breaker.activator.period == Duration::from_secs(3)));
    }
}
