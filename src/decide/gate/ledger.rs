//! The ledger: every pod that we withhold, or whose withdrawal is under way.
//!
//! Compare-and-swap on single pods does not protect a fleet: two controllers each withhold another pod.
//! One ledger written by compare-and-swap does, if a reservation is stored *before* the pod is changed
//! and released only when the pod shows that the withdrawal cannot land any more.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::fence::{Epoch, Fence};
use crate::decide::{
    fleet::{PodView, Traffic, Uid},
    time::Timestamp,
};

/// The schema number that this version writes and reads.
pub const SCHEMA: u32 = 1;

/// Largest size in bytes of a ledger that takes reservations: objects in etcd are limited to 1.5 MiB.
pub const CAP: usize = 512 * 1024;

/// The breaker's name in entries of pods without keepalives.
pub const SILENCE: &str = "silence";

/// The breaker's name in entries of pods that a person asked to withhold.
pub const PERSON: &str = "person";

/// The state of a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EntryState {
    /// Stored; the withdrawal may or may not have landed.
    Reserved,
    /// To be cancelled: not wanted any more, or the answer to the write was lost.
    Cancelling,
    /// The pod has traffic=no.
    Withheld,
    /// To be paused.
    Pausing,
    /// The pod has traffic=pause: the activator does not admit it.
    Paused,
    /// To be killed.
    Killing,
}

impl EntryState {
    /// The withdrawal has taken effect.
    pub(super) fn landed(self) -> bool {
        matches!(self, Self::Withheld | Self::Killing | Self::Pausing | Self::Paused)
    }
}

/// One withdrawal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The pod.
    pub uid: Uid,
    /// Its name, for display.
    pub name: String,
    /// The pod's fence as the list showed it: what our writes test.
    pub fence: Fence,
    /// The fence that a later admit or cancel writes.
    pub next: Fence,
    /// The state.
    pub state: EntryState,
    /// The breaker or callback that withheld it; its activator applies.
    pub breaker: String,
    /// Why, in one line of text.
    pub reason: String,
    /// When it was reserved.
    pub break_at: Timestamp,
    /// Number of withdrawals of this pod, this one included.
    pub retry_count: u32,
    /// `desired` of the fleet when it was reserved.
    pub desired: u32,
    /// Paused by a person: never overwritten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub human: bool,
    /// Milliseconds after its return during which it is not withheld again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare: Option<u64>,
    /// Bad pods per thousand serving ones before the withdrawal (`revertIfNoBetter`); removed once it helped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad_before: Option<u16>,
    /// As [`Returned::set_backs`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub set_backs: u8,
}

/// An admitted pod whose withdrawals still count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Returned {
    /// The breaker or callback that withheld it.
    pub breaker: String,
    /// Number of withdrawals.
    pub retry_count: u32,
    /// When it was admitted.
    pub admitted_at: Timestamp,
    /// It is not withheld before that time, because another client admitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare_until: Option<Timestamp>,
    /// Withdrawals in succession after which another manager set it back to `yes`, each within one activator period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub set_backs: u8,
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// Panic: most of the fleet looks bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Panic {
    /// When it began.
    pub since: Timestamp,
    /// The last evaluation that counted.
    pub evaluation: u64,
    /// When it counted.
    pub looked_at: Timestamp,
    /// Evaluations in a row below the threshold.
    pub calm: u8,
}

/// All withdrawals of one service, and the other state that must survive a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The UID of the resource, or without Kubernetes the prefix.
    pub uid: String,
    /// Random for each ledger that begins.
    pub epoch: Epoch,
    /// Rises with each write.
    pub serial: u64,
    /// The withdrawals, by pod.
    #[serde(default)]
    pub entries: BTreeMap<Uid, Entry>,
    /// Admitted pods whose withdrawals still count.
    #[serde(default)]
    pub returned: BTreeMap<Uid, Returned>,
    /// The times of the kills within the last hour.
    #[serde(default)]
    pub kills: Vec<Timestamp>,
    /// Nothing is withheld before that time: the last withdrawal did not lower the share of bad pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverted_until: Option<Timestamp>,
    /// Nothing is withheld while this is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic: Option<Panic>,
}

