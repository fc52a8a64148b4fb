//! What every long-running role needs from its process: clocks, alarms, metrics, signals, ports, configuration.
//!
//! Master and controller use the same functions, so that a flag, a signal or a taken port means the same in both.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Router,
    extract::connect_info::Connected,
    middleware,
    serve::{IncomingStream, Listener},
};
use nix::libc;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    adapters::{
        pod_metadata::{self, PodMetadataError},
        process::{become_subreaper, resolve_user},
        store::Member,
        wire::{self, Server},
    },
    admin::{self, Peer},
    alarms::Alarms,
    api::{self, OperatorSources},
    clock::Clock,
    config::{self, Config, Listen, PodFacts, RunAs, environment::Environment, flags::Flags},
    core_task::until_stopped,
    exit::Exit,
    memory,
    metrics::Metrics,
    roles::view::{
        View,
        exposed::ExposedView,
        guard::{HostNames, guard},
        listener::PageListener,
    },
};

/// Longest orderly stop of a process in which a core task has failed.
const STOP_AFTER_FAILURE: Duration = Duration::from_secs(15);

/// Clocks, alarms and the metrics registry of one process; clones share them.
#[derive(Clone)]
pub struct Runtime {
    /// Monotonic and wall clock.
    pub clock: Clock,
    /// The alarms that `/services` and `kubervisor_alarm` show.
    pub alarms: Alarms,
    /// The registry behind `/metrics`.
    pub metrics: Metrics,
}

impl Runtime {
    /// Starts the clocks, with no alarm raised.
    pub fn start() -> Self {
        let clock = Clock::start();
        let alarms = Alarms::new(clock);
        let metrics = Metrics::new(&alarms);
        Self { clock, alarms, metrics }
    }

    /// Waits for `stop`, or until a task ends without which the process does not do its work; meanwhile memory that is
    /// freed goes back to the system.
    ///
    /// # Errors
    /// [`Exit::Failed`] names that task; `stop` is cancelled then too.
    pub async fn ended(&self, stop: &CancellationToken) -> Result<(), Exit> {
        let why = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            why = self.alarms.fatal() => why,
            never = memory::return_unused() => match never {},
        };
        stop.cancel();
        // What has failed may also keep the stop from its end.
        tokio::spawn(async {
            tokio::time::sleep(STOP_AFTER_FAILURE).await;
            std::process::exit(1);
        });
        Err(Exit::Failed(anyhow::anyhow!(why)))
    }

    /// Binds the keepalive port.
    ///
    /// # Errors
    /// [`Exit::Usage`] when the port is taken or not allowed.
    pub fn keepalive_port(&self, listen: &Listen) -> Result<Server, Exit> {
        let metrics = self.metrics.with_registry(wire::WireMetrics::register);
        Server::bind(listen, metrics).map_err(|error| Exit::Usage(error.to_string()))
    }
}

/// The operator's sources.
#[derive(Debug, clap::Args)]
pub struct SourcesArgs {
    /// Sources of metrics that resources may name, with credentials from files.
    #[arg(long, env = "KUBERVISOR_SOURCES", value_name = "FILE")]
    pub sources: Option<PathBuf>,
}

impl SourcesArgs {
    /// # Errors
    /// As of [`sources`].
    pub fn read(&self) -> Result<OperatorSources, Exit> {
        sources(self.sources.as_deref())
    }
}

/// The operator's sources of metrics. They live as long as the process.
///
/// # Errors
/// [`Exit::Usage`] with all mistakes of the file.
pub fn sources(file: Option<&Path>) -> Result<OperatorSources, Exit> {
    let Some(file) = file else { return Ok(&[]) };
    let found = api::load_sources(file);
    let found = found.map_err(|problems| Exit::Usage(format!("sources refused\n{problems}")))?;
    Ok(found.leak())
}

/// The first TERM or INT cancels `stop`, as HUP does; a second one ends the process at once with exit code 1.
///
/// USR1, USR2, PIPE and ALRM, whose default is to end a process, do nothing. They have handlers and are not ignored,
/// because children inherit what is ignored. A HUP that was ignored at the start (`nohup`) stays so.
///
/// # Errors
/// [`Exit::Failed`] when the handlers cannot be installed.
pub fn stop_on_signals(stop: &CancellationToken) -> Result<(), Exit> {
    let installed = |kind| signal(kind).map_err(|error| Exit::Failed(anyhow::Error::new(error)));
    for kind in
        [SignalKind::user_defined1(), SignalKind::user_defined2(), SignalKind::pipe(), SignalKind::alarm()]
    {
        // A handler stays when its stream is dropped.
        drop(installed(kind)?);
    }
    if !is_ignored(SignalKind::hangup()) {
        let (mut signal, stop) = (installed(SignalKind::hangup())?, stop.clone());
        tokio::spawn(async move {
            // A closing terminal and a service manager send it beside or after TERM: never the second one.
            while signal.recv().await.is_some() {
                stop.cancel();
            }
        });
    }
    let (mut terminate, mut interrupt) =
        (installed(SignalKind::terminate())?, installed(SignalKind::interrupt())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        for asked in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if asked > 0 {
                std::process::exit(1);
            }
            stop.cancel();
        }
    });
    Ok(())
}

fn is_ignored(signal: SignalKind) -> bool {
    // SAFETY: only reads the disposition, into plain data on this stack.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal.as_raw_value(), std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Checks that child processes can run as each of `users`, and adopts the orphans that they leave.
///
/// # Errors
/// [`Exit::Usage`] for a user whose rights this process cannot take.
pub fn prepare_children<'a>(users: impl IntoIterator<Item = &'a RunAs>) -> Result<(), Exit> {
    for user in users {
        resolve_user(user).map_err(|error| Exit::Usage(error.to_string()))?;
    }
    if let Err(error) = become_subreaper() {
        tracing::warn!(%error, "this process cannot adopt orphans: a callback's daemons may outlive it");
    }
    Ok(())
}

