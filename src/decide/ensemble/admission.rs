//! What a keepalive that is not a plain repetition does to the ensemble.
//!
//! The table in [`Ensemble::admit`] is the whole policy: how the pod on that key stands, and what
//! the keepalive is to it. Everything below carries out one of its lines.

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

/// So many replaced nonces are remembered for each pod.
const REPLACED_LIMIT: usize = 4;

/// What a keepalive is to the pod that holds its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// Another pod's.
    Stranger,
    /// The same process's.
    Same,
    /// The same pod's after a restart.
    Restarted,
    /// One of the same pod before a restart that is known already.
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
            (PodLiveness::Unborn, Relation::Same) => Err(said_down(beat)),
            (PodLiveness::Retired, Relation::Same | Relation::Stale) => match self.elsewhere(at) {
                Some(key) => {
                    self.table.refresh(at, now);
                    Err(Rejection::IdMoved { id: beat.id().to_owned(), from: beat.key(), to: key })
                }
                None => self.replace(at, now, beat, print),
            },
            (PodLiveness::Retired | PodLiveness::Unborn, _) => self.replace(at, now, beat, print),
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

    /// The pod that held the key is gone; the newcomer starts afresh.
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

    /// A pod on a key that was free.
    fn join_in(
        &mut self,
        now: Moment,
        beat: &Keepalive<'_>,
        print: Fingerprint,
    ) -> Result<KeepaliveEffect, Rejection> {
        let unborn = beat.is_down();
        if unborn && beat.nonce().is_none() {
            return Ok(KeepaliveEffect::Left);
        }
        let id_hash = self.prints.of_name(beat.id());
        let seq = self.sequence.next();
        let text = PodText::Own(self.fitting(beat, seq, None)?.into());
        if !unborn {
            self.sequence.take();
            self.retire(id_hash, beat);
            self.departed.forget(beat.key());
            self.pending.push(beat.key());
        }
        let pod = TrackedPod {
            key: beat.key(),
            liveness: if unborn { PodLiveness::Unborn } else { PodLiveness::Live },
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
        if unborn {
            return Ok(KeepaliveEffect::Left);
        }
        self.table.recognize(at, print);
        Ok(KeepaliveEffect::Joined)
    }

    /// The pod that holds the key said something new, or the same in other words.
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

    /// The known pod of this name, on another key, is replaced by the newcomer.
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

    /// Whether the pod has missed two pings, with half a ping's patience.
    pub(super) fn is_silent(&self, at: TableIndex, now: Moment) -> bool {
        now.since(self.table.pod(at).last_seen.max(self.grace)) > self.settings.ping_every.mul_f64(2.5)
    }

    /// The other key on which the retired pod's name is known now.
    fn elsewhere(&self, at: TableIndex) -> Option<Key> {
        let retired = self.table.pod(at);
        let holder = self.table.pod(self.table.by_name(retired.id_hash)?);
        (holder.liveness == PodLiveness::Live).then_some(holder.key)
    }

    fn key_taken(&self, at: TableIndex, beat: &Keepalive<'_>) -> Rejection {
        let holder = self.member(self.table.pod(at)).map_or_else(String::new, |known| known.id.into_owned());
        Rejection::KeyTaken { key: beat.key(), holder, newcomer: beat.id().to_owned() }
    }

    /// The canonical bytes of a keepalive, if they fit; `freed` is the size of the text that they replace.
    fn fitting(&self, beat: &Keepalive<'_>, seq: u64, freed: Option<usize>) -> Result<Vec<u8>, Rejection> {
        let text = beat.canonical(seq);
        if text.len() > MAX_SIZE {
            return Err(KeepaliveError::TooLarge { size: text.len() }.into());
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
