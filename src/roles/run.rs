//! `kubervisor run`: an agent, a master, or both, on one port, until a signal or `POST /down`.
//!
//! It stops in reverse order of the start: the agent sends `down`, the master resigns, then the port closes.

use std::{net::SocketAddr, sync::Arc};

use axum::Router;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    agent::{Agent, CommandQueue},
    master::{Master, PortHandler, Process},
};
use crate::{
    adapters::{
        process::{become_subreaper, resolve_user},
        wire::{self, Handler, Server},
    },
    admin,
    alarms::Alarms,
    clock::Clock,
    config::{AgentConfig, Config, MasterConfig, RunAs, flags::Flags},
    exit::Exit,
    metrics::Metrics,
};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Each takes precedence over its environment variable.
    #[command(flatten)]
    pub flags: Flags,
}

/// Runs until a signal or `POST /down`.
///
/// # Errors
/// [`Exit::Usage`] for a wrong configuration, [`Exit::Failed`] for a failure at run time.
pub async fn run(args: Args) -> Result<(), Exit> {
    let config = crate::config::load(&args.flags).await?;
    for user in users(&config) {
        // Checked now, so that a user whose rights cannot be taken is an error before the first command.
        resolve_user(user).map_err(|error| Exit::Usage(error.to_string()))?;
    }
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    if let Err(error) = become_subreaper() {
        tracing::warn!(%error, "this process cannot adopt orphans: a callback's daemons may outlive it");
    }
    start(&config, stop).await
}

/// Starts the configured roles, serves until `stop`, and stops them in order.
async fn start(config: &Config, stop: CancellationToken) -> Result<(), Exit> {
    let process = process();
    let server = listen(config, &process)?;
    let mut serving = JoinSet::new();
    let commands = match &config.agent {
        Some(agent) => Some(Arc::new(open_queue(config, agent, &process)?)),
        None => None,
    };
    let master = match &config.master {
        Some(master) => Some(start_master(config, master, &process, &mut serving, &stop).await?),
        None => None,
    };
    let handler: Arc<dyn Handler> = match (&master, &commands) {
        (Some(master), commands) => master.handler(commands.clone(), stop.clone()),
        (None, Some(commands)) => Arc::new(PortHandler::of_agent(Arc::clone(commands), stop.clone())),
        (None, None) => {
            return Err(Exit::Usage("KONTROL_MODE names no role: use slave, master or both".to_owned()));
        }
    };
    let closed = CancellationToken::new();
    serving.spawn(server.serve(handler, closed.clone()));
    let agent = match &config.agent {
        Some(agent) => Some(Agent::start(&config.identity, agent).await?),
        None => None,
    };
    tracing::info!(address = %config.listen.address, id = config.identity.id, "running");
    stop.cancelled().await;
    tracing::info!("stopping");
    if let Some(agent) = agent {
        agent.stop().await;
    }
    if let Some(master) = master {
        master.stop().await;
    }
    closed.cancel();
    while serving.join_next().await.is_some() {}
    Ok(())
}

/// All users as whom child processes are to run.
fn users(config: &Config) -> Vec<&RunAs> {
    let master = config.master.as_ref();
    let callback = master.and_then(|master| master.callback.as_ref()).map(|callback| &callback.user);
    let command = master.and_then(|master| master.endpoints.as_ref()).map(|endpoints| &endpoints.user);
    let agent = config.agent.as_ref().map(|agent| &agent.user);
    callback.into_iter().chain(command).chain(agent).filter(|user| matches!(user, RunAs::User(_))).collect()
}

pub(super) fn process() -> Process {
    let clock = Clock::start();
    let alarms = Alarms::new(clock);
    let metrics = Metrics::new(&alarms);
    Process { clock, alarms, metrics }
}

fn listen(config: &Config, process: &Process) -> Result<Server, Exit> {
    let metrics = process.metrics.with_registry(wire::Metrics::register);
    Server::bind(&config.listen, metrics).map_err(|error| Exit::Usage(error.to_string()))
}

fn open_queue(config: &Config, agent: &AgentConfig, process: &Process) -> Result<CommandQueue, Exit> {
    CommandQueue::open(
        &config.identity,
        config.listen.address.port(),
        &agent.invoke,
        &agent.user,
        process.clock,
    )
}

async fn start_master(
    config: &Config,
    master: &MasterConfig,
    process: &Process,
    serving: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Master, Exit> {
    // Ports first: a wrong address is an error before the store is opened.
    let probes = bind(master.addr, "--addr (KUBERVISOR_ADDR)").await?;
    let pages = bind(master.admin_addr, "--admin-addr (KUBERVISOR_ADMIN_ADDR)").await?;
    let running = Master::start(config, master, process).await?;
    let mut show = |listener: Option<_>, router: Router| {
        if let Some(listener) = listener {
            serving.spawn(admin::serve(listener, router, stop.clone()));
        }
    };
    show(probes, admin::probes(running.views(), process.metrics.clone()));
    show(pages, admin::pages(running.views()));
    Ok(running)
}

pub(super) async fn bind(
    address: Option<SocketAddr>,
    setting: &str,
) -> Result<Option<tokio::net::TcpListener>, Exit> {
    let Some(address) = address else { return Ok(None) };
    let bound = admin::bind(address).await;
    bound.map(Some).map_err(|error| {
        Exit::Usage(format!(
            "cannot listen on {address}: {error}; choose another address with {setting}, or `off`"
        ))
    })
}

/// The first TERM or INT cancels `stop`; a second one ends the process at once with exit code 1.
pub(super) fn stop_on_signals(stop: &CancellationToken) -> Result<(), Exit> {
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    for registered in signals {
        let mut signal = registered.map_err(|error| Exit::Failed(anyhow::Error::new(error)))?;
        let stop = stop.clone();
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                if stop.is_cancelled() {
                    std::process::exit(1);
                }
                stop.cancel();
            }
        });
    }
    Ok(())
}
