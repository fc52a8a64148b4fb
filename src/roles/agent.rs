//! The agent: sends this pod's keepalives to every master, and runs the commands that its policy permits.
//!
//! One task per master, so that a dead one does not delay the others. The keepalive is one JSON text, made once per
//! change of the payload and shared by the tasks.

use std::time::Duration;

use anyhow::Context;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{composer::KeepaliveComposer, keepalive_sender::KeepaliveSender, payload::PayloadFile};
use crate::{
    alarms::Alarms,
    config::{AgentConfig, Identity},
    core_task::until_stopped,
    exit::Exit,
};

mod composer;
mod keepalive_sender;
mod payload;

/// A running agent: its keepalive senders and the watch on its payload file.
#[derive(Debug)]
pub struct Agent {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    stop_timeout: Duration,
}

impl Agent {
    /// Starts to send keepalives of `identity` to every master of `config`. Returns at once.
    ///
    /// # Errors
    /// [`Exit::Failed`] when there is no randomness for the nonce, or masters would refuse the identity.
    pub async fn start(identity: &Identity, config: &AgentConfig, alarms: &Alarms) -> Result<Self, Exit> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce)
            .map_err(|error| anyhow::anyhow!("no randomness for the nonce: {error}"))?;
        let composer = KeepaliveComposer::new(identity, nonce).context("this identity makes no keepalive")?;
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let texts = composer.subscribe();
        if let Some(path) = &config.payload {
            let file = PayloadFile::open(path.clone(), composer, config.payload_max_age).await;
            let following = file.follow(stop.clone());
            tasks.spawn(until_stopped(alarms, "the payload file", &stop, following));
        }
        for target in &config.masters {
            let times = (config.ping_every, config.ping_deadline);
            let sender = KeepaliveSender::new(target.clone(), identity.ip, times, texts.clone());
            let (name, sending) = (format!("keepalives to {target}"), sender.run(stop.clone()));
            tasks.spawn(until_stopped(alarms, &name, &stop, sending));
        }
        // One ping under way, then two attempts to send `down`.
        let stop_timeout = config.ping_deadline * 3 + Duration::from_millis(100);
        Ok(Self { stop, tasks, stop_timeout })
    }

    /// Stops: sends `down: true` to each master and waits a bounded time for the answers.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _in_time = timeout(self.stop_timeout, all).await;
    }
}
