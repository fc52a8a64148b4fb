//! What was refused: a right that is missing, and pods that are not as we see them.
//!
//! Nobody says when a right is given back, so what it is for is tried now and then. And who is refused
//! twice in a row by the same pod rests on something that is not so: the pod itself is asked.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{errors::WriteRefusal, patch};
use crate::{
    adapters::kubernetes::cluster::Cluster,
    decide::{fleet::Uid, gate::action::Action},
};

/// What was forbidden is tried again after this.
const TRIAL: Duration = Duration::from_secs(5);
/// And not spoken of any more when there was nothing to try.
const SPOKEN_OF: Duration = Duration::from_secs(30);
/// After so many refusals in a row the pod itself is asked what it says.
const IN_A_ROW: u32 = 2;

/// The right that was missing when something was last sent.
#[derive(Default)]
pub(super) struct ForbiddenRight(Option<(String, Instant)>);

impl ForbiddenRight {
    /// Something was sent: what was missing for it, if anything was.
    pub(super) fn learn(&mut self, right: Option<String>) {
        self.0 = right.map(|right| (right, Instant::now()));
    }

    /// Such as `patch pods`.
    pub(super) fn right(&self) -> Option<String> {
        self.0.as_ref().map(|(right, _)| right.clone())
    }

    /// How long until it is worth a trial; `None`: nothing is missing.
    pub(super) fn until_trial(&self) -> Option<Duration> {
        self.0.as_ref().map(|(_, since)| TRIAL.saturating_sub(since.elapsed()))
    }

    /// A right that nobody had to use for so long is not spoken of for ever.
    pub(super) fn forget(&mut self) {
        self.0 = self.0.take().filter(|(_, since)| since.elapsed() < SPOKEN_OF);
    }
}

/// How often in a row each pod was not as a write of ours said it was.
#[derive(Default)]
pub(super) struct PodRefusals(BTreeMap<Uid, u32>);

impl PodRefusals {
    /// Counts what came of the actions.
    pub(super) async fn learn(
        &mut self,
        cluster: &Cluster,
        resource: &str,
        sent: impl Iterator<Item = (&Action, &Result<(), WriteRefusal>)>,
    ) {
        for (action, answer) in sent {
            if !matches!(answer, Err(WriteRefusal::Conflict)) {
                self.0.remove(&action.uid);
                continue;
            }
            let count = self.0.entry(action.uid.clone()).or_default();
            *count += 1;
            if *count >= IN_A_ROW {
                self.0.remove(&action.uid);
                ask_why(cluster, resource, action).await;
            }
        }
    }
}

/// Asks the pod how it is, takes that in, and says in what we were wrong.
async fn ask_why(cluster: &Cluster, resource: &str, action: &Action) {
    let Some(seen) = cluster.pod(&action.uid) else { return };
    let why = match cluster.fetch_pod(&seen.namespace, &seen.name).await {
        Ok(Some(stored)) => {
            let found = patch::differences(action, &stored, resource).join("; ");
            cluster.merge_pod(stored);
            if found.is_empty() { "the pod is as we saw it".to_owned() } else { found }
        }
        Ok(None) => "the pod is gone".to_owned(),
        Err(error) => format!("and nobody says why: {error}"),
    };
    tracing::warn!(pod = action.name, verb = ?action.verb, "refused twice: {why}");
}
