//! The sink of fleets without Kubernetes: a withdrawal is the commit of a roster, fenced by the leader's term.
//!
//! Reservation and withdrawal are one transaction, so every action has landed once [`reserve`](TrafficSink::reserve) has
//! returned; [`projector`](super::projector) writes the files.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;

use super::{ListingFindings, Observed, PodDetail, Reservation, SinkError, TrafficSink, endpoints};
use crate::{
    adapters::store::{Batch, RecordKey, Store, StoreError, Term},
    api::requests::PersonRequests,
    config::EndpointsConfig,
    decide::{
        fleet::{Epoch, Presence, Uid},
        gate::{
            Plan,
            action::Action,
            budget::Budget,
            ledger::{self, ActionOutcome},
        },
        policy::Policy,
        roster::{EnsembleRow, FleetRules, Roster, silence::SilenceTracker},
        time::Timestamp,
    },
};

const NO_PORT: &str = "its port is not known, so it is not listed: set KUBERVISOR_TARGET_PORT, or have its payload \
                        hold an integer at KUBERVISOR_TARGET_PORT_POINTER";
const SILENT: &str =
    "silent, but too few other pods reported since to rule out that this master is cut off: it stays listed";
const FROM_FILE: &str =
    "taken from the endpoints file after the store was lost, and no keepalive yet: it stays listed";

/// Returns all pods of the ensemble; `None` while it is not loaded.
pub type EnsembleSource = Arc<dyn Fn() -> Option<Vec<EnsembleRow>> + Send + Sync>;

/// The settings of a process.
#[derive(Clone)]
pub struct RosterSettings {
    /// The fleet's name, `<namespace>/<app>`; a roster of another name is refused.
    pub of: String,
    /// Which pods belong to it.
    pub rules: FleetRules,
    /// Time without a keepalive after which a pod expires.
    pub ttl: Duration,
    /// When this process started; for one TTL nothing is withheld.
    pub started: Timestamp,
    /// The file that a lost roster is rebuilt from.
    pub endpoints: Option<EndpointsConfig>,
    /// Dry run: nothing is stored.
    pub dry_run: bool,
}

/// The sink of one leadership term.
pub struct RosterSink {
    settings: RosterSettings,
    store: Arc<dyn Store>,
    term: Term,
    ensemble: EnsembleSource,
    committed: Option<Roster>,
    draft: Roster,
    silence: SilenceTracker,
}

impl RosterSink {
    /// Reads the roster linearizably; if the store has none, adopts the addresses of the endpoints file.
    ///
    /// # Errors
    /// When the store does not respond, or its roster is of another schema or fleet.
    pub async fn open(
        settings: RosterSettings,
        store: Arc<dyn Store>,
        term: Term,
        ensemble: EnsembleSource,
        now: Timestamp,
    ) -> Result<Self, SinkError> {
        let records = store.load().await.map_err(SinkError::ReadLedger)?;
        let stored = records.get(&RecordKey::Ledger);
        let decoded = stored.map(|bytes| Roster::decode(bytes, &settings.of)).transpose();
        let committed = decoded.map_err(SinkError::UseRoster)?;
        let draft = match &committed {
            Some(roster) => roster.clone(),
            None => from_file(&settings, now).await?,
        };
        let silence = SilenceTracker::default();
        Ok(Self { settings, store, term, ensemble, committed, draft, silence })
    }

    fn details(&self) -> BTreeMap<Uid, PodDetail> {
        let detail = |(&key, pod): (&crate::decide::key::Key, &crate::decide::roster::RosterPod)| {
            let silent = pod.presence == Presence::Unknown;
            let note = match pod.port {
                None => Some(NO_PORT),
                _ if silent && pod.id.is_empty() => Some(FROM_FILE),
                _ if silent && !self.silence.believed(key) => Some(SILENT),
                Some(_) => None,
            };
            let address = pod.port.map(|port| std::net::SocketAddrV4::new(key.address(), port));
            let key_text = Some(key.to_string());
            let detail = PodDetail {
                key: key_text,
                address,
                presence: pod.presence,
                since: pod.since,
                note: note.map(str::to_owned),
            };
            (pod.uid(key), detail)
        };
        self.draft.pods.iter().map(detail).collect()
    }

