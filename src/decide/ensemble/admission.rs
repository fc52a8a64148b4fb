//! Admission of a keepalive that differs from the pod's last one, or its refusal.
//!
//! The `match` in [`Ensemble::admit`] is the whole policy: liveness of the pod on the key, by relation of the
//! keepalive to that pod. Each function below implements one arm.

use super::{
    Ensemble, KeepaliveEffect, Rejection, Settings,
    fingerprint::Fingerprint,
    pod_table::{PodLiveness, TableIndex, TrackedPod},
    snapshot::PodText,
};
use crate::decide::{
    keepalive::{Keepalive, KeepaliveError, MAX_SIZE},
    key::Key,
    time::Moment,
};

/// The most replaced nonces that are retained per pod.
const REPLACED_LIMIT: usize = 4;

/// Relation of a keepalive to the pod that holds its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// Another pod: the ids differ.
    Stranger,
    /// The same process: id and nonce are equal.
    Same,
    /// The same pod with a new nonce.
    Restarted,
    /// The same pod with a nonce that a newer one has replaced.
    Stale,
}

impl Ensemble {
    pub(super) fn admit(
        &mut self,
        now: Moment,
        beat: &Keepalive<'_>,
        print: Fingerprint,
    ) -> Result<KeepaliveEffect, Rejection> {
        let Some(at) = self.table.by_key(beat.key()) else { return self.join_in(now, beat, print) };
        let relation = self.relation(at, beat);
        match (self.table.pod(at).liveness, relation) {
            (PodLiveness::Live, Relation::Stranger) if beat.is_down() || !self.is_silent(at, now) => {
                Err(self.key_taken(at, beat))
            }
            (PodLiveness::Down, Relation::Stranger) if beat.is_down() => Ok(KeepaliveEffect::Left),
            (PodLiveness::Live | PodLiveness::Down, Relation::Stranger) => self.replace(at, now, beat, print),
            (PodLiveness::Live | PodLiveness::Down, Relation::Stale) => Err(stale(beat)),
            (PodLiveness::Down, Relation::Same) if beat.is_down() => Ok(KeepaliveEffect::Heartbeat),
            (PodLiveness::Down, Relation::Same) if beat.nonce().is_some() => Err(said_down(beat)),
            (PodLiveness::Live | PodLiveness::Down, _) => self.update(at, now, beat, print, relation),
            (PodLiveness::DownOnly, Relation::Same) => Err(said_down(beat)),
            (PodLiveness::Retired, Relation::Same | Relation::Stale) => match self.elsewhere(at) {
                Some(key) => {
                    self.table.refresh(at, now);
                    Err(Rejection::IdMoved { id: beat.id().to_owned(), from: beat.key(), to: key })
                }
                None => self.replace(at, now, beat, print),
            },
            (PodLiveness::Retired | PodLiveness::DownOnly, _) => self.replace(at, now, beat, print),
        }
    }

    fn relation(&self, at: TableIndex, beat: &Keepalive<'_>) -> Relation {
        let pod = self.table.pod(at);
        let Some(known) = self.member(pod).filter(|known| known.id == beat.id()) else {
            return Relation::Stranger;
        };
        let replaced = pod.replaced.iter().any(|old| Some(&**old) == beat.nonce());
        match known.nonce.as_deref() == beat.nonce() {
            true => Relation::Same,
            false if replaced => Relation::Stale,
            false => Relation::Restarted,
        }
    }

    /// Removes the pod that holds the key and admits the keepalive as a new pod.
    fn replace(
        &mut self,
        at: TableIndex,
        now: Moment,
        beat: &Keepalive<'_>,
        print: Fingerprint,
    ) -> Result<KeepaliveEffect, Rejection> {
        self.fitting(beat, self.sequence.next(), Some(self.table.pod(at).text.len()))?;
        self.take_out(at);
        self.join_in(now, beat, print)
    }

    /// Admits a pod on a free key.
    fn join_in(
        &mut self,
        now: Moment,
        beat: &Keepalive<'_>,
        print: Fingerprint,
    ) -> Result<KeepaliveEffect, Rejection> {
        let down = beat.is_down();
        if down && beat.nonce().is_none() {
            return Ok(KeepaliveEffect::Left);
        }
        let id_hash = self.prints.of_name(beat.id());
        let seq = self.sequence.next();
        let text = PodText::Own(self.fitting(beat, seq, None)?.into());
        if !down {
            self.sequence.take();
            self.retire(id_hash, beat);
            if let Some(expired) = self.expired.remove(beat.key()) {
                self.comebacks.note(now, beat, id_hash, &expired);
            }
            self.pending.push(beat.key());
        }
        let pod = TrackedPod {
            key: beat.key(),
            liveness: if down { PodLiveness::DownOnly } else { PodLiveness::Live },
            durable: false,
            heard: true,
            seq,
            last_seen: now,
            print: Fingerprint::default(),
            id_hash,
            text,
            replaced: Box::default(),
        };
        self.bytes += pod.text.len();
        let at = self.table.insert(pod);
        if down {
            return Ok(KeepaliveEffect::Left);
        }
        self.table.recognize(at, print);
        Ok(KeepaliveEffect::Joined)
    }

