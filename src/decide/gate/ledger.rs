//! The ledger: every pod that is, or may be about to be, out of traffic by our hand.
//!
//! Compare-and-swap on single pods does not protect a fleet: two controllers each cut another pod. A
//! ledger that is only written by compare-and-swap does, if a reservation is stored *before* the pod is
//! touched and is given up only when the pod shows that the withdrawal can land no more.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::fence::{Epoch, Fence};
use crate::decide::{
    fleet::{PodView, Traffic, Uid},
    time::Timestamp,
};

/// The layout that this version writes and reads.
pub const SCHEMA: u32 = 1;

/// No more is withheld once the ledger would be larger than this.
pub const CAP: usize = 512 * 1024;

/// What is known of a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Stored; the pod may or may not have been told.
    Reserved,
    /// Not wanted any more, or its fate is unknown.
    Cancelling,
    /// The pod says so.
    Withheld,
    /// To be paused.
    Pausing,
    /// Paused: time does not bring it back.
    Paused,
    /// To be ended.
    Killing,
}

/// One withdrawal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The pod.
    pub uid: Uid,
    /// For people.
    pub name: String,
    /// The pod's fence as the list showed it: what our writes test.
    pub fence: Fence,
    /// The fence that a later admit or cancel writes.
    pub next: Fence,
    /// What is known.
    pub state: State,
    /// On whose account; its activator applies.
    pub breaker: String,
    /// Why, in one line.
    pub reason: String,
    /// When.
    pub break_at: Timestamp,
    /// How often this pod was cut, this time included.
    pub retry_count: u32,
    /// How many pods there should have been when it was cut.
    pub desired: u32,
    /// A person's hand: never overwritten (a pause), or no new cut for a while (a yes).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub human: bool,
    /// Bad pods per thousand serving ones before the cut, until it is known whether the cut helped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad_before: Option<u16>,
}

/// What is remembered of a pod that was given its traffic back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Returned {
    /// Who had withheld it.
    pub breaker: String,
    /// How often it was cut.
    pub retry_count: u32,
    /// When it came back.
    pub admitted_at: Timestamp,
    /// No new cut before that: a person gave it its traffic back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare_until: Option<Timestamp>,
}

/// Most of the fleet looked bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Panic {
    /// Since when.
    pub since: Timestamp,
    /// The last evaluation that was looked at.
    pub evaluation: u64,
    /// How many calm ones in a row.
    pub calm: u8,
}

/// All withdrawals of one service, and what must outlive a process with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Of what it is the ledger: the resource's UID, or the prefix.
    pub uid: String,
    /// Random; a new one with each ledger that begins.
    pub epoch: Epoch,
    /// Rises with every write.
    pub serial: u64,
    /// The withdrawals.
    #[serde(default)]
    pub entries: BTreeMap<Uid, Entry>,
    /// Pods on trial, with the cuts that are remembered against them.
    #[serde(default)]
    pub returned: BTreeMap<Uid, Returned>,
    /// Within the last hour.
    #[serde(default)]
    pub kills: Vec<Timestamp>,
    /// Nothing is withheld while this is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic: Option<Panic>,
}

/// Stored bytes that are no ledger of ours. All of them mean: read only, withhold nothing.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Not JSON, or not with our members.
    #[error("the stored ledger cannot be read")]
    DecodeLedger {
        /// What is wrong, and where.
        #[source]
        source: serde_json::Error,
    },
    /// Another version wrote it.
    #[error(
        "the stored ledger has schema {found}, this version reads {SCHEMA}: run one version only; nothing is withheld meanwhile"
    )]
    UnknownSchema {
        /// What it says.
        found: u64,
    },
    /// It belongs to another resource.
    #[error("the stored ledger is of {found}, not of {expected}")]
    ForeignLedger {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// It cannot be written.
    #[error("the ledger cannot be written as JSON")]
    EncodeLedger {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl LedgerError {
    /// For a metric.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::DecodeLedger { .. } => "decode",
            Self::UnknownSchema { .. } => "schema",
            Self::ForeignLedger { .. } => "foreign",
            Self::EncodeLedger { .. } => "encode",
        }
    }
}

/// What became of an attempt to withhold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was done.
    Landed,
    /// A test failed: it was not done, and this attempt will not be.
    Refused,
    /// No answer: it may have been done, or may be yet.
    Unknown,
}

impl Ledger {
    /// An empty ledger; `epoch` must be random.
    #[must_use]
    pub fn begin(uid: impl Into<String>, epoch: Epoch) -> Self {
        Self {
            schema: SCHEMA,
            uid: uid.into(),
            epoch,
            serial: 0,
            entries: BTreeMap::new(),
            returned: BTreeMap::new(),
            kills: Vec::new(),
            panic: None,
        }
    }

    /// The fence that this state of the ledger makes.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence { epoch: self.epoch, serial: self.serial }
    }

    /// Reads a stored ledger of `uid`.
    ///
    /// # Errors
    /// When it is not a ledger of `uid` that this version can read: withhold nothing then.
    pub fn decode(bytes: &[u8], uid: &str) -> Result<Self, LedgerError> {
        #[derive(Deserialize)]
        struct Layout {
            schema: u64,
        }
        let failed = |source| LedgerError::DecodeLedger { source };
        let layout: Layout = serde_json::from_slice(bytes).map_err(failed)?;
        if layout.schema != u64::from(SCHEMA) {
            return Err(LedgerError::UnknownSchema { found: layout.schema });
        }
        let ledger: Self = serde_json::from_slice(bytes).map_err(failed)?;
        if ledger.uid != uid {
            return Err(LedgerError::ForeignLedger { found: ledger.uid, expected: uid.to_owned() });
        }
        Ok(ledger)
    }

    /// As JSON.
    ///
    /// # Errors
    /// [`LedgerError::EncodeLedger`].
    pub fn encode(&self) -> Result<Vec<u8>, LedgerError> {
        serde_json::to_vec(self).map_err(|source| LedgerError::EncodeLedger { source })
    }

    /// Writes into `pod` what this ledger says of it, where the ledger itself is the switch (the endpoints file, a
    /// dry run): every pod counts as claimed.
    pub fn project(&self, pod: &mut PodView) {
        let entry = self.entries.get(&pod.uid);
        pod.traffic = match entry.map(|entry| entry.state) {
            None | Some(State::Reserved | State::Cancelling) => Traffic::Yes,
            Some(State::Paused) => Traffic::Pause,
            Some(State::Withheld | State::Pausing | State::Killing) => Traffic::No,
        };
        pod.claimed = true;
        pod.in_endpoints = pod.traffic == Traffic::Yes;
        pod.fence = Some(entry.map_or(Fence { epoch: self.epoch, serial: 0 }, |entry| entry.fence));
        pod.strategy = entry.map(|entry| entry.breaker.clone());
        pod.break_at = entry.map(|entry| entry.break_at);
        pod.retry_count = entry.map(|entry| entry.retry_count);
        pod.admitted_at = self.returned.get(&pod.uid).map(|returned| returned.admitted_at);
    }

    /// Cuts that still count against a pod: one less for each stretch of good service.
    #[must_use]
    pub fn decayed(retry_count: u32, admitted_at: Timestamp, now: Timestamp, period: Duration) -> u32 {
        let stretch = (period * 10).max(Duration::from_secs(3600));
        let stretches = now.since(admitted_at).as_millis() / stretch.as_millis().max(1);
        retry_count.saturating_sub(u32::try_from(stretches).unwrap_or(u32::MAX))
    }
}
