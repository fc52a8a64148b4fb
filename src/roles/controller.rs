//! `kubervisor controller`: KubervisorServices in a cluster.
//!
//! It watches, and for each resource a worker decides through the same gate as everywhere else; a
//! withdrawal is a label on a pod, and the ledger is in the resource's status. Any number of controllers
//! may run at once without harm: what protects a fleet is its ledger, not who runs.
//!
//! | file | step |
//! |---|---|
//! | `registry` | a worker for each resource; whom a change concerns |
//! | `overlap` | two resources over the same pods |
//! | `worker` | one resource: warden, breakers, farewell |
//! | `farewell` | everything back, marks off, finalizer last |
//! | `audience` | what a warden does, told as status and Events |
//! | `conditions` | facts → the resource's status |
//! | `announce` | decisions → Events |
//! | `views` | what people may see |

pub mod announce;
mod audience;
pub mod conditions;
mod farewell;
mod overlap;
mod registry;
mod views;
mod worker;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use axum::Router;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{
    registry::Registry,
    views::{ControllerViews, Gallery},
};
use super::{
    breaker::AskerMetrics,
    gatekeeper::metrics::GateMetrics,
    master::{HostedMaster, LiveEnsemble, Process},
    run,
};
use crate::{
    adapters::{
        kubernetes::{
            cluster::{Cluster, Scope},
            connect,
            events::{EventMetrics, EventRecorder, EventSettings},
        },
        sink::labels::Lanes,
    },
    admin,
    api::Timing,
    config::hosted,
    exit::Exit,
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
    /// Decides and reports, and changes no pod.
    #[arg(long, env = "KUBERVISOR_DRY_RUN")]
    pub dry_run: bool,
}

/// What every part of a controller shares.
pub(crate) struct Deps {
    client: kube::Client,
    cluster: Cluster,
    process: Process,
    gate_metrics: GateMetrics,
    asker_metrics: AskerMetrics,
    events: EventRecorder,
    live: Option<LiveEnsemble>,
    timing: Option<Timing>,
    dry_run: bool,
    lanes: Arc<Lanes>,
    stop: CancellationToken,
}

/// Works until told to stop.
///
/// # Errors
/// Wrong usage or configuration (2), or what made the process unable to go on (1).
pub async fn run(args: Args) -> Result<(), Exit> {
    let probes = listener(args.addr.as_deref().unwrap_or(default_addr()), "--addr (KUBERVISOR_ADDR)").await?;
    let pages = listener(&args.admin_addr, "--admin-addr (KUBERVISOR_ADMIN_ADDR)").await?;
    let client = connect::client(args.kubeconfig.as_deref(), args.master.as_deref()).await;
    let client = client.map_err(|error| Exit::Usage(error.to_string()))?;
    let stop = CancellationToken::new();
    run::stop_on_signals(&stop)?;
    let process = run::process();
    let hosted = start_master(&args, &process, &stop).await?;
    let scope =
        if args.namespace.is_empty() { Scope::All } else { Scope::Namespaces(args.namespace.clone()) };
    let deps = Arc::new(Deps {
        cluster: Cluster::start(client.clone(), &scope, process.clock, &stop),
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
        live: hosted.as_ref().map(HostedMaster::live),
        timing: hosted.as_ref().map(HostedMaster::timing),
        dry_run: args.dry_run,
        lanes: Arc::default(),
        process,
        client,
        stop,
    });
    serve(deps, probes, pages, hosted).await;
    Ok(())
}

async fn serve(
    deps: Arc<Deps>,
    probes: Option<tokio::net::TcpListener>,
    pages: Option<tokio::net::TcpListener>,
    hosted: Option<HostedMaster>,
) {
    let gallery = Arc::new(Gallery::default());
    let master = hosted.as_ref().map(HostedMaster::views);
    let views = Arc::new(ControllerViews { deps: Arc::clone(&deps), gallery: Arc::clone(&gallery), master });
    let mut serving = JoinSet::new();
    let mut show = |listener: Option<_>, router: Router| {
        if let Some(listener) = listener {
            serving.spawn(admin::serve(listener, router, deps.stop.clone()));
        }
    };
    show(probes, admin::probes(views.clone(), deps.process.metrics.clone()));
    show(pages, admin::pages(views));
    tokio::select! {
        () = deps.stop.cancelled() => {}
        () = deps.cluster.until_resources_known() => {
            Registry::new(Arc::clone(&deps), gallery).run().await;
        }
    }
    tracing::info!("stopping");
    if let Some(hosted) = hosted {
        hosted.stop().await;
    }
    deps.events.ended().await;
    while serving.join_next().await.is_some() {}
}

async fn start_master(
    args: &Args,
    process: &Process,
    stop: &CancellationToken,
) -> Result<Option<HostedMaster>, Exit> {
    let Some(text) = &args.keepalives else { return Ok(None) };
    let address = hosted::address(text)
        .map_err(|error| Exit::Usage(format!("--keepalives (KUBERVISOR_KEEPALIVES) is {text:?}: {error}")))?;
    let config = hosted::load(address).await?;
    HostedMaster::start(&config, process, stop).await.map(Some)
}

/// On loopback, unless the cluster is to scrape it.
fn default_addr() -> &'static str {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() { ":8086" } else { "127.0.0.1:8086" }
}

/// `off`, or an address; `:PORT`, as the original takes it, is all addresses.
async fn listener(text: &str, setting: &str) -> Result<Option<tokio::net::TcpListener>, Exit> {
    if text == "off" {
        return Ok(None);
    }
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let address: SocketAddr = whole.parse().map_err(|_| {
        Exit::Usage(format!("{setting} is {text:?}; write IP:PORT, :PORT or off, for example 127.0.0.1:8086"))
    })?;
    run::bind(Some(address), setting).await
}

/// Who writes Events: the pod's name, or the machine's.
fn instance() -> String {
    std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "kubervisor".to_owned())
}
