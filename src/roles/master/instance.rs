//! Starts and stops one master.

use std::{net::Ipv4Addr, sync::Arc};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    context::Shared,
    election, gate,
    handler::PortHandler,
    ingest::{AddressPolicy, Ingest},
    live::LiveEnsemble,
    metrics::{IngestMetrics, MasterMetrics},
    pages,
    reader::EnsembleReader,
};
use crate::{
    adapters::commands::CommandQueue,
    adapters::{
        callback::{CallbackMetrics, CallbackRunner},
        store::{self, Membership, StoreMetrics},
        wire::Handler,
    },
    admin::Views,
    config::{Config, MasterConfig},
    core_task::until_stopped,
    decide::ensemble::Settings,
    exit::Exit,
    runtime::{self, Runtime},
};

/// A running master.
pub struct Master {
    shared: Arc<Shared>,
    stop: CancellationToken,
    election: JoinHandle<()>,
}

impl Master {
    /// Opens the store and campaigns for leadership. Keepalives may arrive as soon as this returns.
    ///
    /// # Errors
    /// [`Exit::Usage`] for a store, a policy or an endpoints file that cannot be used.
    pub async fn start(config: &Config, master: &MasterConfig, process: &Runtime) -> Result<Self, Exit> {
        let identity = &config.identity;
        let membership = Membership {
            prefix: store::prefix(&identity.namespace, &identity.app),
            member: runtime::member(&identity.id, address(config))?,
            lease: master.lease,
        };
        let cluster = membership.prefix.clone();
        let gate_config = gate::GateConfig::read(config, master, process)?;
        let store_metrics = process.metrics.with_registry(StoreMetrics::register);
        let store = store::open(&master.store, membership, &process.alarms, store_metrics)
            .await
            .map_err(|error| Exit::Usage(error.to_string()))?;
        let ingest = Arc::new(open_ingest(config, master, process));
        let reader = Arc::new(EnsembleReader::new(Arc::clone(&ingest)));
        let stop = CancellationToken::new();
        let gate = gate_config.open(&identity.app, &store, &reader, process, &stop);
        let shared = Arc::new(Shared {
            clock: process.clock,
            alarms: process.alarms.clone(),
            metrics: process.metrics.with_registry(MasterMetrics::register),
            store,
            ingest,
            reader,
            settings: Settings::new(master.ttl, master.ping_every),
            damper: master.damper,
            callback: callback(master, process),
            source: local_source(identity.ip),
            led_before: false.into(),
            digest: Default::default(),
            gate,
            cluster,
        });
        let election = election::follow_election(Arc::clone(&shared), stop.clone());
        let election = tokio::spawn(until_stopped(&shared.alarms, "the election", &stop, election));
        Ok(Self { shared, stop, election })
    }

    /// Handles the keepalive port; commands go to `commands` when this process is an agent too.
    pub fn handler(&self, commands: Option<Arc<CommandQueue>>, stop: CancellationToken) -> Arc<dyn Handler> {
        Arc::new(PortHandler::of_master(&self.shared, commands, stop))
    }

    /// The admin pages.
    pub fn views(&self) -> Arc<dyn Views> {
        Arc::new(pages::MasterPages::new(Arc::clone(&self.shared)))
    }

    /// The ensemble, for others in this process.
    pub fn live(&self) -> LiveEnsemble {
        LiveEnsemble::new(&self.shared)
    }

    /// Ends the term, if this master leads, and resigns.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.election.await {
            tracing::error!(%error, "the election task failed");
        }
        self.shared.gate.stop().await;
    }
}

fn address(config: &Config) -> String {
    format!("{}:{}", config.identity.ip, config.listen.address.port())
}

fn open_ingest(config: &Config, master: &MasterConfig, process: &Runtime) -> Ingest {
    let policy = if master.own_address_only {
        AddressPolicy::OwnAddress { trusted: config.listen.trusted.clone() }
    } else {
        AddressPolicy::Any
    };
    let metrics = process.metrics.with_registry(IngestMetrics::register);
    Ingest::new(process.clock, process.alarms.clone(), metrics, policy)
}

fn callback(master: &MasterConfig, process: &Runtime) -> Option<CallbackRunner> {
    let config = master.callback.clone()?;
    let metrics = process.metrics.with_registry(CallbackMetrics::register);
    Some(CallbackRunner::new(config, Vec::new(), metrics))
}

/// `address` if this host has it: then forwarded keepalives come from a member's address.
fn local_source(address: Ipv4Addr) -> Option<Ipv4Addr> {
    std::net::UdpSocket::bind((address, 0)).is_ok().then_some(address)
}
