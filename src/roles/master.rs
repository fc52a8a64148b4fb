//! The master: keeps one ordered ensemble, runs the callback on change, and lets the gate decide.
//!
//! Every master takes keepalives. One of them, elected by the store, reigns: it keeps the ensemble
//! and its books, runs the callback and the gate. The others forward to it. A reign is a set of
//! tasks under one term; when leadership ends they end, before anybody else may lead.
//!
//! | file | step |
//! |---|---|
//! | `desk` | takes keepalives: into the ensemble, forwarded, or kept |
//! | `forward` | a follower's way to the leader |
//! | `election` | begins and ends reigns |
//! | `reign` | one term: take over what is stored, then run those below |
//! | `bookkeeper` | persists changes, expires the silent |
//! | `callbacks` | digest, damper, callback, state |
//! | `breakers` | the policy's own detectors |
//! | `records` | a copy of the ensemble, for those who read it at leisure |
//! | `live` | the ensemble for others in this process |
//! | `hosted` | a master inside another role |
//! | `gate` | verdicts and ensemble → gatekeeper |
//! | `views` | what people may see |

mod bookkeeper;
mod breakers;
mod callbacks;
mod desk;
mod election;
mod forward;
mod gate;
mod handler;
mod hosted;
mod live;
mod metrics;
mod records;
mod reign;
mod views;

pub use self::{hosted::HostedMaster, live::LiveEnsemble};

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::{
    desk::{Desk, Speakers},
    metrics::{DeskMetrics, MasterMetrics},
};
use super::agent::CommandDesk;
use crate::{
    adapters::{
        callback::{CallbackMetrics, CallbackRunner},
        store::{self, Leadership, Member, Seat, Store, StoreMetrics},
        wire::Handler,
    },
    admin::Views,
    alarms::Alarms,
    clock::Clock,
    config::{Config, MasterConfig},
    decide::{damper::Start, digest::Digest, ensemble::Settings},
    exit::Exit,
    metrics::Metrics,
};

/// What every part of a process shares.
#[derive(Clone)]
pub struct Process {
    /// Its clocks.
    pub clock: Clock,
    /// Its alarms.
    pub alarms: Alarms,
    /// Its metrics.
    pub metrics: Metrics,
}

/// A running master.
pub struct Master {
    shared: Arc<Shared>,
    stop: CancellationToken,
    election: JoinHandle<()>,
}

/// What the master's parts share.
struct Shared {
    clock: Clock,
    alarms: Alarms,
    metrics: MasterMetrics,
    store: Arc<dyn Store>,
    desk: Arc<Desk>,
    settings: Settings,
    damper: Duration,
    callback: Option<CallbackRunner>,
    /// The address that we connect from.
    source: Option<Ipv4Addr>,
    /// Somebody else has led, or we have: what follows is a fail-over.
    led_before: AtomicBool,
    /// The newest digest and how many pods it covers.
    digest: Mutex<Option<(Digest, usize)>>,
    gatekeeping: gate::Gatekeeping,
    cluster: String,
}

impl Master {
    /// Opens the store and runs for leader. Keepalives may arrive as soon as this returns.
    ///
    /// # Errors
    /// [`Exit::Usage`] for a store, a policy or an endpoints file that cannot be used.
    pub async fn start(config: &Config, master: &MasterConfig, process: &Process) -> Result<Self, Exit> {
        let identity = &config.identity;
        let seat = Seat {
            prefix: store::prefix(&identity.namespace, &identity.app),
            member: Member { id: member_id(&identity.id)?, address: address(config) },
            lease: master.lease,
        };
        let cluster = seat.prefix.clone();
        let plans = gate::Plans::read(config, master, process)?;
        let store_metrics = StoreMetrics::default();
        process.metrics.with_registry(|registry| store_metrics.register(registry));
        let store = store::open(&master.store, seat, process.clock, store_metrics)
            .await
            .map_err(|error| Exit::Usage(error.to_string()))?;
        let desk = Arc::new(desk(config, master, process));
        let stop = CancellationToken::new();
        let gatekeeping = plans.open(&identity.app, &store, &desk, process, &stop);
        let shared = Arc::new(Shared {
            clock: process.clock,
            alarms: process.alarms.clone(),
            metrics: process.metrics.with_registry(MasterMetrics::register),
            store,
            desk,
            settings: Settings::new(master.ttl, master.ping_every),
            damper: master.damper,
            callback: callback(master, process),
            source: local_source(identity.ip),
            led_before: AtomicBool::new(false),
            digest: Mutex::default(),
            gatekeeping,
            cluster,
        });
        let election = tokio::spawn(election::follow_election(Arc::clone(&shared), stop.clone()));
        Ok(Self { shared, stop, election })
    }

