//! The ledger in a resource's status: read from the cache, written by compare-and-swap only.
//!
//! `PUT …/status` with a resourceVersion is the only write that the API server guards: a merge patch and
//! an apply on a status are not. An answer without the ledger as it was sent comes from an API server
//! whose definition prunes it: then nothing may be withheld, since nothing is remembered.

use std::time::Duration;

use kube::Client;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{LabelSettings, ask, errors::WriteRefusal};
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
    },
};

/// For one request.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// So long after somebody else's write we leave the fleet to them.
const ASIDE: Duration = Duration::from_secs(3);
/// Reports that change by themselves: so many at once, and then one each [`REPORT_EVERY`].
const BURST: u32 = 5;
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// The moments right after writes to pods belong to those who put them into effect.
const GRACE: Duration = Duration::from_secs(1);

/// One resource's ledger and report.
pub(super) struct StatusLedger {
    client: Client,
    cluster: Cluster,
    settings: LabelSettings,
    /// The resource as it was read or written last.
    record: Option<std::sync::Arc<ResourceRecord>>,
    ledger: Option<Ledger>,
    /// The version of the resource that the ledger was read from or written with: a person may edit a ledger without its
    /// serial.
    decoded_at: Option<u64>,
    /// A new one that is not stored yet.
    begun: Option<Ledger>,
    /// It takes the place of whatever is stored: time ran backwards.
    displaces: bool,
    /// The status may not be written, as far as we know.
    forbidden_right: bool,
    /// It is not known what is stored.
    unsure: bool,
    /// What came back from a write was not what was sent.
    pub(super) pruned: bool,
    rewinds: u64,
    /// The last ledger that we saw or wrote.
    seen: Option<(Epoch, u64)>,
    aside: Option<Instant>,
    allowance: Allowance,
}

impl StatusLedger {
    pub(super) fn new(client: Client, cluster: Cluster, settings: LabelSettings) -> Self {
        Self {
            rewinds: cluster.rewinds(),
            client,
            cluster,
            settings,
            record: None,
            ledger: None,
            decoded_at: None,
            begun: None,
            displaces: false,
            forbidden_right: false,
            unsure: false,
            pruned: false,
            seen: None,
            aside: None,
            allowance: Allowance { left: BURST, since: Instant::now(), hushed: None },
        }
    }

    /// The ledger to plan on, as the cache or a fresh read has it.
    pub(super) async fn read(&mut self) -> Result<Ledger, SinkError> {
        if self.unsure {
            self.fetch().await?;
        }
        let cached = self.cluster.resource(&self.settings.namespace, &self.settings.name);
        let cached = cached.filter(|record| *record.uid == *self.settings.uid);
        let newest = match (cached, self.record.take()) {
            (Some(cached), Some(ours)) if ours.version > cached.version => Some(ours),
            (Some(cached), _) => Some(cached),
            // The cache may lag behind a read of ours.
            (None, ours) => ours.filter(|_| self.unsure),
        };
        let record = newest.ok_or(SinkError::NotReady { reason: "the resource is not there" })?;
        self.record = Some(record);
        if self.cluster.rewinds() != self.rewinds {
            self.rewinds = self.cluster.rewinds();
            tracing::warn!(
                service = self.settings.name,
                "time ran backwards in the API server: a new ledger begins"
            );
            (self.begun, self.displaces) = (Some(self.begin()?), true);
        }
        if !self.displaces && self.begun.is_some() && self.decoded()?.is_some() {
            // Somebody else has begun one, or our own was stored without a word.
            self.begun = None;
        }
        let ledger = match self.begun.clone() {
            Some(begun) => begun,
            None => self.stored().await?,
        };
        let version = self.record.as_ref().map(|record| record.version);
        self.decoded_at = version.filter(|_| self.begun.is_none());
        self.notice(&ledger);
        self.ledger = Some(ledger.clone());
        Ok(ledger)
    }