    fn hold(&self, now: Timestamp) -> (Option<String>, Option<Timestamp>) {
        let until = self.settings.started + self.settings.ttl;
        if now >= until {
            return (None, None);
        }
        (
            Some(
                "started less than a TTL ago: nothing is withheld before every pod had time to report".into(),
            ),
            Some(until),
        )
    }
}

/// A new roster, with the pods of the endpoints file.
async fn from_file(settings: &RosterSettings, now: Timestamp) -> Result<Roster, SinkError> {
    let epoch = Epoch(getrandom::u64().map_err(|_| SinkError::NotReady("no random numbers"))?);
    let Some(config) = settings.endpoints.clone() else { return Ok(Roster::begin(&settings.of, epoch)) };
    let read = tokio::task::spawn_blocking(move || endpoints::read(&config.path, config.format)).await;
    let addresses = match read {
        Ok(Ok(addresses)) => addresses,
        // An unreadable file is not an empty one: its pods would lose their traffic.
        _ => return Err(SinkError::NotReady("the endpoints file exists and cannot be read")),
    };
    if addresses.is_empty() {
        return Ok(Roster::begin(&settings.of, epoch));
    }
    tracing::warn!(
        pods = addresses.len(),
        "the store holds no roster, but the endpoints file lists pods: they stay listed until they report or the gate removes them"
    );
    Ok(Roster::adopt(&settings.of, epoch, &addresses, now))
}

#[async_trait]
impl TrafficSink for RosterSink {
    async fn observe(&mut self, now: Timestamp, policy: &Policy) -> Result<Observed, SinkError> {
        let rows = (self.ensemble)().ok_or(SinkError::NotReady("the ensemble is not loaded"))?;
        let Self { settings: RosterSettings { rules, ttl, .. }, .. } = self;
        let (rules, ttl) = (rules.clone(), *ttl);
        self.draft = self.draft.clone().observe(now, &rules, &rows);
        let floor = Budget::floor(policy, self.draft.desired(&rules));
        self.silence.notice(now, ttl, floor, &self.draft, &rows);
        let (hold, hold_ends) = self.hold(now);
        let fleet = self.draft.fleet(&rules, |key| self.silence.believed(key), hold);
        let soon = self.silence.undecided().then(|| now + pause(ttl));
        Ok(Observed {
            fleet,
            ledger: self.draft.ledger.clone(),
            details: self.details(),
            look_again: [hold_ends, soon].into_iter().flatten().min(),
            stand_aside: None,
            hindrance: None,
            listing: ListingFindings::default(),
            requests: PersonRequests::default(),
        })
    }

    async fn reserve(&mut self, plan: Option<&Plan>, _report: &Value) -> Result<Reservation, SinkError> {
        let Some(plan) = plan else { return Ok(Reservation::Stored) };
        let next = self.draft.clone().apply(plan);
        let Some(next) = next.after(self.committed.as_ref()) else { return Ok(Reservation::Stored) };
        let encoded = next.encode().map_err(SinkError::UseRoster)?;
        let batch = Batch { put: vec![(RecordKey::Ledger, Bytes::from(encoded))], delete: Vec::new() };
        match self.store.commit(self.term, batch).await {
            Ok(()) => {
                (self.draft, self.committed) = (next.clone(), Some(next));
                Ok(Reservation::Stored)
            }
            Err(source) => {
                // It may have been stored, so the next generation must be higher.
                if matches!(source, StoreError::Unavailable { .. }) {
                    self.draft.generation = next.generation;
                }
                Err(SinkError::StoreLedger(source))
            }
        }
    }

    /// Nothing to send: the commit was the withdrawal.
    async fn send(&mut self, actions: &[Action]) -> Vec<ledger::ActionOutcome> {
        vec![ActionOutcome::Landed; actions.len()]
    }
}

/// Interval of the checks whether enough other pods have reported: TTL / 20, from 20 ms to 1 s.
fn pause(ttl: Duration) -> Duration {
    (ttl / 20).clamp(Duration::from_millis(20), Duration::from_secs(1))
}