/// A ledger that cannot be used. After each of these nothing is withheld and nothing is written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Not JSON, or a member is missing or wrong.
    #[error("the stored ledger cannot be read")]
    DecodeLedger(#[source] serde_json::Error),
    /// Written by another version.
    #[error(
        "the stored ledger has schema {0}, this version reads {SCHEMA}: run one version only; nothing is withheld meanwhile"
    )]
    UnknownSchema(u64),
    /// It belongs to another resource.
    #[error("the stored ledger is of {found}, not of {expected}")]
    ForeignLedger {
        /// The stored UID.
        found: String,
        /// The UID of our resource.
        expected: String,
    },
    /// It cannot be encoded.
    #[error("the ledger cannot be written as JSON")]
    EncodeLedger(#[source] serde_json::Error),
}

/// The answer to the write of a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionOutcome {
    /// It landed.
    Landed,
    /// A test failed: it did not land and will not.
    Refused,
    /// No answer: it may have landed, or may land later.
    Unknown,
}

/// The one member that is read before the rest.
#[derive(Deserialize)]
pub(in crate::decide) struct SchemaNumber {
    pub(in crate::decide) schema: u64,
}

impl Entry {
    /// The withdrawals before this one that count: those by silence or on a person's request never do.
    pub(super) fn earlier_retries(&self) -> u32 {
        self.retry_count.saturating_sub(u32::from(![SILENCE, PERSON].contains(&self.breaker.as_str())))
    }