    /// Until when somebody else is at work.
    pub(super) fn aside(&self) -> Option<Duration> {
        let left = self.aside?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// PodRecords were written to: what has time waits.
    pub(super) fn defer_reports(&mut self) {
        self.allowance.hushed = Some(Instant::now() + GRACE);
    }

    /// The ledger as it was read or written last.
    pub(super) fn current(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// The status as it was read.
    pub(super) fn status(&self) -> Option<&Value> {
        self.record.as_ref()?.object.get("status")
    }

    /// Stores `next`, if there is one, and the report with it; or the report alone, at its own pace.
    pub(super) async fn write(
        &mut self,
        next: Option<&Ledger>,
        settles_only: bool,
        report: &Value,
    ) -> Result<Reservation, SinkError> {
        let news = !report.is_null();
        // Nobody says when a right is given back: each write is a trial.
        let must = (next.is_some() && !settles_only) || self.begun.is_some() || self.forbidden_right;
        if !must {
            if !news && next.is_none() {
                return Ok(Reservation::Stored);
            }
            // Until it is known that a withdrawal has landed, a person's yes looks as if it had not: that does not wait.
            if next.is_some() {
                self.allowance.hushed = None;
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
        let unusable = |source| SinkError::UseLedger { source };
        let value =
            serde_json::to_value(&ledger).map_err(|source| unusable(LedgerError::EncodeLedger { source }))?;
        status["ledger"] = value;
        let mark = self.cluster.mark(Kind::KubervisorServices);
        match self.put(&body(&record, &status)).await {
            // Time ran backwards: what was stored is of another world.
            Ok(stored) if !self.cluster.witness(Kind::KubervisorServices, stored.version, mark) => {
                Ok(Reservation::Conflict)
            }
            Ok(stored) => Ok(self.stored_as(stored, ledger)),
            Err(WriteRefusal::Conflict) => {
                self.unsure = true;
                // Somebody else may have begun one: two in turn would undo each other's claims.
                self.begun = self.begun.take().filter(|_| self.displaces);
                Ok(Reservation::Conflict)
            }
            Err(refusal) => {
                self.unsure = true;
                self.forbidden_right = matches!(refusal, WriteRefusal::Forbidden(_));
                Err(refusal.into_error("store the ledger in the resource's status"))
            }
        }
    }

    fn stored_as(&mut self, stored: ResourceRecord, ledger: Ledger) -> Reservation {
        let back = stored.object.pointer("/status/ledger").map(|value| decode(value, &self.settings.uid));
        self.pruned = !matches!(&back, Some(Ok(back)) if *back == ledger);
        self.seen = Some((ledger.epoch, ledger.serial));
        self.ledger = Some(ledger);
        self.forbidden_right = false;
        self.decoded_at = (!self.pruned).then_some(stored.version);
        self.cluster.merge_resource(stored.clone());
        self.record = Some(std::sync::Arc::new(stored));
        if self.pruned {
            // Asked again later: somebody may have applied the definition by then.
            self.aside = Some(Instant::now() + REPORT_EVERY);
            return Reservation::Conflict;
        }
        (self.begun, self.displaces) = (None, false);
        Reservation::Stored
    }

    /// Shows the report beside whatever ledger is stored, byte for byte: it is not ours to write.
    pub(super) async fn tell(&mut self, report: &Value) {
        let record = self.cluster.resource(&self.settings.namespace, &self.settings.name);
        let Some(record) = record.filter(|record| *record.uid == *self.settings.uid) else { return };
        if report.is_null() || self.allowance.take().is_some() {
            return;
        }
        let mut status = report.clone();
        if let Some(stored) = record.object.pointer("/status/ledger") {
            status["ledger"] = stored.clone();
        }
        match self.put(&body(&record, &status)).await {
            Ok(stored) => self.cluster.merge_resource(stored),
            Err(refusal) => tracing::debug!(service = self.settings.name, ?refusal, "no report was written"),
        }
    }

    /// The stored ledger; a new one where there is none, after a look past the cache.
    async fn stored(&mut self) -> Result<Ledger, SinkError> {
        if let Some(ledger) = self.decoded()? {
            return Ok(ledger);
        }
        self.fetch().await?;
        if let Some(ledger) = self.decoded()? {
            return Ok(ledger);
        }
        let begun = self.begin()?;
        self.begun = Some(begun.clone());
        Ok(begun)
    }

    /// `None`: there is none that could be ours.
    fn decoded(&self) -> Result<Option<Ledger>, SinkError> {
        if let (Some(ledger), Some(record)) = (&self.ledger, &self.record)
            && self.decoded_at == Some(record.version)
            && !self.unsure
        {
            return Ok(Some(ledger.clone()));
        }
        let Some(value) = self.status().and_then(|status| status.get("ledger")) else { return Ok(None) };
        match decode(value, &self.settings.uid) {
            Ok(ledger) => Ok(Some(ledger)),
            Err(source @ LedgerError::UnknownSchema { .. }) => Err(SinkError::UseLedger { source }),
            Err(error) => {
                tracing::warn!(service = self.settings.name, %error, "a new ledger begins");
                Ok(None)
            }
        }
    }

    fn begin(&self) -> Result<Ledger, SinkError> {
        let drawn = getrandom::u64().map_err(|_| SinkError::NotReady { reason: "no random numbers" })?;
        Ok(Ledger::begin(self.settings.uid.clone(), Epoch(drawn)))
    }

    /// Somebody else's write, or work that somebody may still be at: leave it to them for a while.
    fn notice(&mut self, ledger: &Ledger) {
        let now = (ledger.epoch, ledger.serial);
        let strange = match self.seen {
            Some(seen) => seen != now && self.begun.is_none(),
            None => ledger.entries.values().any(|entry| entry.state == EntryState::Reserved),
        };
        if strange {
            self.aside = Some(Instant::now() + ASIDE);
        }
        self.seen = Some(now);
    }

    async fn fetch(&mut self) -> Result<(), SinkError> {
        let request = axum::http::Request::get(self.path("")).body(Vec::new());
        let record = self.ask(request).await.map_err(|refusal| refusal.into_error("read the resource"))?;
        if *record.uid != *self.settings.uid {
            return Err(SinkError::NotReady { reason: "the resource was made anew" });
        }
        self.cluster.merge_resource(record.clone());
        self.record = Some(std::sync::Arc::new(record));
        self.unsure = false;
        Ok(())
    }

    async fn put(&self, body: &Value) -> Result<ResourceRecord, WriteRefusal> {
        let bytes = serde_json::to_vec(body).map_err(|source| WriteRefusal::Other(source.into()))?;
        let request = axum::http::Request::put(self.path("/status"))
            .header(axum::http::header::CONTENT_TYPE, "application/json");
        self.ask(request.body(bytes)).await
    }

    async fn ask(
        &self,
        request: Result<axum::http::Request<Vec<u8>>, axum::http::Error>,
    ) -> Result<ResourceRecord, WriteRefusal> {
        let request = request.map_err(|source| WriteRefusal::Other(source.into()))?;
        ask(&self.client, request).await
    }

    fn path(&self, sub: &str) -> String {
        let LabelSettings { namespace, name, .. } = &self.settings;
        format!("/apis/{API_VERSION}/namespaces/{namespace}/kubervisorservices/{name}{sub}")
    }
}

/// What is stored if nobody wrote since `record`.
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
    let bytes = serde_json::to_vec(value).map_err(|source| LedgerError::DecodeLedger { source })?;
    Ledger::decode(&bytes, uid)
}

/// How many reports may still be written by themselves.
struct Allowance {
    left: u32,
    since: Instant,
    /// Until when none may.
    hushed: Option<Instant>,
}

impl Allowance {
    /// `None`: one may be written, now; otherwise in how long.
    fn take(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let grown = now.duration_since(self.since).as_secs() / REPORT_EVERY.as_secs();
        if grown > 0 {
            self.left = self.left.saturating_add(u32::try_from(grown).unwrap_or(BURST)).min(BURST);
            self.since = now;
        }
        let refilled = (self.left == 0).then_some(self.since + REPORT_EVERY);
        let wait = self.hushed.max(refilled).map(|until| until.saturating_duration_since(now));
        let wait = wait.filter(|wait| !wait.is_zero());
        if wait.is_none() {
            self.left = self.left.saturating_sub(1);
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reports_come_in_bursts_and_then_one_by_one_and_none_right_after_a_withdrawal() {
        let mut allowance = Allowance { left: BURST, since: Instant::now(), hushed: None };
        assert!((0..BURST).all(|_| allowance.take().is_none()));
        assert_eq!(allowance.take(), Some(REPORT_EVERY));
        tokio::time::advance(REPORT_EVERY).await;
        assert_eq!((allowance.take(), allowance.take()), (None, Some(REPORT_EVERY)));
        tokio::time::advance(REPORT_EVERY).await;
        allowance.hushed = Some(Instant::now() + GRACE);
        assert_eq!(allowance.take(), Some(GRACE));
        tokio::time::advance(GRACE).await;
        assert_eq!(allowance.take(), None);
    }
}
