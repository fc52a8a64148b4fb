//! `kubervisor run`: an agent, a master, or both, on one port, until a signal or `POST /down`.
//!
//! It stops in reverse order of the start: the agent sends `down`, the master resigns, then the port closes.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    agent::Agent,
    master::{Master, PortHandler},
};
use crate::{
    adapters::{commands::CommandQueue, wire::Handler},
    config::{AgentConfig, Config, MasterConfig, RunAs, flags::Flags},
    core_task::until_stopped,
    exit::Exit,
    runtime::{self, AdminPorts, Runtime},
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
    let stop = CancellationToken::new();
    runtime::stop_on_signals(&stop)?;
    let Some(config) = stop.run_until_cancelled(runtime::configuration(&args.flags)).await else {
        return Ok(());
    };
    let config = config?;
    runtime::prepare_children(users(&config))?;
    start(&config, stop).await
}

/// Starts the configured roles, serves until `stop`, and stops them in order.
async fn start(config: &Config, stop: CancellationToken) -> Result<(), Exit> {
    let process = Runtime::start();
    let server = process.keepalive_port(&config.listen)?;
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
    let serve = server.serve(handler, closed.clone());
    serving.spawn(until_stopped(&process.alarms, "the keepalive port", &closed, serve));
    let agent = match &config.agent {
        Some(agent) => Some(Agent::start(&config.identity, agent, &process.alarms).await?),
        None => None,
    };
    tracing::info!(address = %config.listen.address, id = config.identity.id, "running");
    let ended = process.ended(&stop).await;
    tracing::info!("stopping");
    if let Some(agent) = agent {
        agent.stop().await;
    }
    if let Some(master) = master {
        master.stop().await;
    }
    closed.cancel();
    while serving.join_next().await.is_some() {}
    ended
}

/// All users as whom child processes are to run.
fn users(config: &Config) -> Vec<&RunAs> {
    let master = config.master.as_ref();
    let callback = master.and_then(|master| master.callback.as_ref()).map(|callback| &callback.user);
    let command = master.and_then(|master| master.endpoints.as_ref()).map(|endpoints| &endpoints.user);
    let agent = config.agent.as_ref().map(|agent| &agent.user);
    callback.into_iter().chain(command).chain(agent).filter(|user| matches!(user, RunAs::User(_))).collect()
}

fn open_queue(config: &Config, agent: &AgentConfig, process: &Runtime) -> Result<CommandQueue, Exit> {
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
    process: &Runtime,
    serving: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Master, Exit> {
    // Ports first: a wrong address is an error before the store is opened.
    let ports = AdminPorts::bind(master.addr, master.admin_addr).await?;
    let running = Master::start(config, master, process).await?;
    ports.serve(&running.views(), process, serving, stop);
    Ok(running)
}
