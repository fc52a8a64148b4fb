//! What an action does to a pod.

use serde::{Deserialize, Serialize};

/// What is done to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// Writes `kubervisor/name` and a fence; traffic=yes where there is no switch.
    Claim,
    /// traffic=no. Sent only after the ledger with the reservation is stored.
    Withhold,
    /// Stops a withdrawal that may still land: a new fence, the switch unchanged.
    Cancel,
    /// traffic=yes and a new fence; removes the breaker's name and breakAt. (A cancel keeps these: if the withdrawal
    /// has landed, they mark it as ours.)
    Admit,
    /// traffic=pause and a new fence.
    Pause,
    /// Evicts the pod.
    Kill,
    /// Removes the ledger's entry; writes nothing to the pod.
    Release,
    /// As `Release`, and removes the pod from the fleet: it is silent and has been replaced. Without Kubernetes the
    /// roster must drop it, or its address would be listed again.
    Forget,
}
