//! A master inside another role's process: the controller's, with `--keepalives`.
//!
//! It is a whole master (store, election, callback, keepalive port) without a policy and a gate of its own: its host
//! reads the live ensemble and decides.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{instance::Master, live::LiveEnsemble};
use crate::{
    admin::Views,
    api::Timing,
    config::Config,
    core_task::until_stopped,
    exit::Exit,
    runtime::{Runtime, prepare_children},
};

/// A running master and its port.
pub struct HostedMaster {
    master: Master,
    timing: Timing,
    serving: JoinHandle<()>,
    closed: CancellationToken,
}

impl HostedMaster {
    /// Opens port and store as configured by [`hosted_configuration`](crate::runtime::hosted_configuration). `POST /down` on the port
    /// cancels `stop`.
    ///
    /// # Errors
    /// [`Exit::Usage`] for a port, a user or a store that cannot be used.
    pub async fn start(config: &Config, process: &Runtime, stop: &CancellationToken) -> Result<Self, Exit> {
        let Some(settings) = &config.master else {
            return Err(Exit::Usage("this configuration is no master's".to_owned()));
        };
        if let Some(callback) = &settings.callback {
            prepare_children([&callback.user])?;
        }
        let server = process.keepalive_port(&config.listen)?;
        let master = Master::start(config, settings, process).await?;
        let closed = CancellationToken::new();
        let serving = server.serve(master.handler(None, stop.clone()), closed.clone());
        let serving = tokio::spawn(until_stopped(&process.alarms, "the keepalive port", &closed, serving));
        let timing = Timing { ttl: settings.ttl, ping_every: settings.ping_every };
        tracing::info!(address = %config.listen.address, "taking keepalives");
        Ok(Self { master, timing, serving, closed })
    }

    /// Its ensemble.
    pub fn live(&self) -> LiveEnsemble {
        self.master.live()
    }

    /// The TTL and the ping interval, which limits on silence are checked against.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Its admin pages.
    pub fn views(&self) -> Arc<dyn Views> {
        self.master.views()
    }

    /// Resigns, then closes the port.
    pub async fn stop(self) {
        self.master.stop().await;
        self.closed.cancel();
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the keepalive port failed");
        }
    }
}
