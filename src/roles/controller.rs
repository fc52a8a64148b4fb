//! `kubervisor controller`: KubervisorServices in a cluster.
//!
//! Watches the cluster and runs a worker with a gate for each resource. A withdrawal is a label on a pod; the ledger is in
//! the resource's status. Several controllers share the resources (`sharing`, `roles::cluster`); the ledger's
//! compare-and-swap protects the fleet whatever they believe.
//!
//! | file | content |
//! |---|---|
//! | `deps` | dependencies that all parts share |
//! | `registry` | a worker for each resource; which workers a change wakes |
//! | `sharing` | which resources are this process's, among several |
//! | `overlap` | two resources over the same pods |
//! | `worker` | one resource: its gate, breakers, finalizer and release |
//! | `worker_state` | the state that a worker's tasks share |
//! | `breaker_host` | the pods that a worker's breakers judge |
//! | `health` | problems of a resource outside its gate |
//! | `finalizer` | puts the finalizer on before anything is withheld |
//! | `release` | gives all traffic back, then takes off marks and finalizer |
//! | `release_all` | `--release`: every resource, for an uninstall |
//! | `reporter` | the gate's decisions → status and Events |
//! | `pod_notifier` | decisions → notifications of pods |
//! | `conditions` | facts → the resource's status |
//! | `event_rules` | decisions → Events |
//! | `pages` | the admin pages |

mod breaker_host;
pub mod conditions;
mod deps;
pub mod event_rules;
mod finalizer;
mod health;
mod key;
mod overlap;
mod pages;
mod pod_notifier;
mod registry;
mod release;
mod release_all;
mod reporter;
mod scopes;
mod sharing;
mod spec;
mod worker;
mod worker_state;

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{
    deps::Deps,
    pages::{ControllerPages, StatusSnapshots},
    registry::Registry,
    release_all::Controllers,
};
use super::{
    breaker::AskerMetrics,
    cluster::{Sharing, SharingOptions},
    gate::metrics::GateMetrics,
    master::HostedMaster,
    view::exposed::ViewArgs,
};
use crate::{
    adapters::kubernetes::{
        cluster::{Cluster, WatchScope},
        connect::{self, ConnectOptions},
        events::{EventMetrics, EventRecorder, EventSettings},
        reviews::Reviewer,
    },
    adapters::notify::{Loopback, Notifier, NotifyMetrics},
    admin,
    api::OperatorSources,
    config::{address::serving_or_off, environment::Environment, hosted},
    core_task::until_stopped,
    exit::{Exit, chain},
    runtime::{self, AdminPorts, Runtime},
};

/// Arguments of `controller`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to reach the API server; without it KUBECONFIG, or in a pod its service account.
    #[arg(long, env = "KUBERVISOR_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The API server's URL, instead of the kubeconfig's.
    #[arg(long, env = "KUBERVISOR_MASTER", value_name = "URL")]
    pub master: Option<String>,
    /// Serves /metrics, /live and /ready; `off` turns it off. Default: 127.0.0.1:8086, in a pod :8086.
    #[arg(long, env = "KUBERVISOR_ADDR", value_name = "ADDR")]
    pub addr: Option<String>,
    /// Serves everything else; `off` turns it off.
    #[arg(long, env = "KUBERVISOR_ADMIN_ADDR", value_name = "ADDR", default_value = "127.0.0.1:8087")]
    pub admin_addr: String,
    /// Logs every step.
    #[arg(long, env = "KUBERVISOR_DEBUG")]
    pub debug: bool,
    /// Works on this namespace only; may be repeated. Default: all.
    #[arg(long, env = "KUBERVISOR_NAMESPACE", value_name = "NAMESPACE", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// Takes keepalives there: the Kontrol master in the same process.
    #[arg(long, env = "KUBERVISOR_KEEPALIVES", value_name = "ADDR")]
    pub keepalives: Option<String>,
    /// Sources of metrics that the resources may name.
    #[command(flatten)]
    pub sources: runtime::SourcesArgs,
    /// Decides and reports, and changes no pod.
    #[arg(long, env = "KUBERVISOR_DRY_RUN")]
    pub dry_run: bool,
    /// Where replicas coordinate: kubernetes:NAMESPACE or etcd:HOST[:PORT][,...]. Default: in a pod its own namespace,
    /// else this process is alone.
    #[arg(long, env = "KUBERVISOR_STORE", value_name = "STORE")]
    pub store: Option<String>,
    /// Replicas of the same name share the resources.
    #[arg(long, env = "KUBERVISOR_CLUSTER_NAME", value_name = "NAME", default_value = "kubervisor")]
    pub cluster_name: String,
    /// Seconds until the others take over from a replica that does not renew its Lease.
    #[arg(long, env = "KUBERVISOR_LEASE", value_name = "SECONDS", default_value_t = 15,
        value_parser = clap::value_parser!(u64).range(3..=3600))]
    pub lease: u64,
    /// This replica's share of the resources, relative to the others'.
    #[arg(long, env = "KUBERVISOR_WEIGHT", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub weight: u32,
    /// Who else may look.
    #[command(flatten)]
    pub view: ViewArgs,
    /// An admission policy checks the names in people's requests: they are shown without "as stated".
    #[arg(long, env = "KUBERVISOR_REQUESTS_CHECKED")]
    pub requests_checked: bool,
    /// Gives all traffic back, takes marks and finalizers off, and ends; fails after so many seconds.
    #[arg(long, env = "KUBERVISOR_RELEASE", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub release: Option<u64>,
    /// With --release: first scales that Deployment to 0; when the time is up, it gets its replicas back.
    #[arg(long, env = "KUBERVISOR_RELEASE_AFTER", value_name = "NAMESPACE/DEPLOYMENT", requires = "release")]
    pub release_after: Option<String>,
}