    /// An upper bound of its size as JSON in bytes (texts have no control characters, see [`one_line`]).
    pub fn size(&self) -> usize {
        let texts = [self.uid.as_str(), self.uid.as_str(), &self.name, &self.breaker, &self.reason];
        let fences = 2 * 18 + digits(self.fence.serial) + digits(self.next.serial);
        let marks = 16 * usize::from(self.human)
            + self.spare.map_or(0, |_| 32)
            + self.bad_before.map_or(0, |_| 20)
            + 16 * usize::from(self.set_backs > 0);
        176 + texts.iter().map(|text| quoted(text)).sum::<usize>() + fences + marks
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// The size in bytes of a text without control characters as JSON.
fn quoted(text: &str) -> usize {
    text.len() + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count()
}

/// `text` without control characters, cut off after 200 characters.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

impl Ledger {
    /// An empty ledger; `epoch` must be random.
    pub fn begin(uid: impl Into<String>, epoch: Epoch) -> Self {
        Self {
            schema: SCHEMA,
            uid: uid.into(),
            epoch,
            serial: 0,
            entries: BTreeMap::new(),
            returned: BTreeMap::new(),
            kills: Vec::new(),
            reverted_until: None,
            panic: None,
        }
    }

    /// The fence of this write of the ledger.
    pub fn fence(&self) -> Fence {
        Fence { epoch: self.epoch, serial: self.serial }
    }

    /// Reads a stored ledger of `uid`.
    ///
    /// # Errors
    /// When it is not a ledger of `uid` in [`SCHEMA`].
    pub fn decode(bytes: &[u8], uid: &str) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::DecodeLedger(source);
        let SchemaNumber { schema: found } = serde_json::from_slice(bytes).map_err(failed)?;
        if found != u64::from(SCHEMA) {
            return Err(LedgerError::UnknownSchema(found));
        }
        let ledger: Self = serde_json::from_slice(bytes).map_err(failed)?;
        ledger.check(uid).map(|()| ledger)
    }

    /// Whether it is a ledger of `uid` in [`SCHEMA`].
    pub(in crate::decide) fn check(&self, uid: &str) -> Result<(), LedgerError> {
        if self.schema != SCHEMA {
            return Err(LedgerError::UnknownSchema(self.schema.into()));
        }
        if self.uid != uid {
            return Err(LedgerError::ForeignLedger { found: self.uid.clone(), expected: uid.to_owned() });
        }
        Ok(())
    }

    /// As JSON.
    ///
    /// # Errors
    /// [`LedgerError::EncodeLedger`].
    pub fn encode(&self) -> Result<Vec<u8>, LedgerError> {
        serde_json::to_vec(self).map_err(LedgerError::EncodeLedger)
    }

    /// Sets the switch of `pod` by this ledger, for sinks without a switch on the pod (the endpoints file, a dry run).
    /// Every pod counts as claimed.
    pub fn project(&self, pod: &mut PodView) {
        let entry = self.entries.get(&pod.uid);
        pod.traffic = match entry.map(|entry| entry.state) {
            None | Some(EntryState::Reserved | EntryState::Cancelling) => Traffic::Yes,
            Some(EntryState::Paused) => Traffic::Pause,
            Some(EntryState::Withheld | EntryState::Pausing | EntryState::Killing) => Traffic::No,
        };
        pod.claimed = true;
        pod.fence = Some(entry.map_or(Fence { epoch: self.epoch, serial: 0 }, |entry| entry.fence));
        pod.strategy = entry.map(|entry| entry.breaker.clone());
        pod.break_at = entry.map(|entry| entry.break_at);
        pod.retry_count = entry.map(|entry| entry.retry_count);
        pod.admitted_at = self.returned.get(&pod.uid).map(|returned| returned.admitted_at);
    }

    /// Step 3: adds a reservation, or updates an entry.
    pub fn reserve(&mut self, entry: Entry) {
        self.returned.remove(&entry.uid);
        self.entries.insert(entry.uid.clone(), entry);
    }

    /// Step 4: the withdrawal landed, also if that was after the decision to cancel it.
    pub fn landed(&mut self, uid: &Uid) {
        self.transition(uid, &[EntryState::Reserved, EntryState::Cancelling], EntryState::Withheld);
    }

    /// Step 4: records the answer to a withdrawal. A refused or unknown one is cancelled and never sent again; only the
    /// pod's fence ends its entry.
    pub fn outcome(&mut self, uid: &Uid, outcome: ActionOutcome) {
        match outcome {
            ActionOutcome::Landed => self.landed(uid),
            ActionOutcome::Refused | ActionOutcome::Unknown => {
                self.transition(uid, &[EntryState::Reserved], EntryState::Cancelling);
            }
        }
    }

    /// Step 9: the pause landed.
    pub fn paused(&mut self, uid: &Uid) {
        self.transition(uid, &[EntryState::Pausing], EntryState::Paused);
    }

    /// Step 8: removes an entry whose withdrawal cannot land any more. `admitted`: since when the pod has its traffic
    /// back, so that its withdrawals still count; `None`: it was deleted.
    pub fn release(&mut self, uid: &Uid, admitted: Option<Timestamp>) {
        let Some(entry) = self.entries.remove(uid) else { return };
        if let Some(admitted_at) = admitted {
            let spare_until = entry.spare.map(|millis| admitted_at + Duration::from_millis(millis));
            let Entry { breaker, retry_count, set_backs, .. } = entry;
            let returned = Returned { breaker, retry_count, admitted_at, spare_until, set_backs };
            self.returned.insert(uid.clone(), returned);
        }
    }

    fn transition(&mut self, uid: &Uid, from: &[EntryState], to: EntryState) {
        if let Some(entry) = self.entries.get_mut(uid).filter(|entry| from.contains(&entry.state)) {
            entry.state = to;
        }
    }

    /// An upper bound of its size as JSON in bytes.
    pub fn size(&self) -> usize {
        let entries: usize = self.entries.values().map(Entry::size).sum();
        let returned: usize =
            self.returned.iter().map(|(uid, pod)| quoted(uid.as_str()) + quoted(&pod.breaker) + 176).sum();
        512 + 2 * self.uid.len() + 24 * self.kills.len() + entries + returned
    }

    /// The withdrawals of a pod that still count: one less per ten periods (at least 1 h) since its return.
    pub fn decayed(retry_count: u32, admitted_at: Timestamp, now: Timestamp, period: Duration) -> u32 {
        let stretch = (period * 10).max(Duration::from_secs(3600));
        let stretches = now.since(admitted_at).as_millis() / stretch.as_millis().max(1);
        retry_count.saturating_sub(u32::try_from(stretches).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests;
