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
pub enum EntryState {
    /// Stored; the pod may or may not have been told.
    Reserved,
    /// Not wanted any more, or its decision is unknown.
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
    pub state: EntryState,
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
    /// A person paused it: never overwritten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub human: bool,
    /// Milliseconds: once it is back there is no new cut of it for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare: Option<u64>,
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
    /// When it was.
    pub looked_at: Timestamp,
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
    /// Nothing is withheld before that: the last cut did not lower the share of bad pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverted_until: Option<Timestamp>,
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
pub enum ActionOutcome {
    /// It was done.
    Landed,
    /// A test failed: it was not done, and this attempt will not be.
    Refused,
    /// No answer: it may have been done, or may be yet.
    Unknown,
}

impl Entry {
    /// How large it is as JSON, never less than it is (texts hold no control characters, see [`one_line`]).
    #[must_use]
    pub fn size(&self) -> usize {
        let texts = [self.uid.as_str(), self.uid.as_str(), &self.name, &self.breaker, &self.reason];
        let fences = 2 * 18 + digits(self.fence.serial) + digits(self.next.serial);
        let marks =
            16 * usize::from(self.human) + self.spare.map_or(0, |_| 32) + self.bad_before.map_or(0, |_| 20);
        176 + texts.iter().map(|text| quoted(text)).sum::<usize>() + fences + marks
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// The bytes of a text without control characters as JSON.
fn quoted(text: &str) -> usize {
    text.len() + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count()
}

/// `text` without control characters and no longer than a line.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
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
            reverted_until: None,
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
        struct LedgerLayout {
            schema: u64,
        }
        let failed = |source| LedgerError::DecodeLedger { source };
        let layout: LedgerLayout = serde_json::from_slice(bytes).map_err(failed)?;
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
            None | Some(EntryState::Reserved | EntryState::Cancelling) => Traffic::Yes,
            Some(EntryState::Paused) => Traffic::Pause,
            Some(EntryState::Withheld | EntryState::Pausing | EntryState::Killing) => Traffic::No,
        };
        pod.claimed = true;
        pod.in_endpoints = pod.traffic == Traffic::Yes;
        pod.fence = Some(entry.map_or(Fence { epoch: self.epoch, serial: 0 }, |entry| entry.fence));
        pod.strategy = entry.map(|entry| entry.breaker.clone());
        pod.break_at = entry.map(|entry| entry.break_at);
        pod.retry_count = entry.map(|entry| entry.retry_count);
        pod.admitted_at = self.returned.get(&pod.uid).map(|returned| returned.admitted_at);
    }

    /// Step 3: a reservation, or the same withdrawal with what is now known of it.
    pub fn reserve(&mut self, entry: Entry) {
        self.returned.remove(&entry.uid);
        self.entries.insert(entry.uid.clone(), entry);
    }

    /// Step 4: the pod was told. Also after a cancel that came too late: what is withheld is owned.
    pub fn landed(&mut self, uid: &Uid) {
        self.turn(uid, &[EntryState::Reserved, EntryState::Cancelling], EntryState::Withheld);
    }

    /// Step 4: somebody was faster. The entry stays: only the pod's fence can end it.
    pub fn refused(&mut self, uid: &Uid) {
        self.turn(uid, &[EntryState::Reserved], EntryState::Cancelling);
    }

    /// Step 4: nobody knows. Never tried again, always taken back.
    pub fn unknown(&mut self, uid: &Uid) {
        self.turn(uid, &[EntryState::Reserved], EntryState::Cancelling);
    }

    /// What an attempt to withhold came to.
    pub fn outcome(&mut self, uid: &Uid, outcome: ActionOutcome) {
        match outcome {
            ActionOutcome::Landed => self.landed(uid),
            ActionOutcome::Refused => self.refused(uid),
            ActionOutcome::Unknown => self.unknown(uid),
        }
    }

    /// Step 9: the pod says pause.
    pub fn paused(&mut self, uid: &Uid) {
        self.turn(uid, &[EntryState::Pausing], EntryState::Paused);
    }

    /// Step 8: the withdrawal can land no more. With `admitted` the pod serves again since then, and its cuts are
    /// remembered; without, it is gone.
    pub fn release(&mut self, uid: &Uid, admitted: Option<Timestamp>) {
        let Some(entry) = self.entries.remove(uid) else { return };
        if let Some(admitted_at) = admitted {
            let spare_until = entry.spare.map(|millis| admitted_at + Duration::from_millis(millis));
            let Entry { breaker, retry_count, .. } = entry;
            self.returned.insert(uid.clone(), Returned { breaker, retry_count, admitted_at, spare_until });
        }
    }

    fn turn(&mut self, uid: &Uid, from: &[EntryState], to: EntryState) {
        if let Some(entry) = self.entries.get_mut(uid).filter(|entry| from.contains(&entry.state)) {
            entry.state = to;
        }
    }

    /// How large it is as JSON, never less than it is.
    #[must_use]
    pub fn size(&self) -> usize {
        let entries: usize = self.entries.values().map(Entry::size).sum();
        let returned: usize =
            self.returned.iter().map(|(uid, pod)| quoted(uid.as_str()) + quoted(&pod.breaker) + 160).sum();
        512 + 2 * self.uid.len() + 24 * self.kills.len() + entries + returned
    }

