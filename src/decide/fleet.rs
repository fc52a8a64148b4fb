//! The fleet as the gate sees it: what is stored about each pod, whoever stores it.
//!
//! No Kubernetes type and no address in here: a pod with labels and a line of an endpoints file are
//! the same [`PodView`], so that one gate serves both.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

pub use super::gate::fence::{Epoch, Fence};
use super::time::Timestamp;

/// What a pod is known by: never re-used. Kubernetes' UID, or key, id and nonce.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(Arc<str>);

impl Uid {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Uid {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for Uid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the pod's traffic switch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Traffic {
    /// It gets traffic.
    Yes,
    /// It is withheld.
    No,
    /// It is withheld until a person or a callback says otherwise.
    Pause,
    /// No switch yet.
    Unlabelled,
    /// A value that nobody of ours writes.
    Other,
}

/// Whether the pod is known to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Presence {
    /// It was heard of in time (with Kubernetes: it is in the list).
    Present,
    /// Silent for longer than its TTL: it may be dead, or we may be deaf. Not serving, but listed until the
    /// gate lets it go.
    Unknown,
}

/// One pod of the fleet, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodView {
    /// Its identity.
    pub uid: Uid,
    /// Its name, for people.
    pub name: String,
    /// Kubernetes' Ready; without Kubernetes: it has a port and an address to list.
    pub ready: bool,
    /// It is being deleted: not of the fleet any more.
    pub terminating: bool,
    /// Whether it is known to be there.
    pub presence: Presence,
    /// Its switch.
    pub traffic: Traffic,
    /// Its fence; absent or malformed is `None`.
    pub fence: Option<Fence>,
    /// It carries this service's name.
    pub claimed: bool,
    /// Somebody would replace it: only such a pod is killed.
    pub has_controller: bool,
    /// The breaker that cut it.
    pub strategy: Option<String>,
    /// When it was cut by us. A `no` without it is somebody else's.
    pub break_at: Option<Timestamp>,
    /// How often it was cut.
    pub retry_count: Option<u32>,
    /// When it was last given its traffic back.
    pub admitted_at: Option<Timestamp>,
    /// The load balancer's own view shows it ready.
    pub in_endpoints: bool,
}

impl PodView {
    /// A healthy pod that serves: the start for builders.
    #[must_use]
    pub fn serving(uid: impl Into<Uid>, name: impl Into<String>, fence: Fence) -> Self {
        Self {
            uid: uid.into(),
            name: name.into(),
            ready: true,
            terminating: false,
            presence: Presence::Present,
            traffic: Traffic::Yes,
            fence: Some(fence),
            claimed: true,
            has_controller: true,
            strategy: None,
            break_at: None,
            retry_count: None,
            admitted_at: None,
            in_endpoints: true,
        }
    }
}

/// The fleet at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fleet {
    /// How many pods there should be; the floor is a share of it, so that it does not sink with the fleet.
    pub desired: u32,
    /// The traffic switch is in force (the Service's selector has the key). `false`: give everything back.
    pub gated: bool,
    /// The service is being given up: give everything back and claim nothing.
    pub leaving: bool,
    /// This sink can end a pod's life.
    pub can_kill: bool,
    /// An entry's pod that is missing here is gone: the list was begun after the ledger was read.
    pub absence_proven: bool,
    /// Why nothing may be withheld at the moment, if so (just started, list too old, ledger not stored).
    pub hold: Option<String>,
    pods: Vec<PodView>,
}

impl Fleet {
    /// A gated fleet of these pods; they are put in order of their UID, a repeated one is dropped.
    #[must_use]
    pub fn new(desired: u32, mut pods: Vec<PodView>) -> Self {
        pods.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
        pods.dedup_by(|a, b| a.uid == b.uid);
        Self { desired, gated: true, leaving: false, can_kill: false, absence_proven: true, hold: None, pods }
    }

    /// The pods in order of their UID.
    #[must_use]
    pub fn pods(&self) -> &[PodView] {
        &self.pods
    }

    /// One pod.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<&PodView> {
        self.pods.binary_search_by(|pod| pod.uid.as_str().cmp(uid)).ok().and_then(|at| self.pods.get(at))
    }

    /// Every pod of the fleet changed by `edit`, which must leave the UID alone.
    #[must_use]
    pub fn map(mut self, edit: impl FnMut(&mut PodView)) -> Self {
        self.pods.iter_mut().for_each(edit);
        self.pods.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
        self
    }
}