    /// Updates the pod that holds the key: other content, or the same content in other bytes.
    fn update(
        &mut self,
        at: TableIndex,
        now: Moment,
        beat: &Keepalive<'_>,
        print: Fingerprint,
        relation: Relation,
    ) -> Result<KeepaliveEffect, Rejection> {
        let pod = self.table.pod(at);
        let (was_visible, was, size) = (pod.is_visible(), pod.liveness, pod.text.len());
        let text = self.fitting(beat, pod.seq, Some(size))?;
        let same_text = *text == *pod.text.bytes(self.latest.pods());
        let liveness = if beat.is_down() { PodLiveness::Down } else { PodLiveness::Live };
        if relation == Relation::Restarted {
            self.retire_nonce(at);
        }
        self.table.refresh(at, now);
        self.table.forget_print(at);
        if liveness == PodLiveness::Live {
            self.table.recognize(at, print);
        }
        if same_text && liveness == was {
            return Ok(KeepaliveEffect::Heartbeat);
        }
        self.bytes = self.bytes + text.len() - size;
        let pod = self.table.pod_mut(at);
        pod.liveness = liveness;
        if !same_text {
            pod.text = PodText::Own(text.into());
        }
        self.revision += u64::from(was_visible || pod.is_visible());
        self.pending.push(beat.key());
        Ok(match (was, liveness) {
            (_, PodLiveness::Down) => KeepaliveEffect::Left,
            (PodLiveness::Down, _) => KeepaliveEffect::Returned,
            _ => KeepaliveEffect::Changed,
        })
    }

    /// Retires the known pod with this id on another key.
    fn retire(&mut self, id_hash: u64, beat: &Keepalive<'_>) {
        let Some(at) = self.table.by_name(id_hash) else { return };
        let pod = self.table.pod(at);
        if self.member(pod).is_none_or(|known| known.id != beat.id()) {
            return;
        }
        self.revision += u64::from(pod.is_visible());
        self.pending.push(pod.key);
        self.table.forget_name(at);
        self.table.forget_print(at);
        self.table.pod_mut(at).liveness = PodLiveness::Retired;
    }

    fn retire_nonce(&mut self, at: TableIndex) {
        let nonce = self.member(self.table.pod(at)).and_then(|known| known.nonce.map(|n| n.into_owned()));
        let Some(nonce) = nonce else { return };
        let replaced = &mut self.table.pod_mut(at).replaced;
        let kept = replaced.len().saturating_sub(REPLACED_LIMIT - 1);
        *replaced = replaced.iter().skip(kept).cloned().chain([nonce]).collect();
    }

    /// Whether the last keepalive is older than 2.5 ping intervals: two missed pings and half an interval of slack.
    pub(super) fn is_silent(&self, at: TableIndex, now: Moment) -> bool {
        now.since(self.table.pod(at).last_seen.max(self.grace)) > self.settings.ping_every.mul_f64(2.5)
    }

    /// The key of the live pod that now has the retired pod's id.
    fn elsewhere(&self, at: TableIndex) -> Option<Key> {
        let retired = self.table.pod(at);
        let holder = self.table.pod(self.table.by_name(retired.id_hash)?);
        (holder.liveness == PodLiveness::Live).then_some(holder.key)
    }

    fn key_taken(&self, at: TableIndex, beat: &Keepalive<'_>) -> Rejection {
        let holder = self.member(self.table.pod(at)).map_or_else(String::new, |known| known.id.into_owned());
        Rejection::KeyTaken { key: beat.key(), holder, newcomer: beat.id().to_owned() }
    }

    /// The canonical bytes of a keepalive, if within the bounds; `freed` is the size of the text that they replace.
    fn fitting(&self, beat: &Keepalive<'_>, seq: u64, freed: Option<usize>) -> Result<Vec<u8>, Rejection> {
        let text = beat.canonical(seq);
        if text.len() > MAX_SIZE {
            return Err(KeepaliveError::TooLarge(text.len()).into());
        }
        let Settings { max_pods, max_bytes, .. } = self.settings;
        let pods = self.table.len() + usize::from(freed.is_none());
        if pods > max_pods || self.bytes - freed.unwrap_or(0) + text.len() > max_bytes {
            return Err(Rejection::Full { pods: self.table.len(), bytes: self.bytes });
        }
        Ok(text)
    }
}

fn stale(beat: &Keepalive<'_>) -> Rejection {
    Rejection::Stale { key: beat.key(), id: beat.id().to_owned() }
}

fn said_down(beat: &Keepalive<'_>) -> Rejection {
    Rejection::SaidDown { key: beat.key(), id: beat.id().to_owned() }
}
