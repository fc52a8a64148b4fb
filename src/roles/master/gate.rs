//! The master's end of the gate: which verdicts go in, what the gatekeeper sees of the ensemble, and what people may see of it.
//!
//! There is a gatekeeper when there is something to gate (an endpoints file) or a policy to report
//! on. A policy without an endpoints file is a dry run: it decides and reports, nothing follows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Process, Shared, desk::Desk, records::Records};
use crate::{
    adapters::{policy_file::PolicyFile, secrets::NoSecrets, sink::roster::RosterSettings, store::Store},
    alarms::Alarms,
    api::{Context, Detectors, Manifest, Timing},
    config::{Config, MasterConfig, TargetPort},
    decide::{
        detect::Observation,
        ensemble::{Known, Status},
        fleet::{Traffic, Uid},
        fleet_report::FleetRow,
        gate::ledger::Ledger,
        policy::Policy,
        roster::{self, FleetRules, Row, RowState},
        time::Timestamp,
        verdict,
    },
    exit::Exit,
    roles::{
        breaker::{Asker, AskerMetrics},
        gatekeeper::{
            self, Gatekeeper, GatekeeperDeps,
            metrics::GateMetrics,
            view::{GatekeeperView, PodStory},
        },
    },
};

/// How often the policy file is looked at.
const POLICY_ROUND: Duration = Duration::from_secs(1);

/// The gate as it was configured, before there is a store.
pub(crate) struct Plans {
    policy: Option<PolicyFile>,
    settings: Option<RosterSettings>,
    port: TargetPort,
    namespace: String,
    asker: Option<Arc<Asker>>,
}

/// The gate of one process.
pub(crate) struct Gatekeeping {
    gatekeeper: Option<Arc<Gatekeeper>>,
    manifest: watch::Receiver<Option<Arc<Manifest>>>,
    asker: Option<Arc<Asker>>,
    namespace: String,
    alarms: Alarms,
}

impl Plans {
    /// Reads the policy and settles what is gated.
    ///
    /// # Errors
    /// [`Exit::Usage`] with everything that is wrong with the policy, [`Exit::Failed`] when nobody can be asked.
    pub(crate) fn read(config: &Config, master: &MasterConfig, process: &Process) -> Result<Self, Exit> {
        let timing = Timing { ttl: master.ttl, ping_every: master.ping_every };
        let context = Context { detectors: Detectors::WithoutSecrets, timing: Some(timing) };
        let opened = master.policy.as_ref().map(|path| PolicyFile::open(path, context)).transpose();
        let policy = opened.map_err(|problems| Exit::Usage(format!("policy refused\n{problems}")))?;
        let asker = policy.as_ref().map(|_| asker(process)).transpose()?;
        let identity = &config.identity;
        let endpoints = master.endpoints.clone();
        let settings = (endpoints.is_some() || policy.is_some()).then(|| RosterSettings {
            of: format!("{}/{}", identity.namespace, identity.app),
            rules: endpoints.as_ref().map_or_else(FleetRules::default, |endpoints| FleetRules {
                roles: endpoints.roles.clone(),
                size: endpoints.fleet_size,
            }),
            ttl: master.ttl,
            started: process.clock.wall(),
            dry_run: master.dry_run || endpoints.is_none(),
            endpoints,
        });
        Ok(Self {
            policy,
            settings,
            // Without a file nothing is listed, so that no port matters.
            port: master.endpoints.as_ref().map_or(TargetPort::Fixed(0), |endpoints| endpoints.port.clone()),
            namespace: identity.namespace.clone(),
            asker,
        })
    }

