//! The ledger in a resource's status: read from the cache, written by compare-and-swap only.
//!
//! `PUT …/status` with a resourceVersion is the only write of a status that the API server guards against concurrent
//! changes; a merge patch and an apply are not. When the response lacks the ledger as it was sent, the installed
//! CustomResourceDefinition prunes it: then nothing may be withheld, since no reservation is stored.

use std::time::Duration;

use axum::http::Method;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    LabelSettings,
    allowance::{Allowance, REPORT_EVERY},
    errors::WriteRefusal,
    owner::{BESIDE_THE_REPORT, OwnerClaim},
    request,
};
use crate::{
    adapters::{
        kubernetes::{
            cluster::Cluster,
            objects::{Kind, ResourceRecord},
        },
        sink::{Reservation, SinkError},
    },
    api::{API_VERSION, KIND},
    decide::{
        fleet::Epoch,
        gate::ledger::{EntryState, Ledger, LedgerError},
        policy::Policy,
    },
};

/// Nothing is planned for this long after another process wrote the ledger, which may still be sending its plan.
const POSTPONE: Duration = Duration::from_secs(3);

/// One resource's ledger and report.
pub(super) struct StatusLedger {
    client: Client,
    cluster: Cluster,
    settings: LabelSettings,
    /// The resource as it was read or written last.
    record: Option<std::sync::Arc<ResourceRecord>>,
    ledger: Option<Ledger>,
    /// The resourceVersion that `ledger` was read from or written with; a person may edit a ledger and keep its serial.
    decoded_at: Option<u64>,
    /// A new ledger that is not stored yet.
    unstored: Option<Ledger>,
    /// `unstored` replaces whatever is stored, because the API server was restored from a backup.
    replaces_any: bool,
    /// The last write was forbidden.
    write_forbidden: bool,
    /// A write failed, so the record must be read from the API server.
    outdated: bool,
    /// The last response lacked the ledger as it was sent.
    pub(super) pruned: bool,
    rewinds: u64,
    /// Epoch and serial of the last ledger that was read or written.
    seen: Option<(Epoch, u64)>,
    postponed_until: Option<Instant>,
    allowance: Allowance,
    claim: OwnerClaim,
}

impl StatusLedger {
    pub(super) fn new(client: Client, cluster: Cluster, settings: LabelSettings) -> Self {
        let claim = OwnerClaim::of(settings.owner.clone());
        Self {
            rewinds: cluster.rewinds(),
            client,
            cluster,
            settings,
            record: None,
            ledger: None,
            decoded_at: None,
            unstored: None,
            replaces_any: false,
            write_forbidden: false,
            outdated: false,
            pruned: false,
            seen: None,
            postponed_until: None,
            allowance: Allowance::new(Instant::now()),
            claim,
        }
    }

    /// The ledger to plan on, from the cache or, after a failed write, from the API server.
    pub(super) async fn read(&mut self) -> Result<Ledger, SinkError> {
        if self.outdated {
            self.fetch().await?;
        }
        let cached = self.cluster.resource(&self.settings.namespace, &self.settings.name);
        let cached = cached.filter(|record| *record.uid == *self.settings.uid);
        let newest = match (cached, self.record.take()) {
            (Some(cached), Some(ours)) if ours.version > cached.version => Some(ours),
            (Some(cached), _) => Some(cached),
            // The cache may lag behind a read of ours.
            (None, ours) => ours.filter(|_| self.outdated),
        };
        let record = newest.ok_or(SinkError::NotReady("the resource is not there"))?;
        self.claim.check(record.object.get("status"))?;
        self.record = Some(record);
        if self.cluster.rewinds() != self.rewinds {
            self.rewinds = self.cluster.rewinds();
            tracing::warn!(
                service = self.settings.name,
                "time ran backwards in the API server: a new ledger begins"
            );
            (self.unstored, self.replaces_any) = (Some(self.begin()?), true);
        }
        if !self.replaces_any && self.unstored.is_some() && self.decoded()?.is_some() {
            // Another process has begun a ledger, or ours was stored by a write whose response was lost.
            self.unstored = None;
        }
        let ledger = match self.unstored.clone() {
            Some(unstored) => unstored,
            None => self.stored().await?,
        };
        let version = self.record.as_ref().map(|record| record.version);
        self.decoded_at = version.filter(|_| self.unstored.is_none());
        self.detect_other_writer(&ledger);
        self.ledger = Some(ledger.clone());
        Ok(ledger)
    }

