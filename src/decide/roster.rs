//! The roster: who belongs to a fleet without Kubernetes, and which of its addresses may get traffic.
//!
//! It is one committed record, the ledger with it, and the endpoints file of every master is a
//! projection of it and of nothing else. So a withdrawal *is* the commit of a roster: there is no
//! moment at which the file and the ledger disagree, and nothing to cancel after a crash.
//!
//! Pods join as soon as they are heard and leave by their own `down`; a pod that merely fell silent
//! stays, as unknown, until [`gate::plan`](super::gate::plan) lets it go.

mod observe;
pub mod silence;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddrV4,
};

use serde::{Deserialize, Serialize};

use super::{
    fleet::{Epoch, Fleet, PodView, Presence, Traffic, Uid},
    gate::{
        Plan,
        action::Verb,
        ledger::{self, Ledger, LedgerError},
    },
    key::Key,
    time::Timestamp,
};

/// The layout that this version writes and reads.
pub const SCHEMA: u32 = 1;

/// What the ensemble says of one pod now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: Key,
    /// Its id.
    pub id: String,
    /// Drawn at each start of its agent.
    pub nonce: Option<String>,
    /// Its role.
    pub role: String,
    /// The port in its payload or in our configuration; `None` while nobody told.
    pub port: Option<u16>,
    /// When it was last heard.
    pub heard: Timestamp,
    /// How it is.
    pub state: RowState,
}

/// How a pod of the ensemble is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// Heard within its TTL.
    Live,
    /// Expired. Leaving such a row out says the same.
    Silent,
    /// It said so itself.
    Down,
}

/// Which pods are the fleet, and how many there should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetRules {
    /// Roles that belong to it; empty means all.
    pub roles: Vec<String>,
    /// The number of pods that there should be; otherwise the most that were ever live at once.
    pub size: Option<u32>,
}

/// One pod of the roster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its id; empty for an address that was found in the file of a lost store.
    pub id: String,
    /// Its agent's nonce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// Its port, once it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether it is known to be there.
    pub presence: Presence,
    /// Since when that is so.
    pub since: Timestamp,
}

/// The committed record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Roster {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Rises with every commit.
    pub generation: u64,
    /// The most pods that were ever live at once, less those that said `down`.
    pub most_live: u32,
    /// There were pods, and the last one said `down`: the one time at which the file may become empty.
    pub all_said_down: bool,
    /// By key: an address has one pod.
    pub pods: BTreeMap<Key, Pod>,
    /// Who is withheld, and why.
    pub ledger: Ledger,
}

/// Stored bytes that are no roster of ours. All of them mean: read only, withhold nothing, leave the file alone.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// Not JSON, or not with our members.
    #[error("the stored roster cannot be read")]
    DecodeRoster {
        /// What is wrong, and where.
        #[source]
        source: serde_json::Error,
    },
    /// Another version wrote it.
    #[error(
        "the stored roster has schema {found}, this version reads {SCHEMA}: run one version only; the endpoints file stays as it is meanwhile"
    )]
    UnknownSchema {
        /// What it says.
        found: u64,
    },
    /// Its ledger is not ours to use.
    #[error("the roster's ledger cannot be used")]
    UseLedger {
        /// Why.
        #[source]
        source: LedgerError,
    },
    /// It cannot be written.
    #[error("the roster cannot be written as JSON")]
    EncodeRoster {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl RosterError {
    /// The step, as a metric's label.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::DecodeRoster { .. } => "decode",
            Self::UnknownSchema { .. } => "schema",
            Self::UseLedger { .. } => "ledger",
            Self::EncodeRoster { .. } => "encode",
        }
    }
}

/// A pod's identity for the gate: key, id and nonce.
#[must_use]
pub fn uid(key: Key, id: &str, nonce: Option<&str>) -> Uid {
    Uid::from(format!("{key}/{id}/{}", nonce.unwrap_or_default()))
}

impl Pod {
    /// Its identity, given its key.
    #[must_use]
    pub fn uid(&self, key: Key) -> Uid {
        uid(key, &self.id, self.nonce.as_deref())
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self, key: Key) -> String {
        if self.id.is_empty() { key.address().to_string() } else { self.id.clone() }
    }
}

impl Roster {
    /// Nobody yet; `epoch` must be random, `of` names the fleet.
    #[must_use]
    pub fn begin(of: &str, epoch: Epoch) -> Self {
        Self {
            schema: SCHEMA,
            generation: 0,
            most_live: 0,
            all_said_down: false,
            pods: BTreeMap::new(),
            ledger: Ledger::begin(of, epoch),
        }
    }

