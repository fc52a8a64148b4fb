//! Three hosts of masters that share three ensembles through one etcd, for the last act.
//!
//! Each host runs one master for each ensemble. Each ensemble is led by another host, because that host's master
//! started first. A killed host takes its three masters with it: its ensemble is led by another host after the lease,
//! and the two other ensembles keep their leaders.

use std::{array::from_fn, collections::BTreeMap, env, ffi::OsString, path::Path, time::Duration};

use anyhow::{Context, ensure};
use futures::future;
use tokio::time::{Instant, sleep};

use super::{
    acts::{POLL_INTERVAL, Play, seconds},
    child::{Child, ChildSpec},
    client,
    stage::Network,
    story::Kind,
    watch::{Ensemble, page},
};

/// `KONTROL_FOVER`: the leader's lease.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// Pods of each ensemble.
pub(super) const PODS: usize = 2;
/// The ensembles, by their label `app`.
pub(super) const ENSEMBLES: [&str; 3] = ["cart", "mail", "search"];
/// Hosts of masters.
pub(super) const HOSTS: usize = 3;

/// Whether etcd is installed.
pub(super) fn etcd_is_installed() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join("etcd").is_file())
}

/// etcd, nine masters, and the agents of three ensembles.
pub(super) struct Masters {
    etcd: ChildSpec,
    masters: [[ChildSpec; ENSEMBLES.len()]; HOSTS],
    agents: Vec<ChildSpec>,
    admin: [[String; ENSEMBLES.len()]; HOSTS],
    running: Vec<Child>,
    /// The running masters of each host.
    hosts: [Vec<Child>; HOSTS],
    client: reqwest::Client,
}

/// Who leads an ensemble, and its pods.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Led {
    /// Host of the leader.
    pub(super) host: usize,
    /// Sequence number of each pod.
    pub(super) seqs: BTreeMap<String, u64>,
    /// Age of the oldest of their last keepalives.
    pub(super) oldest: Duration,
}

