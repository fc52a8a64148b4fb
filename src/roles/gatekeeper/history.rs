//! What happened to each pod, bounded: the newest events of each, and not of more pods than a fleet has.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::{
    adapters::sink::Observed,
    decide::{
        fleet::Presence,
        gate::{Plan, action::Verb, ledger::Outcome},
        time::Timestamp,
    },
};

/// Events that are kept of each pod.
pub const EVENTS: usize = 20;
/// Pods that are remembered after they have left.
const GONE: usize = 200;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: &'static str,
    /// On whose account.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub breaker: String,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// By name, so that a pod's story goes on when it restarts.
#[derive(Clone, Debug, Default)]
pub struct History {
    events: BTreeMap<String, VecDeque<Event>>,
    presence: BTreeMap<String, Presence>,
    gone: VecDeque<String>,
}

impl History {
    /// Who joined, left, fell silent or came back since the last time.
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
            self.bury(name);
        }
    }

    /// What a plan did.
    pub fn act(&mut self, plan: &Plan, outcomes: &[Outcome], rehearsed: bool) {
        for (action, outcome) in plan.actions.iter().zip(outcomes) {
            let what = match (rehearsed, outcome) {
                (true, _) => would(action.verb),
                (false, Outcome::Landed) => did(action.verb),
                (false, Outcome::Refused) => "refused: somebody was faster",
                (false, Outcome::Unknown) => "sent, without an answer",
            };
            let event =
                Event { at: plan.at, what, breaker: action.breaker.clone(), reason: action.reason.clone() };
            // A rehearsal says the same at every step; once is enough.
            let said = self.events.get(&action.name).and_then(VecDeque::back);
            if !rehearsed || said.is_none_or(|last| (last.what, &last.reason) != (what, &event.reason)) {
                self.note(&action.name, event);
            }
        }
    }

    /// Oldest first.
    #[must_use]
    pub fn of(&self, name: &str) -> Vec<Event> {
        self.events.get(name).map(|events| events.iter().cloned().collect()).unwrap_or_default()
    }

    fn note(&mut self, name: &str, event: Event) {
        let events = self.events.entry(name.to_owned()).or_default();
        if events.len() == EVENTS {
            events.pop_front();
        }
        events.push_back(event);
    }

    fn bury(&mut self, name: &str) {
        self.gone.push_back(name.to_owned());
        if self.gone.len() > GONE
            && let Some(oldest) = self.gone.pop_front()
            && !self.presence.contains_key(&oldest)
            && !self.gone.contains(&oldest)
        {
            self.events.remove(&oldest);
        }
    }
}

fn plain(at: Timestamp, what: &'static str) -> Event {
    Event { at, what, breaker: String::new(), reason: String::new() }
}

fn did(verb: Verb) -> &'static str {
    match verb {
        Verb::Claim => "claimed",
        Verb::Withhold => "withheld",
        Verb::Cancel => "withdrawal cancelled",
        Verb::Admit => "admitted",
        Verb::Pause => "paused",
        Verb::Kill => "killed",
        Verb::Release => "released from the ledger",
        Verb::Forget => "forgotten: silent, and its place is filled",
    }
}

fn would(verb: Verb) -> &'static str {
    match verb {
        Verb::Claim => "dry run: would be claimed",
        Verb::Withhold => "dry run: would be withheld",
        Verb::Cancel => "dry run: withdrawal would be cancelled",
        Verb::Admit => "dry run: would be admitted",
        Verb::Pause => "dry run: would be paused",
        Verb::Kill => "dry run: would be killed",
        Verb::Release => "dry run: would be released from the ledger",
        Verb::Forget => "dry run: would be forgotten",
    }
}