    /// What is left when the store was lost: the addresses in the file, as pods that nobody has heard yet.
    ///
    /// Without this the first pod to be heard again would be the whole list, and the file would shrink to it.
    #[must_use]
    pub fn adopt(of: &str, epoch: Epoch, addresses: &BTreeSet<SocketAddrV4>, now: Timestamp) -> Self {
        let pods: BTreeMap<Key, Pod> = addresses
            .iter()
            .map(|address| {
                let port = Some(address.port());
                let pod =
                    Pod { id: String::new(), nonce: None, port, presence: Presence::Unknown, since: now };
                (Key::of(*address.ip()), pod)
            })
            .collect();
        let most_live = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        Self { pods, most_live, ..Self::begin(of, epoch) }
    }

    /// Reads a stored roster of the fleet `of`.
    ///
    /// # Errors
    /// When this version cannot use it.
    pub fn decode(bytes: &[u8], of: &str) -> Result<Self, RosterError> {
        #[derive(Deserialize)]
        struct RosterLayout {
            schema: u64,
        }
        let failed = |source| RosterError::DecodeRoster { source };
        let RosterLayout { schema } = serde_json::from_slice(bytes).map_err(failed)?;
        if schema != u64::from(SCHEMA) {
            return Err(RosterError::UnknownSchema { found: schema });
        }
        let roster: Self = serde_json::from_slice(bytes).map_err(failed)?;
        let refused = |source| Err(RosterError::UseLedger { source });
        if roster.ledger.schema != ledger::SCHEMA {
            return refused(LedgerError::UnknownSchema { found: roster.ledger.schema.into() });
        }
        if roster.ledger.uid != of {
            return refused(LedgerError::ForeignLedger { found: roster.ledger.uid, expected: of.to_owned() });
        }
        Ok(roster)
    }

    /// As JSON.
    ///
    /// # Errors
    /// [`RosterError::EncodeRoster`].
    pub fn encode(&self) -> Result<Vec<u8>, RosterError> {
        serde_json::to_vec(self).map_err(|source| RosterError::EncodeRoster { source })
    }

    /// How many pods there should be.
    #[must_use]
    pub fn desired(&self, rules: &FleetRules) -> u32 {
        rules.size.unwrap_or(self.most_live)
    }

    /// The fleet as the gate sees it. `believed` says whether a silent pod's silence is its own (see [`silence`]).
    #[must_use]
    pub fn fleet(&self, rules: &FleetRules, believed: impl Fn(Key) -> bool, hold: Option<String>) -> Fleet {
        let view = |(&key, pod): (&Key, &Pod)| self.view(key, pod, believed(key));
        let pods = self.pods.iter().map(view).collect();
        let mut fleet = Fleet::new(self.desired(rules), pods);
        fleet.hold = hold;
        fleet
    }

    /// A silent pod whose silence is not believed yet does not serve, and is no candidate either: not ready.
    fn view(&self, key: Key, pod: &Pod, believed: bool) -> PodView {
        let silent = pod.presence == Presence::Unknown;
        let mut view = PodView::serving(pod.uid(key), pod.name(key), self.ledger.fence());
        view.has_controller = false;
        view.presence = if silent && !believed { Presence::Present } else { pod.presence };
        view.ready = pod.port.is_some() && (!silent || believed);
        self.ledger.project(&mut view);
        view
    }

    /// The roster once `plan` is committed with it.
    #[must_use]
    pub fn apply(mut self, plan: &Plan) -> Self {
        if let Some(ledger) = plan.committed(&self.ledger) {
            self.ledger = ledger;
        }
        for action in plan.actions.iter().filter(|action| action.verb == Verb::Forget) {
            let ledger = &self.ledger;
            self.pods.retain(|&key, pod| {
                let uid = pod.uid(key);
                uid != action.uid || pod.presence == Presence::Present || ledger.entries.contains_key(&uid)
            });
        }
        self
    }

    /// This roster with the next generation, if it says something else than `committed`. A draft that took the
    /// generation of an attempt whose fate is unknown always does.
    #[must_use]
    pub fn after(mut self, committed: Option<&Self>) -> Option<Self> {
        self.generation = self.generation.max(committed.map_or(0, |roster| roster.generation));
        if committed == Some(&self) {
            return None;
        }
        self.generation += 1;
        Some(self)
    }

    /// Who may get traffic: what the endpoints file says.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<SocketAddrV4> {
        let listed = |(&key, pod): (&Key, &Pod)| {
            let port = pod.port?;
            let may = self.view(key, pod, true).traffic == Traffic::Yes;
            may.then(|| SocketAddrV4::new(key.address(), port))
        };
        self.pods.iter().filter_map(listed).collect()
    }

    /// The pod of that identity.
    #[must_use]
    pub fn pod(&self, uid: &Uid) -> Option<(Key, &Pod)> {
        let key = uid.as_str().split('/').next()?.parse().ok()?;
        self.pods.get(&key).filter(|pod| pod.uid(key) == *uid).map(|pod| (key, pod))
    }

    fn live(&self) -> u32 {
        let live = self.pods.values().filter(|pod| pod.presence == Presence::Present).count();
        u32::try_from(live).unwrap_or(u32::MAX)
    }
}
