//! The roster: the pods of a fleet without Kubernetes, and which of their addresses get traffic.
//!
//! One committed record with the ledger in it; the endpoints file of every master is made from it
//! alone. So the commit of a roster *is* the withdrawal: file and ledger cannot disagree, and nothing
//! has to be cancelled after a crash.
//!
//! A pod joins with its first keepalive and leaves with its own `down`. A silent pod stays with
//! [`Presence::Unknown`] until [`gate::plan`](super::gate::plan) withholds it.

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
    ensemble::LifeStatus,
    fleet::{Epoch, Fleet, PodView, Presence, Traffic, Uid, count},
    gate::{
        Plan,
        action::Verb,
        ledger::{Ledger, LedgerError, SchemaNumber},
    },
    key::Key,
    time::Timestamp,
};

/// The schema number that this version writes and reads.
pub const SCHEMA: u32 = 1;

/// One pod of the ensemble, as input of [`Roster::observe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnsembleRow {
    /// Its key.
    pub key: Key,
    /// Its id.
    pub id: String,
    /// Random for each start of its agent.
    pub nonce: Option<String>,
    /// Its role.
    pub role: String,
    /// The port in its payload or in our configuration, if any.
    pub port: Option<u16>,
    /// Time of its last keepalive.
    pub heard: Timestamp,
    /// Live, silent or down.
    pub state: LifeStatus,
}

/// The configured limits of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetRules {
    /// Roles that belong to it; empty: all.
    pub roles: Vec<String>,
    /// Pods that there should be; `None`: [`Roster::most_live`].
    pub size: Option<u32>,
}

/// One pod of the roster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RosterPod {
    /// Its id; empty for an address that was adopted from the file of a lost store.
    pub id: String,
    /// Its agent's nonce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// The last port in its payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether it is known to exist.
    pub presence: Presence,
    /// Since when it has this presence.
    pub since: Timestamp,
}

/// The committed record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Roster {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Rises with each commit.
    pub generation: u64,
    /// Most pods that were ever live at once, less those that sent `down`.
    pub most_live: u32,
    /// The last pod sent `down`: only then may the file become empty.
    pub all_said_down: bool,
    /// By key: one pod per address.
    pub pods: BTreeMap<Key, RosterPod>,
    /// The withdrawals.
    pub ledger: Ledger,
}