    /// The resource that the ledger was read with has a newer spec than the policy: a pause, a dry run or a higher floor, say.
    /// A write that rests on this resource would pass the compare-and-swap with a plan of the older spec.
    pub(super) fn is_ahead_of(&self, policy: &Policy) -> bool {
        let stored = self.record.as_ref().map(|record| record.generation);
        policy.generation.is_some_and(|known| stored.is_some_and(|stored| stored > known))
    }

    pub(super) fn postponed(&self) -> Option<Duration> {
        let left = self.postponed_until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Pods were written: reports wait for a second.
    pub(super) fn defer_reports(&mut self) {
        self.allowance.defer();
    }

    pub(super) fn current(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// The status as last read or written.
    pub(super) fn status(&self) -> Option<&Value> {
        self.record.as_ref()?.object.get("status")
    }

    /// Stores `next` and the report; without `next` only the report, as often as [`Allowance`] grants it.
    pub(super) async fn write(
        &mut self,
        next: Option<&Ledger>,
        settles_only: bool,
        report: &Value,
    ) -> Result<Reservation, SinkError> {
        let has_report = !report.is_null();
        // While writing is forbidden each call writes, since a granted right is only noticed by trying.
        let required = (next.is_some() && !settles_only)
            || self.unstored.is_some()
            || self.write_forbidden
            || self.claim.is_due();
        if !required {
            if !has_report && next.is_none() {
                return Ok(Reservation::Stored);
            }
            // Not deferred: until a landing is stored, a person's `yes` looks like a withdrawal that has not landed.
            if next.is_some() {
                self.allowance.hasten();
            }
            if let Some(left) = self.allowance.take() {
                return Ok(Reservation::Later(left));
            }
        }
        let Some(ledger) = next.or(self.ledger.as_ref()).cloned() else { return Ok(Reservation::Stored) };
        let Some(record) = self.record.clone() else { return Ok(Reservation::Conflict) };
        let mut status = if report.is_null() {
            self.status().cloned().unwrap_or_else(|| json!({}))
        } else {
            report.clone()
        };
        let unusable = |source| SinkError::UseLedger(source);
        let value =
            serde_json::to_value(&ledger).map_err(|source| unusable(LedgerError::EncodeLedger(source)))?;
        status["ledger"] = value;
        self.claim.write(&mut status);
        let (kind, before) = (Kind::KubervisorServices, record.version);
        let mark = self.cluster.mark(kind);
        let rewound = |after| !self.cluster.check_version(kind, before, after, mark);
        match self.put(&body(&record, &status)).await {
            // The API server was restored from a backup meanwhile.
            Ok(stored) if rewound(stored.version) => Ok(Reservation::Conflict),
            Ok(stored) => Ok(self.stored_as(stored, ledger)),
            Err(WriteRefusal::Conflict) => {
                self.outdated = true;
                // Another process may have begun a ledger; alternating ones would undo each other's claims.
                self.unstored = self.unstored.take().filter(|_| self.replaces_any);
                Ok(Reservation::Conflict)
            }
            Err(refusal) => {
                self.outdated = true;
                self.write_forbidden =
                    matches!(refusal, WriteRefusal::Forbidden(_) | WriteRefusal::Denied(_));
                Err(refusal.into_error("store the ledger in the resource's status"))
            }
        }
    }

    fn stored_as(&mut self, stored: ResourceRecord, ledger: Ledger) -> Reservation {
        let back = stored.object.pointer("/status/ledger").map(|value| decode(value, &self.settings.uid));
        self.pruned = !matches!(&back, Some(Ok(back)) if *back == ledger);
        self.seen = Some((ledger.epoch, ledger.serial));
        self.ledger = Some(ledger);
        self.write_forbidden = false;
        self.claim.written();
        self.decoded_at = (!self.pruned).then_some(stored.version);
        self.cluster.merge_resource(stored.clone());
        self.record = Some(std::sync::Arc::new(stored));
        if self.pruned {
            // Tried again later, in case the definition was updated.
            self.postponed_until = Some(Instant::now() + REPORT_EVERY);
            return Reservation::Conflict;
        }
        (self.unstored, self.replaces_any) = (None, false);
        Reservation::Stored
    }

    /// Writes the report and leaves the stored ledger as it is.
    pub(super) async fn publish_report(&mut self, report: &Value) {
        let record = self.cluster.resource(&self.settings.namespace, &self.settings.name);
        let Some(record) = record.filter(|record| *record.uid == *self.settings.uid) else { return };
        if report.is_null() || self.allowance.take().is_some() {
            return;
        }
        let mut status = report.clone();
        let stored = record.object.get("status").unwrap_or(&Value::Null);
        for kept in BESIDE_THE_REPORT.into_iter().filter(|kept| stored.get(kept).is_some()) {
            status[kept] = stored[kept].clone();
        }
        match self.put(&body(&record, &status)).await {
            Ok(stored) => self.cluster.merge_resource(stored),
            Err(refusal) => {
                tracing::debug!(service = self.settings.name, ?refusal, "the report was not written")
            }
        }
    }

    /// The stored ledger; a new one if the API server has none either.
    async fn stored(&mut self) -> Result<Ledger, SinkError> {
        if let Some(ledger) = self.decoded()? {
            return Ok(ledger);
        }
        self.fetch().await?;
        if let Some(ledger) = self.decoded()? {
            return Ok(ledger);
        }
        let unstored = self.begin()?;
        self.unstored = Some(unstored.clone());
        Ok(unstored)
    }

    /// The ledger in the cached status; `None`: there is none of this resource.
    fn decoded(&self) -> Result<Option<Ledger>, SinkError> {
        if let (Some(ledger), Some(record)) = (&self.ledger, &self.record)
            && self.decoded_at == Some(record.version)
            && !self.outdated
        {
            return Ok(Some(ledger.clone()));
        }
        let Some(value) = self.status().and_then(|status| status.get("ledger")) else { return Ok(None) };
        match decode(value, &self.settings.uid) {
            Ok(ledger) => Ok(Some(ledger)),
            Err(source @ LedgerError::UnknownSchema { .. }) => Err(SinkError::UseLedger(source)),
            Err(error) => {
                tracing::warn!(service = self.settings.name, %error, "a new ledger begins");
                Ok(None)
            }
        }
    }

    fn begin(&self) -> Result<Ledger, SinkError> {
        let drawn = getrandom::u64().map_err(|_| SinkError::NotReady("no random numbers"))?;
        Ok(Ledger::begin(self.settings.uid.clone(), Epoch(drawn)))
    }

    /// Postpones planning when another process wrote the ledger, or when the first ledger read has open reservations.
    fn detect_other_writer(&mut self, ledger: &Ledger) {
        let now = (ledger.epoch, ledger.serial);
        let other_writer = match self.seen {
            Some(seen) => seen != now && self.unstored.is_none(),
            None => ledger.entries.values().any(|entry| entry.state == EntryState::Reserved),
        };
        if other_writer {
            self.postponed_until = Some(Instant::now() + POSTPONE);
        }
        self.seen = Some(now);
    }

    async fn fetch(&mut self) -> Result<(), SinkError> {
        let record: ResourceRecord = request::get(&self.client, &self.path())
            .await
            .map_err(|refusal| refusal.into_error("read the resource"))?;
        if *record.uid != *self.settings.uid {
            return Err(SinkError::NotReady("the resource was deleted and created again"));
        }
        self.cluster.merge_resource(record.clone());
        self.record = Some(std::sync::Arc::new(record));
        self.outdated = false;
        Ok(())
    }

    /// Whether `next` differs from the last ledger only by reservations that have landed, which the pods show anyway.
    pub(super) fn settles(&self, next: &Ledger) -> bool {
        let Some(now) = &self.ledger else { return false };
        let same_pods = now.entries.len() == next.entries.len()
            && now.entries.iter().all(|(uid, entry)| {
                next.entries.get(uid).is_some_and(|later| {
                    let settled = entry.state == EntryState::Reserved && later.state == EntryState::Withheld;
                    (settled || entry.state == later.state) && entry.fence == later.fence
                })
            });
        same_pods
            && now.panic == next.panic
            && now.kills == next.kills
            && now.reverted_until == next.reverted_until
    }

    async fn put(&self, body: &Value) -> Result<ResourceRecord, WriteRefusal> {
        let path = format!("{}/status", self.path());
        request::send(&self.client, Method::PUT, &path, "application/json", body).await
    }

    fn path(&self) -> String {
        Kind::KubervisorServices.object_path(&self.settings.namespace, &self.settings.name)
    }
}

/// The body of a write that is refused when the resource has changed since `record`.
fn body(record: &ResourceRecord, status: &Value) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": KIND, "status": status,
        "metadata": {
            "namespace": &*record.namespace, "name": &*record.name, "uid": &*record.uid,
            "resourceVersion": record.version.to_string(),
        },
    })
}

fn decode(value: &Value, uid: &str) -> Result<Ledger, LedgerError> {
    let bytes = serde_json::to_vec(value).map_err(LedgerError::DecodeLedger)?;
    Ledger::decode(&bytes, uid)
}
