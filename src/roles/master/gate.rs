//! Connects the gate to a master: the policy file, verdicts, and the ensemble as its rows.
//!
//! There is a gate when there is an endpoints file or a policy. A policy without an endpoints file is a dry run: the
//! gate decides and reports, and nothing is written.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::reader::{EnsembleReader, PodRow};
use crate::{
    adapters::{policy_file::PolicyFile, secrets::Files, sink::roster::RosterSettings, store::Store},
    alarms::Alarms,
    api::{Context, Detectors, Manifest, Timing},
    config::{Config, MasterConfig, TargetPort},
    core_task::until_stopped,
    decide::alarm_reason::AlarmReason,
    decide::{
        detect::Observation,
        fleet::Traffic,
        fleet_report::FleetRow,
        gate::ledger::Ledger,
        policy::Policy,
        roster::{EnsembleRow, FleetRules},
        time::Timestamp,
        verdict,
    },
    exit::Exit,
    roles::{
        breaker::{Asker, AskerMetrics},
        gate::{
            self, RosterGate, RosterGateDeps,
            metrics::GateMetrics,
            snapshot::{GateSnapshot, PodSnapshot},
        },
    },
    runtime::{self, Runtime},
};

/// How often the policy file is checked for changes.
const POLICY_INTERVAL: Duration = Duration::from_secs(1);

/// Room for a row of `$FLEET_FILE` without a verdict.
const FLEET_ROW_BYTES: usize = 160;

/// The gate's configuration, read before the store is open.
pub(crate) struct GateConfig {
    policy: Option<PolicyFile>,
    settings: Option<RosterSettings>,
    port: TargetPort,
    namespace: String,
    asker: Option<Arc<Asker>>,
}

/// The gate of one process.
pub(crate) struct GateHandle {
    pub(super) roster_gate: Option<Arc<RosterGate>>,
    pub(super) manifest: watch::Receiver<Option<Arc<Manifest>>>,
    pub(super) asker: Option<Arc<Asker>>,
    pub(super) namespace: String,
    alarms: Alarms,
}

impl GateConfig {
    /// Reads the policy and decides what is gated.
    ///
    /// # Errors
    /// [`Exit::Usage`] with all mistakes of the policy, [`Exit::Failed`] when no client for queries can be made.
    pub(crate) fn read(config: &Config, master: &MasterConfig, process: &Runtime) -> Result<Self, Exit> {
        let timing = Timing { ttl: master.ttl, ping_every: master.ping_every };
        let context = Context {
            detectors: Detectors::WithoutSecrets,
            timing: Some(timing),
            sources: runtime::sources(master.sources.as_deref())?,
        };
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
            // Without a file no endpoint is written, so that the port is not used.
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
        reader: &Arc<EnsembleReader>,
        process: &Runtime,
        stop: &CancellationToken,
    ) -> GateHandle {
        let first = self.policy.as_ref().map(PolicyFile::current);
        let policy = |manifest: &Option<Arc<Manifest>>| match manifest {
            Some(manifest) => Arc::new(manifest.policy.clone()),
            None => Arc::new(Policy::without_manifest(app)),
        };
        let (policies, policy_now) = watch::channel(policy(&first));
        let (manifests, manifest) = watch::channel(first);
        if let Some(file) = self.policy {
            let following = follow_file(file, policies, manifests, process.alarms.clone(), stop.clone());
            tokio::spawn(until_stopped(&process.alarms, "the policy file", stop, following));
        }
        let (port, source, clock) = (self.port, Arc::clone(reader), process.clock);
        let roster_gate = self.settings.map(|roster| {
            RosterGate::start(RosterGateDeps {
                store: Arc::clone(store),
                ensemble: Arc::new(move || rows(&source, &port, clock.wall())),
                changes: reader.changes(),
                policy: policy_now,
                roster,
                namespace: self.namespace.clone(),
                clock,
                alarms: process.alarms.clone(),
                metrics: process.metrics.with_registry(GateMetrics::register),
            })
        });
        let alarms = process.alarms.clone();
        GateHandle { roster_gate, manifest, asker: self.asker, namespace: self.namespace, alarms }
    }
}

/// Without Kubernetes there are no Secrets, only files.
fn asker(process: &Runtime) -> Result<Arc<Asker>, Exit> {
    let metrics = process.metrics.with_registry(AskerMetrics::register);
    let asker = Asker::new(Arc::new(Files), process.clock, metrics);
    asker.map(Arc::new).map_err(|error| Exit::Failed(error.into()))
}

/// Reloads the policy file when it changes; one with mistakes is refused, and the old policy stays in force.
async fn follow_file(
    mut file: PolicyFile,
    policies: watch::Sender<Arc<Policy>>,
    manifests: watch::Sender<Option<Arc<Manifest>>>,
    alarms: Alarms,
    stop: CancellationToken,
) {
    let mut interval = tokio::time::interval(POLICY_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        match file.reload() {
            Ok(false) => {}
            Ok(true) => {
                alarms.clear(AlarmReason::PolicyRefused);
                tracing::info!(file = %file.path().display(), "a new policy is in force");
                manifests.send_replace(Some(file.current()));
                policies.send_replace(Arc::new(file.current().policy.clone()));
            }
            Err(problems) => {
                alarms.raise(AlarmReason::PolicyRefused, format!("the old policy stays in force\n{problems}"))
            }
        }
    }
}

