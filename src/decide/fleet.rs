//! The fleet as input of the gate.
//!
//! No Kubernetes type and no address: a pod with labels and a line of an endpoints file are both a
//! [`PodView`], so that one gate serves both sinks.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

pub use super::gate::fence::{Epoch, Fence};
use super::{gate::verb::Verb, time::Timestamp};

/// A pod's identity, never used again: Kubernetes' UID, or key, id and nonce.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(Arc<str>);

impl Uid {
    /// As text.
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

/// The value of the pod's traffic switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Traffic {
    /// It gets traffic.
    Yes,
    /// It is withheld.
    No,
    /// It is withheld until a person or a callback admits it.
    Pause,
    /// No switch yet.
    Unlabelled,
    /// Any other value.
    Other,
}

/// Whether the pod is known to exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Presence {
    /// Its last keepalive is younger than the TTL (with Kubernetes: it is listed).
    Present,
    /// No keepalive for longer than the TTL: the pod is dead, or the master is cut off. Not serving, but listed until the
    /// gate withholds it.
    Unknown,
}

/// The API server refuses a write to a pod (an admission policy, a webhook, a disruption budget): it was no race.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedWrite {
    /// What was to be done.
    pub verb: Verb,
    /// The API server's sentence, in one line.
    pub sentence: String,
    /// The next try is due; until then nothing is written to the pod.
    pub due: bool,
}

impl fmt::Display for RefusedWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.verb {
            Verb::Claim => "claim",
            Verb::Withhold => "withdrawal",
            Verb::Cancel => "cancellation",
            Verb::Admit => "return",
            Verb::Pause => "pause",
            Verb::Kill => "eviction",
            Verb::Release | Verb::Forget => "release",
        };
        write!(f, "{what}: {}", self.sentence)
    }
}

/// One pod of the fleet, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodView {
    /// The pod.
    pub uid: Uid,
    /// Its name, for display.
    pub name: String,
    /// It is of the fleet. `false`: the Service selects it no more, and it is here only to be given back.
    pub selected: bool,
    /// Kubernetes' Ready; without Kubernetes: it has a port and an address to list.
    pub ready: bool,
    /// It is being deleted: no longer of the fleet.
    pub terminating: bool,
    /// Whether it is known to exist.
    pub presence: Presence,
    /// The switch.
    pub traffic: Traffic,
    /// The fence; `None`: absent or malformed.
    pub fence: Option<Fence>,
    /// `kubervisor/name` is this resource.
    pub claimed: bool,
    /// A controller would replace it: only such a pod is killed.
    pub has_controller: bool,
    /// The breaker that withheld it.
    pub strategy: Option<String>,
    /// When we withheld it. A `no` without it is another writer's.
    pub break_at: Option<Timestamp>,
    /// Number of withdrawals.
    pub retry_count: Option<u32>,
    /// Where clients reach no pod of elsewhere, and the last one is kept (`keepOnePerNode`): its node. `None`: no such place.
    pub place: Option<Arc<str>>,
    /// When it was last admitted.
    pub admitted_at: Option<Timestamp>,
    /// Who else set its switch last, where it is set back again and again and that is known.
    pub set_by: Option<String>,
    /// `None`: a ready endpoint of the load balancer names it. Otherwise since when it could serve with traffic=yes and
    /// none names it.
    pub unlisted_since: Option<Timestamp>,
    /// The last write to it was refused.
    pub refusal: Option<RefusedWrite>,
}

impl PodView {
    /// A pod that serves: ready, present, claimed, traffic=yes and listed.
    pub fn serving(uid: impl Into<Uid>, name: impl Into<String>, fence: Fence) -> Self {
        Self {
            uid: uid.into(),
            name: name.into(),
            selected: true,
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
            place: None,
            admitted_at: None,
            set_by: None,
            unlisted_since: None,
            refusal: None,
        }
    }

    /// Nothing may be written to it yet.
    pub fn barred(&self) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| !refusal.due)
    }

    /// It cannot be claimed: it is never withheld, and the others do not wait for it.
    pub fn claim_refused(&self) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| refusal.verb == Verb::Claim)
    }

    /// It is not claimed, and its fence is not of the ledger of `epoch`: another resource has claimed it.
    pub fn taken_over(&self, epoch: Epoch) -> bool {
        !self.claimed && self.fence.is_some_and(|fence| fence.epoch != epoch)
    }
}

/// The fleet at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fleet {
    /// Pods that there should be; the floor is a share of it.
    pub desired: u32,
    /// The Service's selector has the traffic key. `false`: every pod is admitted.
    pub gated: bool,
    /// The resource is being deleted: every pod is admitted, and none is claimed but to be given back.
    pub leaving: bool,
    /// The sink can evict pods.
    pub can_kill: bool,
    /// The list was begun after the ledger was read, so a pod that is missing in it is deleted.
    pub absence_proven: bool,
    /// Why the sink allows no withdrawal now (just started, list too old, ledger not stored).
    pub hold: Option<String>,
    pods: Vec<PodView>,
}

impl Fleet {
    /// A gated fleet of these pods, sorted by UID; repeated UIDs are dropped.
    pub fn new(desired: u32, mut pods: Vec<PodView>) -> Self {
        pods.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
        pods.dedup_by(|a, b| a.uid == b.uid);
        Self { desired, gated: true, leaving: false, can_kill: false, absence_proven: true, hold: None, pods }
    }

    /// The pods in order of their UID.
    pub fn pods(&self) -> &[PodView] {
        &self.pods
    }

    /// One pod.
    pub fn pod(&self, uid: &str) -> Option<&PodView> {
        self.pods.binary_search_by(|pod| pod.uid.as_str().cmp(uid)).ok().and_then(|at| self.pods.get(at))
    }

    /// Changes every pod by `edit`, which must not change the UID.
    pub fn map(mut self, edit: impl FnMut(&mut PodView)) -> Self {
        self.pods.iter_mut().for_each(edit);
        self
    }
}

/// The number of items, at most `u32::MAX`.
pub(super) fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
