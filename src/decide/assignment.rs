//! Who works on what: rendezvous hashing over the live replicas, and the hand-over between two of them.
//!
//! Every replica computes the same owner of a piece of work from the same replicas: of `n`, one that joins or leaves
//! moves about `1/n` of the work, and none between two others.
//!
//! *Hand-over in two phases.* A [`MembershipView`] is a set of replicas. Under a new one a replica first ends what is no longer
//! its own, then publishes the view as its acknowledgement. It begins what is newly its own when every replica of the
//! view has acknowledged the same view: from then on nobody works under an older one. What stays with its owner goes on
//! without a break. A replica that the others no longer see has ended its work before, because its lease ends on its
//! own clock first; when it comes back, it makes another view, which nobody has acknowledged before. And the generation
//! in the resource's status refuses the writes of an owner that does not know.

use std::collections::BTreeSet;

use md5::{Digest as _, Md5};

/// A live replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    /// The process.
    pub id: String,
    /// Its pod: what is hashed, so that a restarted process gets the same work.
    pub pod: String,
    /// Its share of the work, relative to the others'; 0 gets none (cordoned).
    pub weight: u32,
    /// The view that it has acknowledged.
    pub acknowledged: Option<u64>,
    /// How often it may have been counted as gone, and came back.
    pub lapses: u64,
}

/// The replicas that the work is divided over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipView {
    /// The same for the same replicas, weights and lapses.
    pub id: u64,
    replicas: Vec<Replica>,
}

impl MembershipView {
    /// The view of these replicas, in any order.
    pub fn of(mut replicas: Vec<Replica>) -> Self {
        replicas.sort();
        let mut hash = Md5::new();
        for replica in &replicas {
            // Lengths keep neighbours apart, whatever the names are.
            for text in [&replica.id, &replica.pod] {
                hash.update(text.len().to_be_bytes());
                hash.update(text.as_bytes());
            }
            hash.update(replica.weight.to_be_bytes());
            hash.update(replica.lapses.to_be_bytes());
        }
        Self { id: first_eight(&hash.finalize()), replicas }
    }

    /// The owner of `work`; `None` when no replica may have any.
    pub fn owner(&self, work: &str) -> Option<&Replica> {
        let scored = self.replicas.iter().filter(|replica| replica.weight > 0);
        scored.max_by(|a, b| score(work, a).total_cmp(&score(work, b)).then_with(|| b.id.cmp(&a.id)))
    }

    /// Whether every replica has acknowledged this view.
    pub fn is_settled(&self) -> bool {
        self.replicas.iter().all(|replica| replica.acknowledged == Some(self.id))
    }
}

/// The weighted score of rendezvous hashing: the highest one owns the work.
fn score(work: &str, replica: &Replica) -> f64 {
    let mut hash = Md5::new();
    hash.update(replica.pod.len().to_be_bytes());
    hash.update(replica.pod.as_bytes());
    hash.update(work.as_bytes());
    // 53 bits, never 0 and never 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let uniform = ((first_eight(&hash.finalize()) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(replica.weight) / uniform.ln()
}

fn first_eight(hash: &[u8]) -> u64 {
    hash.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

/// One replica's part in the hand-over.
#[derive(Clone, Debug, Default)]
pub struct Ownership {
    me: String,
    view: Option<MembershipView>,
    running: BTreeSet<String>,
}

impl Ownership {
    /// Of the replica with this id; it works on nothing yet.
    pub fn new(me: impl Into<String>) -> Self {
        Self { me: me.into(), ..Self::default() }
    }

    /// The replicas as they are known now; without this one among them it may not work.
    pub fn observe(&mut self, replicas: Vec<Replica>) {
        let known = replicas.iter().any(|replica| replica.id == self.me);
        self.view = known.then(|| MembershipView::of(replicas));
    }

    /// This replica cannot tell whether it is known to the others: it may not work.
    pub fn lose(&mut self) {
        self.view = None;
    }

    /// The present view.
    pub fn view(&self) -> Option<&MembershipView> {
        self.view.as_ref()
    }

    /// Whether this replica may work on `work` now: it is its own, and either nobody else can still be working on it, or
    /// it has been this one's all the time.
    pub fn may_run(&self, work: &str) -> bool {
        let Some(view) = &self.view else { return false };
        let mine = view.owner(work).is_some_and(|owner| owner.id == self.me);
        mine && (self.running.contains(work) || view.is_settled())
    }

    /// What this replica works on now: everything else has ended.
    pub fn set_running(&mut self, running: BTreeSet<String>) {
        self.running = running;
    }

    /// The view to publish: what is not ours under it has ended, and it is not published yet.
    pub fn acknowledgement(&self) -> Option<u64> {
        let view = self.view.as_ref()?;
        let own = view.replicas.iter().find(|replica| replica.id == self.me)?;
        let ended = self.running.iter().all(|work| view.owner(work).is_some_and(|owner| owner.id == self.me));
        (ended && own.acknowledged != Some(view.id)).then_some(view.id)
    }

    /// Whether the work is being handed over.
    pub fn is_settled(&self) -> bool {
        self.view.as_ref().is_some_and(MembershipView::is_settled)
    }
}

#[cfg(test)]
mod tests;