    /// What the keepalive port does; commands go to `commands` when this process is an agent too.
    #[must_use]
    pub fn handler(&self, commands: Option<Arc<CommandDesk>>, stop: CancellationToken) -> Arc<dyn Handler> {
        Arc::new(handler::MasterHandler::new(&self.shared, commands, stop))
    }

    /// What people may see.
    #[must_use]
    pub fn views(&self) -> Arc<dyn Views> {
        Arc::new(views::MasterViews::new(Arc::clone(&self.shared)))
    }

    /// The ensemble, for others in this process.
    #[must_use]
    pub fn live(&self) -> LiveEnsemble {
        LiveEnsemble::new(Arc::clone(&self.shared))
    }

    /// Ends the reign, if this is the leader, and hands the lead over.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.election.await {
            tracing::error!(%error, "the election ended badly");
        }
        self.shared.gatekeeping.stop().await;
    }
}

impl Shared {
    /// What this reign is to the callback: the first one ever seen waits for pods to report.
    fn kind_of_start(&self) -> Start {
        if self.led_before.swap(true, Ordering::Relaxed) { Start::FailOver } else { Start::Fresh }
    }

    fn saw(&self, leadership: &Leadership) {
        if matches!(leadership, Leadership::Follower { leader: Some(_) }) {
            self.led_before.store(true, Ordering::Relaxed);
        }
    }

    fn show_digest(&self, digest: Digest, pods: usize) {
        self.metrics.digests.inc();
        self.metrics.pods.set(i64::try_from(pods).unwrap_or(i64::MAX));
        *self.digest.lock().unwrap_or_else(PoisonError::into_inner) = Some((digest, pods));
    }

    fn newest_digest(&self) -> Option<(Digest, usize)> {
        *self.digest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pod's name and 64 random bits: two processes are never one member.
fn member_id(pod: &str) -> Result<String, Exit> {
    let drawn = getrandom::u64().map_err(|error| Exit::Failed(anyhow::anyhow!("no randomness: {error}")))?;
    Ok(format!("{pod}-{drawn:016x}"))
}

fn address(config: &Config) -> String {
    format!("{}:{}", config.identity.ip, config.listen.address.port())
}

fn desk(config: &Config, master: &MasterConfig, process: &Process) -> Desk {
    let speakers = if master.own_address_only {
        Speakers::Themselves { trusted: config.listen.trusted.clone() }
    } else {
        Speakers::Anyone
    };
    let metrics = process.metrics.with_registry(DeskMetrics::register);
    Desk::new(process.clock, process.alarms.clone(), metrics, speakers)
}

fn callback(master: &MasterConfig, process: &Process) -> Option<CallbackRunner> {
    let config = master.callback.clone()?;
    let metrics = CallbackMetrics::default();
    process.metrics.with_registry(|registry| metrics.register(registry));
    Some(CallbackRunner::new(config, Vec::new(), metrics))
}

/// Our own address, where it is one of this host's: forwarded keepalives then come from a member's address.
fn local_source(address: Ipv4Addr) -> Option<Ipv4Addr> {
    std::net::UdpSocket::bind((address, 0)).is_ok().then_some(address)
}
