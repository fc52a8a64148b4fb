//! Refused writes: backoff, missing rights, and pods that differ from the cache.
//!
//! The API server does not announce a granted right, so what it is for is retried. Two conflicts in a row on the same pod
//! mean that the cached pod is wrong: then it is read from the API server.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{errors::WriteRefusal, patch};
use crate::{
    adapters::kubernetes::cluster::Cluster,
    decide::{fleet::Uid, gate::action::Action},
};

/// Backoff after writes that failed: the first pause, doubled up to the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// What was forbidden is retried after this.
const TRIAL_AFTER: Duration = Duration::from_secs(5);
/// A missing right is reported for this long after its last use.
const REPORT_FOR: Duration = Duration::from_secs(30);
/// Conflicts in a row after which the pod is read from the API server.
const MAX_CONFLICTS: u32 = 2;

/// When the next request may be sent.
#[derive(Default)]
pub(super) struct RetryBackoff {
    until: Option<Instant>,
    pause: Duration,
}

impl RetryBackoff {
    /// How long no request may be sent; `None`: one may be sent now.
    pub(super) fn left(&self) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    pub(super) fn wait(&mut self, after: Duration) {
        self.until = self.until.max(Some(Instant::now() + after));
    }

    /// Whether the refusal is a failure of the API server.
    pub(super) fn learn(&mut self, refusal: &WriteRefusal) -> bool {
        if let WriteRefusal::Busy(after) = refusal {
            self.wait(*after);
        }
        !matches!(refusal, WriteRefusal::Conflict | WriteRefusal::Late | WriteRefusal::Gone)
    }

    /// Ends a plan's writes: waits longer each time some `failed`, and starts anew once none did.
    pub(super) fn after(&mut self, failed: bool) {
        if failed {
            self.pause = (self.pause * 2).clamp(BACKOFF.0, BACKOFF.1);
            self.wait(self.pause);
        } else {
            self.pause = Duration::ZERO;
        }
    }
}

/// The right that the last writes lacked, and since when.
#[derive(Default)]
pub(super) struct ForbiddenRight(Option<(String, Instant)>);

impl ForbiddenRight {
    /// Records which right the writes just sent lacked, if any.
    pub(super) fn learn(&mut self, right: Option<String>) {
        self.0 = right.map(|right| (right, Instant::now()));
    }

    /// The verb and resource, such as `patch pods`.
    pub(super) fn right(&self) -> Option<String> {
        self.0.as_ref().map(|(right, _)| right.clone())
    }

    /// Time until the next trial; `None`: no right is missing.
    pub(super) fn until_trial(&self) -> Option<Duration> {
        self.0.as_ref().map(|(_, since)| TRIAL_AFTER.saturating_sub(since.elapsed()))
    }

    /// Drops the right after [`REPORT_FOR`].
    pub(super) fn forget(&mut self) {
        self.0 = self.0.take().filter(|(_, since)| since.elapsed() < REPORT_FOR);
    }
}

/// Conflicts in a row of each pod.
#[derive(Default)]
pub(super) struct PodRefusals(BTreeMap<Uid, u32>);

impl PodRefusals {
    /// Counts the conflicts of these actions.
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
            if *count >= MAX_CONFLICTS {
                self.0.remove(&action.uid);
                log_differences(cluster, resource, action).await;
            }
        }
    }
}

/// Reads the pod, caches it, and logs in what it differs from the action's tests.
async fn log_differences(cluster: &Cluster, resource: &str, action: &Action) {
    let Some(seen) = cluster.pod(&action.uid) else { return };
    let why = match cluster.fetch_pod(&seen.namespace, &seen.name).await {
        Ok(Some(stored)) => {
            let found = patch::differences(action, &stored, resource).join("; ");
            cluster.merge_pod(stored);
            if found.is_empty() { "the pod is as we saw it".to_owned() } else { found }
        }
        Ok(None) => "the pod is gone".to_owned(),
        Err(error) => format!("and the pod cannot be read: {error}"),
    };
    tracing::warn!(pod = action.name, verb = ?action.verb, "refused twice: {why}");
}
