//! The one reader of the ensemble: its records as parsed rows, for the gate, the callback, the detectors and the pages.
//!
//! A record is parsed once per content and shared by all readers after that. Under the ingest lock texts are only
//! compared and copied; parsing happens after it is released, so that keepalives do not wait for it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::sync::watch;

use super::ingest::Ingest;
use crate::decide::{
    ensemble::{KnownPod, LifeStatus},
    fleet::Uid,
    key::Key,
    roster,
};

/// One pod: its record, and what changes with time.
pub(super) struct PodRow {
    pub(super) record: Arc<EnsembleRecord>,
    pub(super) status: LifeStatus,
    /// Since its last keepalive.
    pub(super) age: Duration,
    /// How much of it counts as silence.
    pub(super) silence: Duration,
}

/// A pod's canonical text, parsed.
#[derive(Debug, Deserialize)]
pub(super) struct EnsembleRecord {
    pub(super) key: Key,
    pub(super) id: String,
    pub(super) app: String,
    pub(super) role: String,
    #[serde(default)]
    pub(super) nonce: Option<String>,
    pub(super) seq: u64,
    /// Clients that are no agents of ours may send it, as JSON of any type.
    #[serde(default)]
    namespace: Value,
    /// Our agents say `true` when the payload is too old.
    #[serde(default)]
    stale: Value,
    payload: Box<RawValue>,
    #[serde(skip)]
    parsed_payload: OnceLock<Arc<Value>>,
    #[serde(skip)]
    uid: OnceLock<Uid>,
    #[serde(skip)]
    text: Box<[u8]>,
}

impl EnsembleRecord {
    fn read(text: Box<[u8]>) -> Option<Self> {
        let record: Self = serde_json::from_slice(&text).ok()?;
        Some(Self { text, ..record })
    }

    pub(super) fn uid(&self) -> &Uid {
        self.uid.get_or_init(|| roster::uid(self.key, &self.id, self.nonce.as_deref()))
    }

    /// The payload as canonical JSON text; the empty one, which is no data, if it is stale.
    pub(super) fn payload_text(&self) -> &str {
        if self.stale == Value::Bool(true) { r#""""# } else { self.payload.get() }
    }

    /// The payload; null if it has a number beyond the range of f64.
    pub(super) fn payload(&self) -> &Arc<Value> {
        self.parsed_payload
            .get_or_init(|| Arc::new(serde_json::from_str(self.payload_text()).unwrap_or_default()))
    }

    /// The pod's namespace, if its client sends one.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_str().filter(|name| !name.is_empty())
    }
}

/// Reads the ensemble of one master, and keeps the records of the last read.
pub(crate) struct EnsembleReader {
    ingest: Arc<Ingest>,
    last: Mutex<Vec<Arc<EnsembleRecord>>>,
}

impl EnsembleReader {
    pub(super) fn new(ingest: Arc<Ingest>) -> Self {
        Self { ingest, last: Mutex::default() }
    }

    /// All pods whose sequence number is stored, live and down, then those that expired lately; `None` while this
    /// master does not lead.
    pub(super) fn rows(&self) -> Option<Vec<PodRow>> {
        let mut last = self.last.lock();
        let copied = self.ingest.with_ensemble(|ensemble, now| {
            let mut cursor = ReadCursor { records: &last, at: 0 };
            let copy = |KnownPod { text, status, age, silence, .. }: KnownPod<'_>| {
                (cursor.find(text).ok_or_else(|| Box::<[u8]>::from(text)), status, (age, silence))
            };
            ensemble.known_pods(now).map(copy).collect::<Vec<_>>()
        });
        let parse = |(record, status, (age, silence)): (Result<_, Box<[u8]>>, _, _)| {
            let record = record.or_else(|text| EnsembleRecord::read(text).map(Arc::new).ok_or(())).ok()?;
            Some(PodRow { record, status, age, silence })
        };
        let rows: Option<Vec<_>> = copied.map(|copied| copied.into_iter().filter_map(parse).collect());
        *last = rows.iter().flatten().map(|row| Arc::clone(&row.record)).collect();
        rows
    }

    /// Counts up with every change that a snapshot shows; ages do not count.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.ingest.revisions()
    }
}

/// Finds texts among the records of the last read, which mostly have the same order.
struct ReadCursor<'a> {
    records: &'a [Arc<EnsembleRecord>],
    at: usize,
}

impl ReadCursor<'_> {
    /// Compares with the next record, the one after it (a pod has left) and the one before it (a pod has come).
    fn find(&mut self, text: &[u8]) -> Option<Arc<EnsembleRecord>> {
        let near = [self.at, self.at + 1, self.at.wrapping_sub(1)];
        let same = |at: &usize| self.records.get(*at).is_some_and(|record| *record.text == *text);
        let found = near.into_iter().find(same);
        self.at = found.unwrap_or(self.at) + 1;
        found.and_then(|at| self.records.get(at)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Arc<EnsembleRecord> {
        Arc::new(EnsembleRecord::read(text(id).into_bytes().into()).unwrap())
    }

    fn text(id: &str) -> String {
        format!(
            r#"{{"app":"shop","id":"{id}","ip":"10.0.0.1","key":"blXcB","namespace":"shop","payload":{{"n":[1]}},"role":"web","seq":3}}"#
        )
    }

    #[test]
    fn a_record_is_read_with_its_payload_as_text_and_as_value() {
        let record = record("a");
        assert_eq!((record.id.as_str(), record.seq, record.namespace()), ("a", 3, Some("shop")));
        assert_eq!(record.payload_text(), r#"{"n":[1]}"#);
        assert_eq!(record.payload().pointer("/n/0"), Some(&Value::from(1)));
        let stale = text("a").replace(r#""seq":3"#, r#""seq":3,"stale":true"#);
        let stale = EnsembleRecord::read(stale.into_bytes().into()).unwrap();
        assert_eq!((stale.payload_text(), &**stale.payload()), (r#""""#, &Value::from("")), "no data");
        assert!(EnsembleRecord::read(Box::from(*b"{")).is_none());
        let odd = text("a").replace(r#""namespace":"shop""#, r#""namespace":{"odd":1}"#);
        assert_eq!(EnsembleRecord::read(odd.into_bytes().into()).unwrap().namespace(), None);
    }

    /// Which of `now` are found among `before`.
    fn found<'a>(before: &[&str], now: &[&'a str]) -> Vec<&'a str> {
        let records: Vec<_> = before.iter().map(|id| record(id)).collect();
        let mut cursor = ReadCursor { records: &records, at: 0 };
        now.iter().copied().filter(|id| cursor.find(text(id).as_bytes()).is_some()).collect()
    }

    #[test]
    fn unchanged_records_are_found_when_others_come_leave_or_change() {
        let before = ["a", "b", "c", "d"];
        assert_eq!(found(&before, &before), before);
        assert_eq!(found(&before, &["a", "c", "d"]), ["a", "c", "d"]);
        assert_eq!(found(&before, &["a", "new", "b", "c", "d"]), before);
        assert_eq!(found(&before, &["a", "changed", "c", "d"]), ["a", "c", "d"]);
        assert_eq!(found(&before, &["d", "b", "c"]), ["b", "c"], "the last one took the place of the first");
    }
}