/// The ports of probes and pages, bound before anything else is opened; `None` is off.
pub struct AdminPorts {
    probes: Option<TcpListener>,
    pages: Option<TcpListener>,
    /// By which browsers may call the pages, beside addresses and localhost.
    pub names: HostNames,
    /// The view on a port of its own.
    pub exposed: Option<ExposedView>,
}

impl AdminPorts {
    /// Binds `--addr` and `--admin-addr`.
    ///
    /// # Errors
    /// [`Exit::Usage`] when an address is taken, not local or not allowed.
    pub async fn bind(addr: Option<SocketAddr>, admin_addr: Option<SocketAddr>) -> Result<Self, Exit> {
        let probes = bind(addr, "--addr (KUBERVISOR_ADDR)").await?;
        let pages = bind(admin_addr, "--admin-addr (KUBERVISOR_ADMIN_ADDR)").await?;
        Ok(Self { probes, pages, names: HostNames::default(), exposed: None })
    }

    /// Serves `views` on them until `stop`.
    pub fn serve(
        self,
        views: &std::sync::Arc<dyn admin::Views>,
        process: &Runtime,
        serving: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) {
        let alarms = &process.alarms;
        if let Some(listener) = self.probes {
            let router = admin::probes(views.clone(), process.metrics.clone());
            serve(listener, router, alarms, serving, stop);
        }
        if self.pages.is_none() && self.exposed.is_none() {
            return;
        }
        let view = View::new(views.clone(), process.clock, stop.clone());
        let record = view.clone().record(stop.clone());
        serving.spawn(until_stopped(alarms, "the record behind the view", stop, record));
        if let Some(listener) = self.pages {
            let pages = admin::pages(views.clone()).merge(view.local_routes());
            let pages = pages.layer(middleware::from_fn_with_state(self.names, guard));
            serve(PageListener::new(listener, None), pages, alarms, serving, stop);
        }
        if let Some(exposed) = self.exposed {
            let (listener, pages) = exposed.pages(&view);
            serve(listener, pages, alarms, serving, stop);
        }
    }
}

fn serve<L>(listener: L, router: Router, alarms: &Alarms, serving: &mut JoinSet<()>, stop: &CancellationToken)
where
    L: Listener<Addr = SocketAddr>,
    Peer: for<'a> Connected<IncomingStream<'a, L>>,
{
    let name = format!("the pages on {}", listener.local_addr().map_or("?".into(), |at| at.to_string()));
    let served = admin::serve(listener, router, stop.clone());
    serving.spawn(until_stopped(alarms, &name, stop, served));
}

async fn bind(address: Option<SocketAddr>, setting: &str) -> Result<Option<TcpListener>, Exit> {
    let Some(address) = address else { return Ok(None) };
    let bound = TcpListener::bind(address).await;
    bound.map(Some).map_err(|error| {
        Exit::Usage(format!(
            "cannot listen on {address}: {error}; choose another address with {setting}, or `off`"
        ))
    })
}

/// The process's configuration: its variables, `flags` over them, and in a pod its metadata for what both leave open.
///
/// # Errors
/// [`Exit::Usage`] with every problem that was found, each naming the variable and what to write.
pub async fn configuration(flags: &Flags) -> Result<Config, Exit> {
    let env = config::environment(flags)?;
    let pod = pod_facts(&env).await?;
    config::reading::read(&env, config::in_pod(&env), pod.as_ref())
}

/// The configuration of a master inside the controller, which listens on `address`.
///
/// # Errors
/// As [`configuration`].
pub async fn hosted_configuration(
    env: &Environment,
    address: std::net::SocketAddrV4,
) -> Result<Config, Exit> {
    let in_pod = config::in_pod(env);
    let pod = pod_facts(&config::hosted::with_defaults(env, address, in_pod)).await?;
    config::hosted::read(env, address, in_pod, pod.as_ref())
}

/// The pod's metadata, fetched only in a pod and only when `env` leaves something open.
async fn pod_facts(env: &Environment) -> Result<Option<PodFacts>, Exit> {
    if !config::in_pod(env) || !config::reading::needs_pod(env) {
        return Ok(None);
    }
    let Some(name) = env.get("KONTROL_ID").or_else(|| env.get("HOSTNAME")) else {
        let unknown = "KONTROL_ID: not set, and HOSTNAME does not tell the pod's name either";
        return Err(Exit::Usage(unknown.to_owned()));
    };
    let fetched = pod_metadata::fetch(env.get("NAMESPACE").unwrap_or("default"), name).await;
    fetched.map(Some).map_err(|error| match error {
        PodMetadataError::Refused { .. } => Exit::Usage(error.to_string()),
        other => Exit::Failed(other.into()),
    })
}

/// This process as a member of a store's prefix: the UID of its pod, else `name`, and 64 random bits, so that two
/// processes are never one member.
///
/// # Errors
/// When the system has no random numbers.
pub fn member(name: &str, address: String) -> Result<Member, Exit> {
    let random = getrandom::u64().map_err(|error| Exit::Failed(anyhow::anyhow!("no randomness: {error}")))?;
    let pod = std::env::var("KUBERVISOR_POD_UID").ok().filter(|uid| !uid.is_empty());
    let pod = pod.unwrap_or_else(|| name.to_owned());
    Ok(Member { id: format!("{name}-{random:016x}"), address, pod })
}
