//! The agent: says that this pod is alive, to every master, and runs the commands that it may run.
//!
//! One task per master, so that a dead one delays nobody. What is said is one JSON text, made once per
//! change and shared; only a changed payload makes a new one.

use std::time::Duration;

use anyhow::Context;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{payload::PayloadFile, pinger::Pinger, speech::Speaker};
use crate::{
    config::{AgentConfig, Identity},
    exit::Exit,
};

mod challenges;
pub mod commands;
pub mod handler;
mod payload;
mod pinger;
mod speech;

pub use self::{commands::CommandDesk, handler::AgentHandler};

/// A running agent: its pingers and the watch on its payload file.
#[derive(Debug)]
pub struct Agent {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    patience: Duration,
}

impl Agent {
    /// Starts pinging every master of `config` in the name of `identity`. Returns at once.
    ///
    /// # Errors
    /// [`Exit::Failed`] when there is no randomness for the nonce, or the identity makes no keepalive.
    pub async fn start(identity: &Identity, config: &AgentConfig) -> Result<Self, Exit> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce)
            .map_err(|error| anyhow::anyhow!("no randomness for the nonce: {error}"))?;
        let speaker = Speaker::new(identity, nonce).context("this identity makes no keepalive")?;
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let said = speaker.listen();
        if let Some(path) = &config.payload {
            let file = PayloadFile::open(path.clone(), speaker).await;
            tasks.spawn(file.follow(stop.clone()));
        }
        for target in &config.masters {
            let times = (config.ping_every, config.ping_deadline);
            let pinger = Pinger::new(target.clone(), identity.ip, times, said.clone());
            tasks.spawn(pinger.run(stop.clone()));
        }
        // A ping under way, then two attempts to say `down`.
        let patience = config.ping_deadline * 3 + Duration::from_millis(100);
        Ok(Self { stop, tasks, patience })
    }

    /// Stops: each master is told `down: true`, and has a bounded time to take it.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _in_time = timeout(self.patience, all).await;
    }
}
