//! Refused writes: backoff, missing rights, pods that differ from the cache, and pods that a policy protects.
//!
//! The API server does not announce a granted right, so what it is for is retried. Two conflicts in a row on the same pod
//! mean that the cached pod is wrong, or that it was no race: then it is read from the API server. A pod whose writes are
//! refused is left alone for seconds, and stops no other one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    errors::WriteRefusal,
    patch::{self, PatchTarget},
};
use crate::{
    adapters::kubernetes::{cluster::Cluster, objects::PodRecord},
    decide::{
        fleet::{RefusedWrite, Uid},
        gate::{
            action::{Action, Verb},
            ledger::one_line,
        },
    },
};

/// Backoff after writes that failed: the first pause, doubled up to the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// What was forbidden is retried after this.
const TRIAL_AFTER: Duration = Duration::from_secs(5);
/// A missing right is reported for this long after its last use.
const REPORT_FOR: Duration = Duration::from_secs(30);
/// Conflicts in a row after which the pod is read from the API server.
const MAX_CONFLICTS: u32 = 2;
/// A pod whose write was refused is written to again after this: the first pause, doubled up to the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

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
        matches!(
            refusal,
            WriteRefusal::Forbidden(_)
                | WriteRefusal::Busy(_)
                | WriteRefusal::Silence
                | WriteRefusal::Other(_)
        )
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

/// The refusals of each pod: conflicts in a row, and the last write that was refused for another reason than a race.
#[derive(Default)]
pub(super) struct PodRefusals(BTreeMap<Uid, PodRefusal>);

#[derive(Default)]
struct PodRefusal {
    conflicts: u32,
    refused: Option<LastRefusal>,
}

/// A write that the API server refuses, whatever the pod is like.
struct LastRefusal {
    verb: Verb,
    sentence: String,
    pause: Duration,
    until: Instant,
}

impl PodRefusals {
    /// Learns from these answers; each comes with the pod as cached before its action was sent.
    pub(super) async fn learn(
        &mut self,
        cluster: &Cluster,
        resource: &str,
        sent: impl Iterator<Item = (&Action, &Option<Arc<PodRecord>>, &Result<(), WriteRefusal>)>,
    ) {
        self.0.retain(|uid, _| cluster.pod(uid).is_some());
        for (action, seen, answer) in sent {
            let sentence = match answer {
                Ok(()) => {
                    self.0.remove(&action.uid);
                    continue;
                }
                Err(WriteRefusal::Denied(sentence) | WriteRefusal::Altered(sentence)) => {
                    Some(sentence.clone())
                }
                // Without that right a withheld pod stays as it is, and nothing else needs it.
                Err(WriteRefusal::Forbidden(right)) if action.verb == Verb::Kill => {
                    Some(format!("may not {right}"))
                }
                Err(WriteRefusal::Conflict | WriteRefusal::Invalid(_)) => {
                    let known = self.0.entry(action.uid.clone()).or_default();
                    known.conflicts += 1;
                    if known.conflicts < MAX_CONFLICTS && known.refused.is_none() {
                        continue;
                    }
                    known.conflicts = 0;
                    let race = race(cluster, resource, action, seen.as_deref()).await;
                    match answer {
                        Err(WriteRefusal::Invalid(sentence)) if !race => Some(sentence.clone()),
                        _ => None,
                    }
                }
                Err(_) => None,
            };
            match sentence {
                Some(sentence) => self.refused(&action.uid, &action.name, action.verb, &sentence),
                None => self.0.entry(action.uid.clone()).or_default().conflicts = 0,
            }
        }
    }

    /// Records that a write to a pod was refused with this sentence.
    pub(super) fn refused(&mut self, uid: &Uid, name: &str, verb: Verb, sentence: &str) {
        let known = &mut self.0.entry(uid.clone()).or_default().refused;
        let pause = known.as_ref().map_or(PAUSE.0, |earlier| (earlier.pause * 2).min(PAUSE.1));
        let sentence = one_line(sentence);
        if known.as_ref().is_none_or(|earlier| earlier.sentence != sentence) {
            tracing::warn!(pod = name, ?verb, "refused: {sentence}; tried again every few seconds");
        }
        *known = Some(LastRefusal { verb, sentence, pause, until: Instant::now() + pause });
    }

    /// The refused write of a pod.
    pub(super) fn of(&self, uid: &Uid) -> Option<RefusedWrite> {
        let refused = self.0.get(uid)?.refused.as_ref()?;
        let due = refused.until <= Instant::now();
        Some(RefusedWrite { verb: refused.verb, sentence: refused.sentence.clone(), due })
    }

    /// Time until the next write to a pod that refused one.
    pub(super) fn until_next(&self) -> Option<Duration> {
        let refused = self.0.values().filter_map(|known| known.refused.as_ref());
        let left = refused.map(|refused| refused.until.saturating_duration_since(Instant::now()));
        left.filter(|left| !left.is_zero()).min()
    }
}

/// Reads the pod, caches it, and logs in what it differs from the action's tests. `false`: in nothing, so that the write
/// was refused for another reason than a race.
async fn race(cluster: &Cluster, resource: &str, action: &Action, seen: Option<&PodRecord>) -> bool {
    let Some(seen) = seen else { return true };
    let (race, why) = match cluster.fetch_pod(&seen.namespace, &seen.name).await {
        Ok(Some(stored)) => {
            let found = patch::differences(action, &stored, resource).join("; ");
            let steps = |pod| patch::patch(action, &PatchTarget { pod, resource });
            let race = !found.is_empty() || steps(seen) != steps(&stored);
            cluster.merge_pod(stored);
            (race, if found.is_empty() { "the pod is as we saw it".to_owned() } else { found })
        }
        Ok(None) => (true, "the pod is gone".to_owned()),
        Err(error) => (true, format!("and the pod cannot be read: {error}")),
    };
    tracing::warn!(pod = action.name, verb = ?action.verb, "refused twice: {why}");
    race
}