/// A roster that cannot be used. After each of these nothing is withheld, and the endpoints file stays unchanged.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// Not JSON, or a member is missing or wrong.
    #[error("the stored roster cannot be read")]
    DecodeRoster(#[source] serde_json::Error),
    /// Written by another version.
    #[error(
        "the stored roster has schema {0}, this version reads {SCHEMA}: run one version only; the endpoints file stays as it is meanwhile"
    )]
    UnknownSchema(u64),
    /// Its ledger has another schema or UID.
    #[error("the roster's ledger cannot be used")]
    UseLedger(#[source] LedgerError),
    /// It cannot be encoded.
    #[error("the roster cannot be written as JSON")]
    EncodeRoster(#[source] serde_json::Error),
}

/// A pod's identity for the gate: key, id and nonce.
pub fn uid(key: Key, id: &str, nonce: Option<&str>) -> Uid {
    Uid::from(format!("{key}/{id}/{}", nonce.unwrap_or_default()))
}

impl RosterPod {
    /// Its identity, given its key.
    pub fn uid(&self, key: Key) -> Uid {
        uid(key, &self.id, self.nonce.as_deref())
    }

    /// Its name for display: the id, or the address if there is none.
    pub fn name(&self, key: Key) -> String {
        if self.id.is_empty() { key.address().to_string() } else { self.id.clone() }
    }
}

impl Roster {
    /// An empty roster; `epoch` must be random, `of` names the fleet.
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

    /// A roster of the addresses in the endpoints file, as silent pods, after the store was lost.
    ///
    /// Without them the file would shrink to the first pod that sends a keepalive.
    pub fn adopt(of: &str, epoch: Epoch, addresses: &BTreeSet<SocketAddrV4>, now: Timestamp) -> Self {
        let pods: BTreeMap<Key, RosterPod> = addresses
            .iter()
            .map(|address| {
                let port = Some(address.port());
                let pod = RosterPod {
                    id: String::new(),
                    nonce: None,
                    port,
                    presence: Presence::Unknown,
                    since: now,
                };
                (Key::of(*address.ip()), pod)
            })
            .collect();
        let most_live = count(pods.keys());
        Self { pods, most_live, ..Self::begin(of, epoch) }
    }

    /// Reads a stored roster of the fleet `of`.
    ///
    /// # Errors
    /// When it is not a roster of `of` in [`SCHEMA`].
    pub fn decode(bytes: &[u8], of: &str) -> Result<Self, RosterError> {
        let failed = |source| RosterError::DecodeRoster(source);
        let SchemaNumber { schema: found } = serde_json::from_slice(bytes).map_err(failed)?;
        if found != u64::from(SCHEMA) {
            return Err(RosterError::UnknownSchema(found));
        }
        let roster: Self = serde_json::from_slice(bytes).map_err(failed)?;
        roster.ledger.check(of).map_err(RosterError::UseLedger)?;
        Ok(roster)
    }

    /// As JSON.
    ///
    /// # Errors
    /// [`RosterError::EncodeRoster`].
    pub fn encode(&self) -> Result<Vec<u8>, RosterError> {
        serde_json::to_vec(self).map_err(RosterError::EncodeRoster)
    }

    /// Pods that there should be.
    pub fn desired(&self, rules: &FleetRules) -> u32 {
        rules.size.unwrap_or(self.most_live)
    }

    /// The input of the gate. `believed`: whether the pod itself is silent, not the master cut off (see [`silence`]).
    pub fn fleet(&self, rules: &FleetRules, believed: impl Fn(Key) -> bool, hold: Option<String>) -> Fleet {
        let view = |(&key, pod): (&Key, &RosterPod)| self.view(key, pod, believed(key));
        let pods = self.pods.iter().map(view).collect();
        let mut fleet = Fleet::new(self.desired(rules), pods);
        fleet.hold = hold;
        fleet
    }

    /// A silent pod that is not believed yet counts as present and not ready: it neither serves nor can be withheld.
    fn view(&self, key: Key, pod: &RosterPod, believed: bool) -> PodView {
        let silent = pod.presence == Presence::Unknown;
        let mut view = PodView::serving(pod.uid(key), pod.name(key), self.ledger.fence());
        view.has_controller = false;
        view.presence = if silent && !believed { Presence::Present } else { pod.presence };
        view.ready = pod.port.is_some() && (!silent || believed);
        self.ledger.project(&mut view);
        view
    }

    /// The roster once `plan` is committed with it.
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

    /// This roster with the next generation; `None` if it equals `committed`. (It never does with the generation of an
    /// earlier commit whose outcome is unknown.)
    pub fn after(mut self, committed: Option<&Self>) -> Option<Self> {
        self.generation = self.generation.max(committed.map_or(0, |roster| roster.generation));
        if committed == Some(&self) {
            return None;
        }
        self.generation += 1;
        Some(self)
    }

    /// The addresses for the endpoints file.
    pub fn addresses(&self) -> BTreeSet<SocketAddrV4> {
        let listed = |(&key, pod): (&Key, &RosterPod)| {
            let port = pod.port?;
            let may = self.view(key, pod, true).traffic == Traffic::Yes;
            may.then(|| SocketAddrV4::new(key.address(), port))
        };
        self.pods.iter().filter_map(listed).collect()
    }

    fn live(&self) -> u32 {
        count(self.pods.values().filter(|pod| pod.presence == Presence::Present))
    }
}