impl Args {
    fn scope(&self) -> WatchScope {
        match &self.namespace[..] {
            [] => WatchScope::All,
            namespaces => WatchScope::Namespaces(namespaces.to_vec()),
        }
    }

    fn sharing(&self, addr: Option<SocketAddr>) -> SharingOptions {
        SharingOptions {
            name: self.cluster_name.clone(),
            lease: Duration::from_secs(self.lease),
            weight: self.weight,
            port: addr.map_or(0, |addr| addr.port()),
            namespaces: self.namespace.clone(),
        }
    }
}

/// Runs until a signal stops it.
///
/// # Errors
/// 2 for wrong usage or configuration, 1 when the process cannot go on.
pub async fn run(args: Args) -> Result<(), Exit> {
    let stop = CancellationToken::new();
    runtime::stop_on_signals(&stop)?;
    let addr = address(args.addr.as_deref().unwrap_or(default_addr()), "--addr (KUBERVISOR_ADDR)")?;
    let admin_addr = address(&args.admin_addr, "--admin-addr (KUBERVISOR_ADMIN_ADDR)")?;
    let sources = args.sources.read()?;
    let mut ports = AdminPorts::bind(addr, admin_addr).await?;
    ports.names = args.view.names();
    let view = args.view.bind().await?;
    let options = ConnectOptions {
        kubeconfig: args.kubeconfig.clone(),
        server: args.master.clone(),
        ..ConnectOptions::default()
    };
    let Some(client) = stop.run_until_cancelled(connect::client(&options)).await else { return Ok(()) };
    let client = client.map_err(|error| Exit::Usage(chain(&error)))?;
    let limit = args.release.map(Duration::from_secs);
    let controllers = match (&args.release_after, limit) {
        (Some(named), Some(limit)) => Controllers::stop(&client, named, limit).await?,
        _ => None,
    };
    let process = Runtime::start();
    let env = environment(&args)?;
    let hosted = start_master(&args, &env, &process, &stop).await?;
    let sharing = Sharing::read(&args.sharing(addr), &env)?;
    let deps = Arc::new(dependencies(&args, hosted.as_ref(), sources, client, process, stop)?);
    ports.exposed = view.map(|view| view.reviewed_by(Reviewer::new(deps.client.clone())));
    let serving = serve(Arc::clone(&deps), ports, hosted, sharing);
    match limit {
        Some(limit) => release_all::run(&deps, serving, limit, controllers).await,
        None => serving.await,
    }
}

/// What the parts of the controller share; starts the watches and the writer of Events.
fn dependencies(
    args: &Args,
    hosted: Option<&HostedMaster>,
    sources: OperatorSources,
    client: kube::Client,
    process: Runtime,
    stop: CancellationToken,
) -> Result<Deps, Exit> {
    Ok(Deps {
        cluster: Cluster::start(client.clone(), &args.scope(), &process.alarms, &stop),
        gate_metrics: process.metrics.with_registry(GateMetrics::register),
        asker_metrics: process.metrics.with_registry(AskerMetrics::register),
        events: EventRecorder::start(EventSettings {
            client: client.clone(),
            reporting_controller: "kubervisor",
            reporting_instance: instance(),
            clock: process.clock,
            metrics: process.metrics.with_registry(EventMetrics::register),
            stop: stop.clone(),
        }),
        live: hosted.map(HostedMaster::live),
        timing: hosted.map(HostedMaster::timing),
        sources,
        dry_run: args.dry_run && args.release.is_none(),
        releasing: args.release.is_some(),
        replicas: OnceLock::new(),
        requests_checked: args.requests_checked,
        notifier: notifier(&client, &process)?,
        limiter: Arc::default(),
        process,
        client,
        stop,
    })
}

