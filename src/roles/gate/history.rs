//! The history of each pod: its newest [`ENTRIES`] entries, for the pods of the fleet and the last `DEPARTED` that left.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    adapters::sink::PodDetail,
    decide::{
        fleet::{Fleet, Presence, Uid},
        gate::{Plan, action::Verb, ledger::ActionOutcome},
        time::Timestamp,
    },
};

/// Entries kept of each pod.
pub const ENTRIES: usize = 20;
/// Pods whose history is kept after they left.
const DEPARTED: usize = 200;

/// One change or decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Wall clock.
    pub at: Timestamp,
    /// What happened, in words.
    pub what: &'static str,
    /// The breaker that decided it; empty without one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub breaker: String,
    /// The reason given.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Keyed by name, so that a restarted pod's history continues.
#[derive(Clone, Debug, Default)]
pub struct History {
    pods: BTreeMap<String, PodHistory>,
    departed: VecDeque<String>,
}

/// What is kept of one pod.
#[derive(Clone, Debug, Default)]
struct PodHistory {
    /// `None`: it is not of the fleet.
    presence: Option<Presence>,
    /// Oldest first; snapshots share them.
    entries: Arc<[HistoryEntry]>,
}

impl History {
    /// Notes which pods joined, left, fell silent or came back since the last call.
    pub fn observe(&mut self, now: Timestamp, fleet: &Fleet, details: &BTreeMap<Uid, PodDetail>) {
        let named = fleet.pods().iter().map(|pod| {
            let presence = details.get(&pod.uid).map_or(pod.presence, |detail| detail.presence);
            (pod.name.as_str(), presence)
        });
        let presence: BTreeMap<&str, Presence> = named.collect();
        for (name, is) in &presence {
            let pod = self.pod(name);
            let what = match (pod.presence.replace(*is), is) {
                (None, _) => "joined the fleet",
                (Some(Presence::Present), Presence::Unknown) => "fell silent",
                (Some(Presence::Unknown), Presence::Present) => "was heard again",
                _ => continue,
            };
            pod.note(plain(now, what));
        }
        let here = |pod: &PodHistory| pod.presence.is_some();
        let gone = self.pods.iter().filter(|(name, pod)| here(pod) && !presence.contains_key(name.as_str()));
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            let pod = self.pod(&name);
            pod.presence = None;
            pod.note(plain(now, "left the fleet"));
            self.depart(name);
        }
    }

    /// Notes the outcome of each action of a plan.
    pub fn act(&mut self, plan: &Plan, outcomes: &[ActionOutcome], rehearsed: bool) {
        for (action, outcome) in plan.actions.iter().zip(outcomes) {
            let what = match (rehearsed, outcome) {
                (true, _) => done(action.verb).1,
                (false, ActionOutcome::Landed) => done(action.verb).0,
                (false, ActionOutcome::Refused) => "refused: the pod had changed",
                (false, ActionOutcome::Unknown) => "sent, without an answer",
            };
            let entry = HistoryEntry {
                at: plan.at,
                what,
                breaker: action.breaker.clone(),
                reason: action.reason.clone(),
            };
            // A rehearsal repeats its actions at every reconcile; they are noted once.
            let pod = self.pod(&action.name);
            let newest = pod.entries.last();
            if !rehearsed || newest.is_none_or(|last| (last.what, &last.reason) != (what, &entry.reason)) {
                pod.note(entry);
            }
        }
    }

    /// Oldest first.
    pub fn of(&self, name: &str) -> Arc<[HistoryEntry]> {
        self.pods.get(name).map(|pod| Arc::clone(&pod.entries)).unwrap_or_default()
    }

    fn pod(&mut self, name: &str) -> &mut PodHistory {
        self.pods.entry(name.to_owned()).or_default()
    }

    fn depart(&mut self, name: String) {
        self.departed.push_back(name);
        if self.departed.len() > DEPARTED
            && let Some(oldest) = self.departed.pop_front()
            && self.pods.get(&oldest).is_some_and(|pod| pod.presence.is_none())
            && !self.departed.contains(&oldest)
        {
            self.pods.remove(&oldest);
        }
    }
}

impl PodHistory {
    fn note(&mut self, entry: HistoryEntry) {
        let oldest = (self.entries.len() + 1).saturating_sub(ENTRIES);
        self.entries = self.entries.iter().skip(oldest).cloned().chain([entry]).collect();
    }
}

