//! When each pod was withheld, and when a dry run would have: two ledgers of one fleet as spans of time, kept apart.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::decide::{
    fleet::Uid,
    gate::ledger::{Entry, EntryState, Ledger},
    time::Timestamp,
};

/// Ended episodes that are kept of one fleet.
pub const ENDED: usize = 200;

/// Episodes that the status of a resource keeps: as many as its schema allows.
pub const STORED: usize = 50;

/// Whether pods were changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EpisodeKind {
    /// The pod was withheld.
    Real,
    /// Only the dry run's own ledger withheld it.
    DryRun,
}

/// One pod's time without traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Episode {
    /// Real, or of a dry run.
    pub kind: EpisodeKind,
    /// The pod's name.
    pub pod: String,
    /// Its identity.
    pub uid: Uid,
    /// The breaker or callback.
    pub breaker: String,
    /// Why, in one line of text.
    pub reason: String,
    /// The number of this withdrawal of the pod, as the activator counts.
    pub retry: u32,
    /// When the ledger took it in; known after a restart, too.
    pub from: Timestamp,
    /// When it was out of the ledger; `None` while it is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
}

/// The episodes of one fleet.
#[derive(Clone, Debug, Default)]
pub struct Episodes {
    open: BTreeMap<(EpisodeKind, Uid), Episode>,
    ended: VecDeque<Episode>,
}

impl Episodes {
    /// Notes what one of the ledgers holds now; `None`: there is none, so that its episodes end.
    pub fn observe(&mut self, now: Timestamp, kind: EpisodeKind, ledger: Option<&Ledger>) {
        let entries =
            || ledger.iter().flat_map(|ledger| ledger.entries.values()).filter(|entry| withheld(entry));
        // A pod that comes back and is withheld again between two calls has a later beginning.
        let ends = |(of, uid): &(EpisodeKind, Uid), episode: &Episode| {
            *of == kind && !entries().any(|entry| entry.uid == *uid && entry.break_at == episode.from)
        };
        let ended: Vec<_> = self
            .open
            .iter()
            .filter(|(key, episode)| ends(key, episode))
            .map(|(key, _)| key.clone())
            .collect();
        for episode in ended.iter().filter_map(|key| self.open.remove(key)) {
            if self.ended.len() == ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(Episode { to: Some(now), ..episode });
        }
        for entry in entries() {
            self.open.entry((kind, entry.uid.clone())).or_insert_with(|| Episode {
                kind,
                pod: entry.name.clone(),
                uid: entry.uid.clone(),
                breaker: entry.breaker.clone(),
                reason: entry.reason.clone(),
                retry: entry.retry_count,
                from: entry.break_at,
                to: None,
            });
        }
    }

    /// Newest first.
    pub fn all(&self) -> Vec<Episode> {
        let mut all: Vec<Episode> = self.open.values().chain(&self.ended).cloned().collect();
        all.sort_by(|a, b| (b.from, &b.pod).cmp(&(a.from, &a.pod)));
        all
    }
}

/// The withdrawal is in effect, and not merely reserved.
fn withheld(entry: &Entry) -> bool {
    !matches!(entry.state, EntryState::Reserved | EntryState::Cancelling)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(seconds * 1000)
    }

    /// A ledger with these pods, withheld since then.
    fn ledger(pods: &[(&str, i64, &str)]) -> Ledger {
        let fence = "00000000000000aa.1";
        let entry = |(pod, since, state): &(&str, i64, &str)| {
            let entry = json!({
                "uid": pod, "name": pod, "fence": fence, "next": fence, "state": state, "breaker": "errors",
                "reason": "bad", "breakAt": since * 1000, "retryCount": 1, "desired": 2,
            });
            ((*pod).to_owned(), entry)
        };
        let entries: serde_json::Map<_, _> = pods.iter().map(entry).collect();
        let ledger =
            json!({"schema": 1, "uid": "u", "epoch": "00000000000000aa", "serial": 1, "entries": entries});
        serde_json::from_value(ledger).unwrap()
    }

    fn spans(episodes: &Episodes) -> Vec<(EpisodeKind, String, Timestamp, Option<Timestamp>)> {
        episodes.all().into_iter().map(|it| (it.kind, it.pod, it.from, it.to)).collect()
    }

    #[test]
    fn real_and_would_be_withdrawals_are_kept_apart() {
        let mut episodes = Episodes::default();
        episodes.observe(at(10), EpisodeKind::Real, Some(&ledger(&[("a", 5, "withheld")])));
        episodes.observe(
            at(10),
            EpisodeKind::DryRun,
            Some(&ledger(&[("a", 7, "withheld"), ("b", 9, "withheld")])),
        );
        episodes.observe(at(20), EpisodeKind::Real, Some(&ledger(&[])));
        episodes.observe(at(21), EpisodeKind::DryRun, None);
        assert_eq!(
            spans(&episodes),
            [
                (EpisodeKind::DryRun, "b".to_owned(), at(9), Some(at(21))),
                (EpisodeKind::DryRun, "a".to_owned(), at(7), Some(at(21))),
                (EpisodeKind::Real, "a".to_owned(), at(5), Some(at(20))),
            ]
        );
    }

    #[test]
    fn a_pod_that_is_withheld_again_has_two_episodes_and_a_reservation_has_none() {
        let mut episodes = Episodes::default();
        let real = EpisodeKind::Real;
        episodes.observe(at(1), real, Some(&ledger(&[("a", 1, "reserved")])));
        assert!(episodes.all().is_empty());
        episodes.observe(at(2), real, Some(&ledger(&[("a", 1, "withheld")])));
        episodes.observe(at(9), real, Some(&ledger(&[("a", 8, "paused")])));
        let expected = [(real, "a".to_owned(), at(8), None), (real, "a".to_owned(), at(1), Some(at(9)))];
        assert_eq!(spans(&episodes), expected);
    }

    #[test]
    fn the_ended_ones_are_bounded() {
        let mut episodes = Episodes::default();
        for round in 1..1000 {
            episodes.observe(at(round), EpisodeKind::DryRun, Some(&ledger(&[("a", round, "withheld")])));
        }
        assert_eq!(episodes.all().len(), ENDED + 1);
    }
}