    /// Opens the gate on `store` and watches the policy file until `stop`.
    pub(crate) fn open(
        self,
        app: &str,
        store: &Arc<dyn Store>,
        desk: &Arc<Desk>,
        process: &Process,
        stop: &CancellationToken,
    ) -> Gatekeeping {
        let first = self.policy.as_ref().map(PolicyFile::current);
        let policy = |manifest: &Option<Arc<Manifest>>| match manifest {
            Some(manifest) => Arc::new(manifest.policy.clone()),
            None => Arc::new(Policy::without_manifest(app)),
        };
        let (policies, policy_now) = watch::channel(policy(&first));
        let (manifests, manifest) = watch::channel(first);
        if let Some(file) = self.policy {
            tokio::spawn(follow_file(file, policies, manifests, process.alarms.clone(), stop.clone()));
        }
        let (port, source, clock) = (self.port, Arc::clone(desk), process.clock);
        let gatekeeper = self.settings.map(|roster| {
            Gatekeeper::start(GatekeeperDeps {
                store: Arc::clone(store),
                ensemble: Arc::new(move || rows(&source, &port, clock.wall())),
                changes: desk.visible(),
                policy: policy_now,
                roster,
                namespace: self.namespace.clone(),
                clock,
                alarms: process.alarms.clone(),
                metrics: process.metrics.with_registry(GateMetrics::register),
            })
        });
        let alarms = process.alarms.clone();
        Gatekeeping { gatekeeper, manifest, asker: self.asker, namespace: self.namespace, alarms }
    }
}

/// A fleet without Kubernetes has no Secrets.
fn asker(process: &Process) -> Result<Arc<Asker>, Exit> {
    let metrics = process.metrics.with_registry(AskerMetrics::register);
    let asker = Asker::new(Arc::new(NoSecrets), process.clock, metrics);
    asker.map(Arc::new).map_err(|error| Exit::Failed(error.into()))
}

/// Reads the policy file again when it changes; a wrong one is refused, and the old one stays.
async fn follow_file(
    mut file: PolicyFile,
    policies: watch::Sender<Arc<Policy>>,
    manifests: watch::Sender<Option<Arc<Manifest>>>,
    alarms: Alarms,
    stop: CancellationToken,
) {
    let mut round = tokio::time::interval(POLICY_ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = round.tick() => {}
        }
        match file.reload() {
            Ok(false) => {}
            Ok(true) => {
                alarms.clear("policy_refused");
                tracing::info!(file = %file.path().display(), "a new policy is in force");
                manifests.send_replace(Some(file.current()));
                policies.send_replace(Arc::new(file.current().policy.clone()));
            }
            Err(problems) => {
                alarms.raise("policy_refused", format!("the old policy stays in force\n{problems}"))
            }
        }
    }
}

impl Gatekeeping {
    /// Nothing is gated.
    #[cfg(test)]
    pub(super) fn none(alarms: Alarms) -> Self {
        let manifest = watch::Sender::new(None).subscribe();
        Self { gatekeeper: None, manifest, asker: None, namespace: String::new(), alarms }
    }

    /// The gatekeeper, if anything is gated.
    pub(super) fn gatekeeper(&self) -> Option<&Arc<Gatekeeper>> {
        self.gatekeeper.as_ref()
    }

    /// The policy's manifest, as it changes.
    pub(super) fn manifest(&self) -> watch::Receiver<Option<Arc<Manifest>>> {
        self.manifest.clone()
    }

    /// Asks for the policy's detectors, where there is a policy.
    pub(super) fn asker(&self) -> Option<&Arc<Asker>> {
        self.asker.as_ref()
    }

    /// The fleet's.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Hands a callback's `traffic` to the gate.
    pub(super) fn callback_said(&self, traffic: &Value) {
        let (verdicts, warnings) = verdict::parse_traffic(traffic);
        for warning in &warnings {
            tracing::warn!("callback: {warning}");
        }
        match &self.gatekeeper {
            Some(gatekeeper) => gatekeeper.callback_said(verdicts),
            None => self.alarms.raise(
                "verdicts_without_gate",
                "the callback prints traffic verdicts, but nothing is gated here: set KUBERVISOR_ENDPOINTS",
            ),
        }
    }

    pub(super) async fn stop(&self) {
        if let Some(gatekeeper) = &self.gatekeeper {
            gatekeeper.stop().await;
        }
    }

    pub(super) fn views(&self) -> Vec<Arc<GatekeeperView>> {
        self.gatekeeper.iter().map(|gatekeeper| gatekeeper.view()).collect()
    }
}