fn notifier(client: &kube::Client, process: &Runtime) -> Result<Notifier, Exit> {
    let metrics = process.metrics.with_registry(NotifyMetrics::register);
    Notifier::new(client.clone(), metrics, Loopback::Refused)
        .map_err(|error| Exit::Failed(anyhow::Error::new(error).context("cannot set up notifications")))
}

async fn serve(
    deps: Arc<Deps>,
    ports: AdminPorts,
    hosted: Option<HostedMaster>,
    sharing: Option<Sharing>,
) -> Result<(), Exit> {
    let snapshots = Arc::new(StatusSnapshots::default());
    let master = hosted.as_ref().map(HostedMaster::views);
    let pages_of =
        Arc::new(ControllerPages { deps: Arc::clone(&deps), snapshots: Arc::clone(&snapshots), master });
    let mut serving = JoinSet::new();
    let views: Arc<dyn admin::Views> = pages_of;
    ports.serve(&views, &deps.process, &mut serving, &deps.stop);
    let events = deps.events.clone();
    let events = async move { events.ended().await };
    serving.spawn(until_stopped(&deps.process.alarms, "the writer of Events", &deps.stop, events));
    let mut joined = Ok(());
    let work = async {
        if deps.stop.run_until_cancelled(deps.cluster.until_resources_known()).await.is_none() {
            return;
        }
        // Only now: the others hand work over to a member that can begin at once.
        joined = join(&deps, sharing).await;
        match &joined {
            Ok(()) => Registry::new(Arc::clone(&deps), snapshots).run().await,
            Err(_) => deps.stop.cancel(),
        }
        if let Some(replicas) = deps.replicas.get() {
            replicas.leave().await;
        }
    };
    let work = until_stopped(&deps.process.alarms, "the registry of services", &deps.stop, work);
    let ((), ended) = tokio::join!(work, deps.process.ended(&deps.stop));
    tracing::info!("stopping");
    if let Some(hosted) = hosted {
        hosted.stop().await;
    }
    deps.events.ended().await;
    while serving.join_next().await.is_some() {}
    joined.and(ended)
}

/// Takes part in the sharing, where it is configured.
async fn join(deps: &Deps, sharing: Option<Sharing>) -> Result<(), Exit> {
    if let Some(sharing) = sharing {
        let replicas = sharing.join(&deps.process).await?;
        let _set_once = deps.replicas.set(Arc::new(replicas));
    }
    Ok(())
}

/// The variables that the store and the hosted master are configured by, with those that flags set.
fn environment(args: &Args) -> Result<Environment, Exit> {
    let mut env = hosted::environment(&[
        ("KUBERVISOR_STORE", args.store.as_deref().map(OsStr::new)),
        ("KUBERVISOR_KUBECONFIG", args.kubeconfig.as_deref().map(Path::as_os_str)),
        ("KUBERVISOR_MASTER", args.master.as_deref().map(OsStr::new)),
    ])?;
    env.set_if_unset("KONTROL_FOVER", &args.lease.to_string());
    Ok(env)
}

async fn start_master(
    args: &Args,
    env: &Environment,
    process: &Runtime,
    stop: &CancellationToken,
) -> Result<Option<HostedMaster>, Exit> {
    let Some(text) = &args.keepalives else { return Ok(None) };
    let address = hosted::address(text)
        .map_err(|error| Exit::Usage(format!("--keepalives (KUBERVISOR_KEEPALIVES) is {text:?}: {error}")))?;
    let config = runtime::hosted_configuration(env, address).await?;
    HostedMaster::start(&config, process, stop).await.map(Some)
}

/// Loopback, or in a pod all addresses, so that the cluster can scrape it.
fn default_addr() -> &'static str {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() { ":8086" } else { "127.0.0.1:8086" }
}

/// `None` for `off`. `:PORT` binds all addresses, as in the original.
fn address(text: &str, setting: &str) -> Result<Option<SocketAddr>, Exit> {
    let wrong = || format!("{setting} is {text:?}; write IP:PORT, :PORT or off, for example 127.0.0.1:8086");
    serving_or_off(text).ok_or_else(|| Exit::Usage(wrong()))
}

/// `reportingInstance` of the Events: the host name, which in a pod is the pod's name.
fn instance() -> String {
    std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "kubervisor".to_owned())
}
