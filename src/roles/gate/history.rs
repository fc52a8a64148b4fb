//! The history of each pod: its newest [`ENTRIES`] entries, for the pods of the fleet and the last `DEPARTED` that left.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::{
    adapters::sink::Observed,
    decide::{
        fleet::Presence,
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
    entries: BTreeMap<String, VecDeque<HistoryEntry>>,
    presence: BTreeMap<String, Presence>,
    departed: VecDeque<String>,
}

impl History {
    /// Notes which pods joined, left, fell silent or came back since the last call.
    pub fn observe(&mut self, now: Timestamp, observed: &Observed) {
        let named = observed.fleet.pods().iter().map(|pod| {
            let presence = observed.details.get(&pod.uid).map_or(pod.presence, |detail| detail.presence);
            (pod.name.clone(), presence)
        });
        let presence: BTreeMap<String, Presence> = named.collect();
        let before = std::mem::replace(&mut self.presence, presence.clone());
        for (name, is) in &presence {
            match (before.get(name), is) {
                (None, _) => self.note(name, plain(now, "joined the fleet")),
                (Some(Presence::Present), Presence::Unknown) => self.note(name, plain(now, "fell silent")),
                (Some(Presence::Unknown), Presence::Present) => {
                    self.note(name, plain(now, "was heard again"))
                }
                _ => {}
            }
        }
        for name in before.keys().filter(|name| !presence.contains_key(*name)) {
            self.note(name, plain(now, "left the fleet"));
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
            let newest = self.entries.get(&action.name).and_then(VecDeque::back);
            if !rehearsed || newest.is_none_or(|last| (last.what, &last.reason) != (what, &entry.reason)) {
                self.note(&action.name, entry);
            }
        }
    }

    /// Oldest first.
    pub fn of(&self, name: &str) -> Vec<HistoryEntry> {
        self.entries.get(name).map(|entries| entries.iter().cloned().collect()).unwrap_or_default()
    }

    fn note(&mut self, name: &str, entry: HistoryEntry) {
        let entries = self.entries.entry(name.to_owned()).or_default();
        if entries.len() == ENTRIES {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    fn depart(&mut self, name: &str) {
        self.departed.push_back(name.to_owned());
        if self.departed.len() > DEPARTED
            && let Some(oldest) = self.departed.pop_front()
            && !self.presence.contains_key(&oldest)
            && !self.departed.contains(&oldest)
        {
            self.entries.remove(&oldest);
        }
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