impl GateHandle {
    #[cfg(test)]
    pub(super) fn none(alarms: Alarms) -> Self {
        let manifest = watch::Sender::new(None).subscribe();
        Self { roster_gate: None, manifest, asker: None, namespace: String::new(), alarms }
    }

    /// Hands a callback's `traffic` to the gate.
    pub(super) fn callback_said(&self, traffic: &Value) {
        let (verdicts, warnings) = verdict::parse_traffic(traffic);
        for warning in &warnings {
            tracing::warn!("callback: {warning}");
        }
        match &self.roster_gate {
            Some(roster_gate) => roster_gate.reconciler().set_callback_verdicts(verdicts),
            None => self.alarms.raise(
                AlarmReason::VerdictsWithoutGate,
                "the callback prints traffic verdicts, but nothing is gated here: set KUBERVISOR_ENDPOINTS",
            ),
        }
    }

    pub(super) async fn stop(&self) {
        if let Some(roster_gate) = &self.roster_gate {
            roster_gate.stop().await;
        }
    }

    pub(super) fn views(&self) -> Vec<Arc<GateSnapshot>> {
        self.roster_gate.iter().map(|roster_gate| roster_gate.snapshot()).collect()
    }

    /// What the gate decided last, shared with it.
    fn decided(&self) -> Option<Arc<GateSnapshot>> {
        self.roster_gate.as_ref().map(|roster_gate| roster_gate.reconciler().snapshot())
    }

    /// `$FLEET_FILE`: one JSON row for every known pod.
    pub(super) fn fleet_file(&self, reader: &EnsembleReader) -> Vec<u8> {
        let decided = self.decided();
        let stories: BTreeMap<&str, &PodSnapshot> =
            decided.iter().flat_map(|view| &view.pods).map(|story| (story.uid.as_str(), story)).collect();
        let ledger = decided.as_ref().and_then(|view| view.ledger.as_ref());
        let rows = reader.rows().unwrap_or_default();
        let mut file = Vec::with_capacity(rows.len() * FLEET_ROW_BYTES);
        file.push(b'[');
        for row in &rows {
            if file.len() > 1 {
                file.push(b',');
            }
            // Cannot fail: a plain structure is written to memory.
            let _written = serde_json::to_writer(&mut file, &fleet_row(row, &stories, ledger));
        }
        file.push(b']');
        file
    }

    /// The pods as the detectors judge them.
    pub(super) fn observations(&self, reader: &EnsembleReader) -> Vec<Observation> {
        let decided = self.decided();
        let withheld: BTreeSet<&str> = decided
            .iter()
            .flat_map(|view| &view.pods)
            .filter(|story| matches!(story.traffic, Traffic::No | Traffic::Pause))
            .map(|story| story.uid.as_str())
            .collect();
        let observe = |PodRow { record, status, silence, .. }: PodRow| Observation {
            withheld: withheld.contains(record.uid().as_str()),
            uid: record.uid().clone(),
            id: record.id.clone(),
            age: silence,
            status,
            heard: true,
            name_age: None,
            payload: Arc::clone(record.payload()),
        };
        reader.rows().into_iter().flatten().map(observe).collect()
    }
}

fn fleet_row<'a>(
    row: &'a PodRow,
    stories: &BTreeMap<&str, &'a PodSnapshot>,
    ledger: Option<&'a Ledger>,
) -> FleetRow<'a> {
    let (uid, record) = (row.record.uid(), &*row.record);
    let entry = ledger.and_then(|ledger| ledger.entries.get(uid));
    let returned = ledger.and_then(|ledger| ledger.returned.get(uid));
    let story = stories.get(uid.as_str());
    let retries = entry.map(|entry| entry.retry_count).or(returned.map(|returned| returned.retry_count));
    FleetRow {
        id: record.id.as_str().into(),
        key: record.key,
        role: record.role.as_str().into(),
        nonce: record.nonce.as_deref().map(Cow::from),
        age: row.age.as_secs_f64(),
        status: row.status,
        traffic: story.map_or(Traffic::Yes, |story| story.traffic),
        breaker: entry.map(|entry| entry.breaker.as_str().into()),
        break_at: entry.map(|entry| entry.break_at),
        retry_count: retries.unwrap_or(0),
        verdict: story.filter(|story| !story.summary.is_empty()).map(|story| story.summary.as_str().into()),
    }
}

/// The ensemble as the gate's roster takes it.
fn rows(reader: &EnsembleReader, port: &TargetPort, now: Timestamp) -> Option<Vec<EnsembleRow>> {
    let row = |PodRow { record, status, age, .. }: PodRow| EnsembleRow {
        key: record.key,
        id: record.id.clone(),
        nonce: record.nonce.clone(),
        role: record.role.clone(),
        port: match port {
            TargetPort::Fixed(port) => Some(*port),
            TargetPort::Pointer(_) => gate::port(port, record.payload()),
        },
        heard: now - age,
        state: status,
    };
    Some(reader.rows()?.into_iter().map(row).collect())
}