/// `$FLEET_FILE`: a row for every known pod, written row by row.
pub(super) fn fleet_file(shared: &Shared) -> Vec<u8> {
    let views = shared.gatekeeping.views();
    let stories: BTreeMap<&str, &PodStory> =
        views.iter().flat_map(|view| &view.pods).map(|story| (story.uid.as_str(), story)).collect();
    let ledgers: Vec<&Ledger> = views.iter().filter_map(|view| view.ledger.as_ref()).collect();
    let records = Records::copy(&shared.desk);
    let mut file = vec![b'['];
    for record in records.iter().flat_map(Records::iter) {
        let Some(known) = record.read() else { continue };
        if file.len() > 1 {
            file.push(b',');
        }
        // Into memory, and from a plain structure: there is nothing to fail.
        let _written = serde_json::to_writer(&mut file, &fleet_row(&known, &stories, &ledgers));
    }
    file.push(b']');
    file
}

fn fleet_row(known: &Known<'_>, stories: &BTreeMap<&str, &PodStory>, ledgers: &[&Ledger]) -> FleetRow {
    let gated = !stories.is_empty() || !ledgers.is_empty();
    let uid = gated.then(|| uid(known));
    let uid = uid.as_ref();
    let entry = uid.and_then(|uid| ledgers.iter().find_map(|ledger| ledger.entries.get(uid)));
    let returned = uid.and_then(|uid| ledgers.iter().find_map(|ledger| ledger.returned.get(uid)));
    let story = uid.and_then(|uid| stories.get(uid.as_str()));
    let retries = entry.map(|entry| entry.retry_count).or(returned.map(|returned| returned.retry_count));
    let member = &known.member;
    FleetRow {
        id: member.id.to_string(),
        key: member.key,
        role: member.role.to_string(),
        nonce: member.nonce.as_deref().map(str::to_owned),
        age: known.age.as_secs_f64(),
        status: known.status,
        traffic: story.map_or(Traffic::Yes, |story| story.traffic),
        breaker: entry.map(|entry| entry.breaker.clone()),
        break_at: entry.map(|entry| entry.break_at),
        retry_count: retries.unwrap_or(0),
        verdict: story.map(|story| story.summary.clone()).filter(|summary| !summary.is_empty()),
    }
}

/// What the breakers look at.
pub(super) fn observations(shared: &Shared) -> Vec<Observation> {
    let views = shared.gatekeeping.views();
    let withheld: BTreeSet<&str> = views
        .iter()
        .flat_map(|view| &view.pods)
        .filter(|story| matches!(story.traffic, Traffic::No | Traffic::Pause))
        .map(|story| story.uid.as_str())
        .collect();
    // Payloads are parsed after the ensemble is free again: keepalives wait for nothing but the copying.
    let copied = shared.desk.with_ensemble(|ensemble, now| {
        let copy = |known: Known<'_>| {
            let id = known.member.id.to_string();
            (uid(&known), id, known.age, known.status, known.member.payload.get().to_owned())
        };
        ensemble.roster(now).map(copy).collect::<Vec<_>>()
    });
    let observe = |(uid, id, age, status, payload): (Uid, _, _, _, String)| Observation {
        withheld: withheld.contains(uid.as_str()),
        uid,
        id,
        age,
        status,
        heard: true,
        payload: Arc::new(serde_json::from_str(&payload).unwrap_or_default()),
    };
    copied.unwrap_or_default().into_iter().map(observe).collect()
}

fn uid(known: &Known<'_>) -> Uid {
    roster::uid(known.member.key, &known.member.id, known.member.nonce.as_deref())
}

fn rows(desk: &Desk, port: &TargetPort, now: Timestamp) -> Option<Vec<Row>> {
    let row = |known: Known<'_>| Row {
        key: known.member.key,
        id: known.member.id.to_string(),
        nonce: known.member.nonce.as_deref().map(str::to_owned),
        role: known.member.role.to_string(),
        port: match port {
            TargetPort::Fixed(port) => Some(*port),
            TargetPort::Pointer(_) => gatekeeper::port(port, &payload(&known)),
        },
        heard: now - known.age,
        state: match known.status {
            Status::Live => RowState::Live,
            Status::Expired => RowState::Silent,
            Status::Down => RowState::Down,
        },
    };
    desk.with_ensemble(|ensemble, moment| ensemble.roster(moment).map(row).collect())
}

fn payload(known: &Known<'_>) -> Value {
    serde_json::from_str(known.member.payload.get()).unwrap_or_default()
}