impl Masters {
    /// Names the processes and starts none.
    pub(super) fn new(network: Network, kubervisor: &Path, directory: &Path) -> anyhow::Result<Self> {
        let spec = |name: String, program: &Path, arguments: String, environment| ChildSpec {
            name,
            program: program.to_owned(),
            arguments,
            environment,
            directory: directory.to_owned(),
        };
        let [etcd, peer] = network.etcd();
        let data = directory.join("etcd");
        let etcd_arguments = format!(
            "--name demo --logger zap --log-level error --unsafe-no-fsync --data-dir {} \
             --listen-client-urls http://{etcd} --advertise-client-urls http://{etcd} \
             --listen-peer-urls http://{peer} --initial-advertise-peer-urls http://{peer} \
             --initial-cluster demo=http://{peer}",
            data.display()
        );
        let master = |host: usize, ensemble: usize| {
            let (app, address) = (ENSEMBLES[ensemble], network.master_address(host, ensemble));
            let name = format!("{app}-master-{}", host + 1);
            let mut environment = network.identity(&name, *address.ip(), app, "master");
            environment.extend([
                ("KONTROL_MODE", OsString::from("master")),
                ("KONTROL_FOVER", LEASE.as_secs().to_string().into()),
                ("KONTROL_DAMPER", "0.2".into()),
                ("KUBERVISOR_STORE", format!("etcd:{etcd}").into()),
                ("KUBERVISOR_ADDR", "off".into()),
                ("KUBERVISOR_ADMIN_ADDR", network.admin(host, ensemble).to_string().into()),
            ]);
            spec(name, kubervisor, "run".to_owned(), environment)
        };
        let agent = |(ensemble, pod): (usize, usize)| {
            let (app, address) = (ENSEMBLES[ensemble], network.agent_address(ensemble, pod));
            let name = format!("{app}-{}", pod + 1);
            let masters: Vec<String> =
                (0..HOSTS).map(|host| network.master_address(host, ensemble).to_string()).collect();
            let annotation = format!(r#"{{"kontrol.unity3d.com/master":"{}"}}"#, masters.join(","));
            let mut environment = network.identity(&name, *address.ip(), app, "web");
            environment.extend([
                ("KONTROL_MODE", OsString::from("slave")),
                ("KONTROL_PING", "1".into()),
                ("KONTROL_ANNOTATIONS", annotation.into()),
            ]);
            spec(name, kubervisor, "run".to_owned(), environment)
        };
        let pods = (0..ENSEMBLES.len()).flat_map(|ensemble| (0..PODS).map(move |pod| (ensemble, pod)));
        Ok(Self {
            etcd: spec("etcd".to_owned(), Path::new("etcd"), etcd_arguments, Vec::new()),
            masters: from_fn(|host| from_fn(|ensemble| master(host, ensemble))),
            agents: pods.map(agent).collect(),
            admin: from_fn(|host| from_fn(|ensemble| format!("http://{}", network.admin(host, ensemble)))),
            running: Vec::new(),
            hosts: Default::default(),
            client: client(Duration::from_secs(1))?,
        })
    }

    /// Starts etcd, the first master of each ensemble and all agents.
    pub(super) fn start_leaders(&mut self) {
        self.running.push(self.etcd.start());
        for host in 0..HOSTS {
            self.hosts[host].push(self.masters[host][host].start());
        }
        self.running.extend(self.agents.iter().map(ChildSpec::start));
    }

    /// Starts the other masters of each host.
    pub(super) fn start_others(&mut self) {
        for (host, masters) in self.masters.iter().enumerate() {
            let others = masters.iter().enumerate().filter(|(ensemble, _)| *ensemble != host);
            self.hosts[host].extend(others.map(|(_, master)| master.start()));
        }
    }

    /// Sends SIGKILL to all masters of a host.
    pub(super) async fn kill_host(&mut self, host: usize) -> anyhow::Result<()> {
        let masters = std::mem::take(&mut self.hosts[host]);
        ensure!(masters.len() == ENSEMBLES.len(), "host {} has {} masters", host + 1, masters.len());
        for killed in future::join_all(masters.into_iter().map(Child::kill)).await {
            killed?;
        }
        Ok(())
    }

    /// How many masters answer.
    async fn answering(&self) -> usize {
        let pages = self.admin.iter().flatten().map(|admin| self.ensemble(admin));
        future::join_all(pages).await.into_iter().flatten().count()
    }

    /// The leader of an ensemble, while one answers.
    async fn led(&self, ensemble: usize) -> Option<Led> {
        let pages = self.admin.iter().map(|host| self.ensemble(&host[ensemble]));
        let pages = future::join_all(pages).await;
        pages.into_iter().enumerate().find_map(|(host, page)| {
            let pods = page?.pods?;
            let oldest = pods.iter().map(|pod| pod.age_seconds).fold(0.0, f64::max);
            Some(Led {
                host,
                seqs: pods.into_iter().map(|pod| (pod.id, pod.seq)).collect(),
                oldest: Duration::try_from_secs_f64(oldest).unwrap_or_default(),
            })
        })
    }

    /// A process that has ended by itself, with the end of its log.
    pub(super) fn unexpected_exit(&self) -> Option<String> {
        self.running.iter().chain(self.hosts.iter().flatten()).find_map(Child::unexpected_exit)
    }

    /// Ends all processes.
    pub(super) async fn stop(&mut self) {
        let all = self.hosts.iter_mut().flat_map(std::mem::take).chain(self.running.drain(..).rev());
        future::join_all(all.collect::<Vec<_>>().into_iter().map(Child::stop)).await;
    }

    /// Waits until all masters answer.
    async fn all_answer(&self, deadline: Instant) -> anyhow::Result<()> {
        while self.answering().await < HOSTS * ENSEMBLES.len() {
            ensure!(Instant::now() < deadline, "only {} masters answer", self.answering().await);
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Waits until every ensemble has a leader, and they are as `wanted`.
    async fn all_led(
        &self,
        deadline: Instant,
        what: &str,
        wanted: impl Fn(&[Led]) -> bool,
    ) -> anyhow::Result<Vec<Led>> {
        loop {
            let led = future::join_all((0..ENSEMBLES.len()).map(|ensemble| self.led(ensemble))).await;
            match led.iter().cloned().collect::<Option<Vec<Led>>>() {
                Some(led) if wanted(&led) => return Ok(led),
                _ => ensure!(Instant::now() < deadline, "not so that {what}: {led:?}"),
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn ensemble(&self, admin: &str) -> Option<Ensemble> {
        page(&self.client, admin, "ensemble").await
    }
}

impl Play {
    /// The last act: the host that leads one of three ensembles is killed.
    pub(super) async fn leader_is_killed(&mut self) -> anyhow::Result<String> {
        let masters = self.stage.masters.as_mut().context("etcd is not installed")?;
        let deadline = Instant::now() + self.cap;
        masters.start_leaders();
        let all = |led: &[Led]| led.iter().all(|led| led.seqs.len() == PODS);
        masters.all_led(deadline, "each ensemble has a leader and all its pods", all).await?;
        masters.start_others();
        masters.all_answer(deadline).await?;
        let before = masters.all_led(deadline, "each ensemble has its pods", all).await?;
        let victim = before[0].host;
        let from = Instant::now();
        masters.kill_host(victim).await?;
        self.story
            .note(Kind::Fault, format!("host {} and its {HOSTS} masters: killed (SIGKILL)", victim + 1));
        let lost: Vec<usize> = (0..ENSEMBLES.len()).filter(|&one| before[one].host == victim).collect();
        let heard =
            |led: &[Led]| lost.iter().all(|&one| led[one].host != victim && led[one].oldest < from.elapsed());
        let after = masters
            .all_led(from + self.cap, "another host leads, and has keepalives of all pods", heard)
            .await?;
        let took = from.elapsed();
        let kept = before.iter().zip(&after).enumerate().filter(|(one, _)| !lost.contains(one));
        for (one, (before, after)) in kept {
            ensure!(before.host == after.host, "{} has changed its leader, too", ENSEMBLES[one]);
        }
        for (app, (before, after)) in ENSEMBLES.iter().zip(before.iter().zip(&after)) {
            ensure!(before.seqs == after.seqs, "{app}: seq was {:?} and is {:?}", before.seqs, after.seqs);
        }
        let bound = LEASE * 2 + self.machine_allowance();
        ensure!(took <= bound, "led again after {}, {} were allowed", seconds(took), seconds(bound));
        Ok(format!(
            "{} ensembles on {HOSTS} hosts: {} led by another host {} after the kill, with keepalives of all its pods \
             (lease {} s); seq of all {} pods kept; the other {} keep their leaders",
            ENSEMBLES.len(),
            ENSEMBLES[lost[0]],
            seconds(took),
            LEASE.as_secs(),
            ENSEMBLES.len() * PODS,
            ENSEMBLES.len() - lost.len(),
        ))
    }
}