fn plain(at: Timestamp, what: &'static str) -> HistoryEntry {
    HistoryEntry { at, what, breaker: String::new(), reason: String::new() }
}

/// What was done, and what a dry run would do.
fn done(verb: Verb) -> (&'static str, &'static str) {
    match verb {
        Verb::Claim => ("claimed", "dry run: would be claimed"),
        Verb::Withhold => ("withheld", "dry run: would be withheld"),
        Verb::Cancel => ("withdrawal cancelled", "dry run: withdrawal would be cancelled"),
        Verb::Admit => ("admitted", "dry run: would be admitted"),
        Verb::Pause => ("paused", "dry run: would be paused"),
        Verb::Kill => ("killed", "dry run: would be killed"),
        Verb::Release => ("released from the ledger", "dry run: would be released from the ledger"),
        Verb::Forget => ("forgotten: silent, and its place is filled", "dry run: would be forgotten"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fleet::{Fence, PodView};

    fn fleet(pods: &[(&str, Presence)]) -> Fleet {
        let view = |(name, presence): &(&str, Presence)| PodView {
            presence: *presence,
            ..PodView::serving(*name, *name, Fence::default())
        };
        Fleet::new(0, pods.iter().map(view).collect())
    }

    fn observe(history: &mut History, millis: i64, pods: &[(&str, Presence)]) {
        history.observe(Timestamp::from_unix_millis(millis), &fleet(pods), &BTreeMap::new());
    }

    fn told(history: &History, name: &str) -> Vec<&'static str> {
        history.of(name).iter().map(|entry| entry.what).collect()
    }

    #[test]
    fn joining_silence_return_and_leaving_are_noted_once_each() {
        let mut history = History::default();
        let courses: [&[_]; 6] = [
            &[("a", Presence::Present)],
            &[("a", Presence::Present)],
            &[("a", Presence::Unknown)],
            &[("a", Presence::Present)],
            &[],
            &[("a", Presence::Present)],
        ];
        for (at, pods) in (0..).zip(courses) {
            observe(&mut history, at, pods);
        }
        let all =
            ["joined the fleet", "fell silent", "was heard again", "left the fleet", "joined the fleet"];
        assert_eq!(told(&history, "a"), all);
        assert_eq!(
            history.of("a").iter().map(|entry| entry.at.unix_millis()).collect::<Vec<_>>(),
            [0, 2, 3, 4, 5]
        );
    }

    #[test]
    fn the_newest_entries_of_a_pod_are_kept() {
        let mut history = History::default();
        let is = |at: i64| if at % 2 == 0 { Presence::Present } else { Presence::Unknown };
        for at in 0..100 {
            observe(&mut history, at, &[("a", is(at))]);
        }
        let kept = history.of("a");
        assert_eq!(
            (kept.len(), kept[0].at.unix_millis(), kept[ENTRIES - 1].at.unix_millis()),
            (ENTRIES, 80, 99)
        );
    }

    #[test]
    fn the_last_pods_that_left_are_kept_and_whoever_is_back() {
        let mut history = History::default();
        let names: Vec<String> = (0..DEPARTED).map(|number| format!("pod-{number}")).collect();
        observe(&mut history, 0, &[("pod-0", Presence::Present), ("back", Presence::Present)]);
        observe(&mut history, 1, &[]);
        observe(&mut history, 2, &[("back", Presence::Present)]);
        for (at, name) in (3..).zip(&names) {
            observe(&mut history, at, &[("back", Presence::Present), (name, Presence::Present)]);
        }
        observe(&mut history, 1000, &[("back", Presence::Present)]);
        assert_eq!(history.pods.len(), DEPARTED + 1);
        assert_eq!(told(&history, "back").len(), 3);
        assert_eq!(told(&history, "pod-0").len(), 4, "it left a second time, among the last");
        observe(&mut history, 1001, &[("back", Presence::Present), ("late", Presence::Present)]);
        observe(&mut history, 1002, &[("back", Presence::Present)]);
        assert_eq!(told(&history, "pod-0"), [""; 0]);
        assert_eq!(told(&history, "pod-1"), ["joined the fleet", "left the fleet"]);
    }
}