    /// Cuts that still count against a pod: one less for each stretch of good service.
    #[must_use]
    pub fn decayed(retry_count: u32, admitted_at: Timestamp, now: Timestamp, period: Duration) -> u32 {
        let stretch = (period * 10).max(Duration::from_secs(3600));
        let stretches = now.since(admitted_at).as_millis() / stretch.as_millis().max(1);
        retry_count.saturating_sub(u32::try_from(stretches).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(uid: &str, state: EntryState) -> Entry {
        let fence = |serial| Fence { epoch: Epoch(1), serial };
        Entry {
            uid: uid.into(),
            name: uid.into(),
            fence: fence(0),
            next: fence(1),
            state,
            breaker: "rate".into(),
            reason: one_line("\"too\u{7} many\" errors"),
            break_at: Timestamp::from_unix_millis(1_700_000_000_000),
            retry_count: 2,
            desired: 10,
            human: true,
            spare: Some(10_000),
            bad_before: Some(1000),
        }
    }

    fn ledger(entries: &[Entry]) -> Ledger {
        let mut ledger = Ledger::begin("prefix", Epoch(1));
        entries.iter().for_each(|entry| ledger.reserve(entry.clone()));
        ledger
    }

    #[test]
    fn a_ledger_round_trips_and_takes_members_that_it_does_not_know() {
        let ledger = ledger(&[entry("a", EntryState::Reserved), entry("b", EntryState::Paused)]);
        let bytes = ledger.encode().unwrap();
        assert_eq!(Ledger::decode(&bytes, "prefix").unwrap(), ledger);
        let mut value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        value["later"] = 7.into();
        assert_eq!(Ledger::decode(value.to_string().as_bytes(), "prefix").unwrap(), ledger);
    }

    #[test]
    fn another_schema_another_owner_and_no_ledger_are_told_apart() {
        let mut other = Ledger::begin("prefix", Epoch(1));
        let foreign = Ledger::decode(&other.encode().unwrap(), "else").unwrap_err();
        assert!(matches!(foreign, LedgerError::ForeignLedger { .. }), "{foreign}");
        other.schema = 2;
        let newer = Ledger::decode(&other.encode().unwrap(), "prefix").unwrap_err();
        assert!(matches!(newer, LedgerError::UnknownSchema { found: 2 }), "{newer}");
        let rubbish = Ledger::decode(b"{}", "prefix").unwrap_err();
        assert!(matches!(rubbish, LedgerError::DecodeLedger { .. }), "{rubbish}");
        assert_eq!(
            [foreign.category(), newer.category(), rubbish.category()],
            ["foreign", "schema", "decode"]
        );
    }

    #[test]
    fn an_attempt_moves_an_entry_only_from_where_it_can_have_been() {
        let mut ledger = ledger(&[entry("a", EntryState::Reserved), entry("b", EntryState::Withheld)]);
        ledger.outcome(&"b".into(), ActionOutcome::Refused);
        assert_eq!(ledger.entries["b"].state, EntryState::Withheld);
        ledger.outcome(&"a".into(), ActionOutcome::Unknown);
        assert_eq!(ledger.entries["a"].state, EntryState::Cancelling);
        ledger.outcome(&"a".into(), ActionOutcome::Landed);
        assert_eq!(ledger.entries["a"].state, EntryState::Withheld, "what landed late is owned");
        ledger.paused(&"a".into());
        assert_eq!(ledger.entries["a"].state, EntryState::Withheld, "nobody asked for a pause");
    }

    #[test]
    fn a_returned_pod_is_remembered_and_a_gone_one_is_not() {
        let mut ledger = ledger(&[entry("a", EntryState::Withheld), entry("b", EntryState::Withheld)]);
        let at = Timestamp::from_unix_millis(5000);
        ledger.release(&"a".into(), Some(at));
        ledger.release(&"b".into(), None);
        assert!(ledger.entries.is_empty());
        assert_eq!(ledger.returned.len(), 1);
        assert_eq!(ledger.returned["a"].retry_count, 2);
        assert_eq!(ledger.returned["a"].spare_until, Some(Timestamp::from_unix_millis(15_000)));
    }

    #[test]
    fn cuts_are_forgotten_one_by_one_in_good_service() {
        let back = Timestamp::from_unix_millis(0);
        let after =
            |secs| Ledger::decayed(3, back, back + Duration::from_secs(secs), Duration::from_secs(10));
        assert_eq!([after(0), after(3599), after(3600), after(7200), after(360_000)], [3, 3, 2, 1, 0]);
        let long = Ledger::decayed(3, back, back + Duration::from_secs(7200), Duration::from_secs(720));
        assert_eq!(long, 2, "ten periods, when they are longer than an hour");
    }

    #[test]
    fn the_size_is_never_understated() {
        let mut ledger = ledger(&[]);
        for n in 0..200 {
            let mut entry = entry(&format!("\"{n}\""), EntryState::Cancelling);
            entry.next.serial = u64::MAX;
            ledger.reserve(entry);
        }
        for n in 0..100 {
            let admitted = Timestamp::from_unix_millis(i64::MAX / 2);
            ledger.release(&format!("\"{n}\"").into(), Some(admitted));
        }
        ledger.kills = vec![Timestamp::from_unix_millis(i64::MAX); 50];
        assert!(ledger.size() >= ledger.encode().unwrap().len());
    }
}
