//! Which decisions become Events.
//!
//! Each kind of decision has its own reason, on the pod and on the resource. A lasting state (a panic, the floor) is
//! reported when it begins, and some also when they end. Pure: an
//! [`EventRecorder`](crate::adapters::kubernetes::events::EventRecorder) sends the Events.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::conditions::{LASTING, Lasting, NOT_LEAVING, Reported};
use crate::{
    adapters::{
        kubernetes::events::{Event, EventKind, ObjectRef},
        sink::ListingFindings,
    },
    decide::{
        fleet::Uid,
        gate::{
            Plan,
            action::{Action, Verb},
            ledger::ActionOutcome,
        },
        time::Timestamp,
    },
};

/// Up to this many pods with one decision each get an Event on the resource; more share one.
const SINGLY: usize = 5;

/// The Event of a verb.
struct VerbEvent {
    reason: &'static str,
    /// The reason in a dry run; empty: no Event.
    rehearsed: &'static str,
    action: &'static str,
    kind: EventKind,
    /// "withheld", as in "3 pods withheld".
    past: &'static str,
}

/// `None`: the verb has no Event.
fn verb_event(verb: Verb) -> Option<VerbEvent> {
    let event =
        |reason, rehearsed, action, kind, past| Some(VerbEvent { reason, rehearsed, action, kind, past });
    match verb {
        Verb::Withhold => event("Withheld", "WouldWithhold", "Withhold", EventKind::Warning, "withheld"),
        Verb::Admit => event("Admitted", "WouldAdmit", "Admit", EventKind::Normal, "admitted"),
        Verb::Pause => event("Paused", "WouldPause", "Pause", EventKind::Warning, "paused"),
        Verb::Kill => event("Killed", "WouldKill", "Kill", EventKind::Warning, "killed"),
        // A dry run has no reservation to cancel.
        Verb::Cancel => event("Cancelled", "", "Cancel", EventKind::Normal, "not withheld after all"),
        Verb::Claim | Verb::Release | Verb::Forget => None,
    }
}

/// The rules of one resource, with the state that keeps an Event from being repeated.
#[derive(Clone, Debug, Default)]
pub struct EventRules {
    resource: ObjectRef,
    raised: BTreeSet<&'static str>,
    reverted_until: Option<Timestamp>,
    rehearsed: BTreeSet<(Uid, Verb)>,
    pause: Option<String>,
}

impl EventRules {
    /// Rules for the Events of `resource`, which continue after what a previous process reported.
    pub fn resume(resource: ObjectRef, reported: Reported) -> Self {
        let Reported { raised, reverted_until } = reported;
        Self { resource, raised, reverted_until, rehearsed: BTreeSet::new(), pause: None }
    }

    /// Events of the actions that landed.
    pub fn acted(&self, plan: &Plan, outcomes: &[ActionOutcome]) -> Vec<Event> {
        let landed =
            plan.actions.iter().zip(outcomes).filter(|(_, outcome)| **outcome == ActionOutcome::Landed);
        let landed: Vec<&Action> = landed.map(|(action, _)| action).collect();
        let mut all = self.decided(&landed, false);
        all.extend(self.claimed(&landed));
        all
    }

    /// Events of a rehearsal's actions that `is_dry_run` selects, once while they stay the same.
    pub fn rehearsed(
        &mut self,
        rehearsal: Option<&Plan>,
        is_dry_run: impl Fn(&Action) -> bool,
    ) -> Vec<Event> {
        let actions = rehearsal.map(|plan| plan.actions.as_slice()).unwrap_or_default();
        let actions: Vec<&Action> = actions.iter().filter(|action| is_dry_run(action)).collect();
        let name = |action: &Action| (action.uid.clone(), action.verb);
        let new: Vec<&Action> =
            actions.iter().copied().filter(|action| !self.rehearsed.contains(&name(action))).collect();
        let all = self.decided(&new, true);
        self.rehearsed = actions.into_iter().map(name).collect();
        all
    }

    /// Events of the lasting states that begin or end with this plan.
    pub fn edges(&mut self, plan: &Plan, listing: &ListingFindings) -> Vec<Event> {
        let mut all = Vec::new();
        for Lasting { name, begins, ends, .. } in LASTING {
            let note = match name {
                NOT_LEAVING => listing.not_leaving.as_ref().map(|finding| &finding.message),
                alarm => plan.alarms.iter().find(|found| found.reason == alarm).map(|found| &found.message),
            };
            match note {
                Some(note) if self.raised.insert(name) => {
                    all.push(self.of_fleet(begins, EventKind::Warning, note));
                }
                None if self.raised.remove(name) => {
                    all.extend(ends.map(|(reason, note)| self.of_fleet(reason, EventKind::Normal, note)));
                }
                _ => {}
            }
        }
        all.extend(self.reverted(plan));
        all
    }

    /// A pause that a person asks for begins, or ends.
    pub fn pause(&mut self, pause: Option<&str>, resumed: Option<&str>) -> Option<Event> {
        if self.pause.as_deref() == pause {
            return None;
        }
        self.pause = pause.map(str::to_owned);
        Some(match pause {
            Some(asked) => {
                let note = format!("nothing is withheld or admitted: {asked}");
                self.of_fleet("PauseRequested", EventKind::Normal, &note)
            }
            None => {
                let why = resumed.unwrap_or("the pause has ended");
                let note = format!("decisions are made again: {why}");
                self.of_fleet("PauseEnded", EventKind::Normal, &note)
            }
        })
    }

    /// A withdrawal that did not lower the share of bad pods was reverted.
    fn reverted(&mut self, plan: &Plan) -> Option<Event> {
        // A plan without a new ledger changes nothing in it.
        let until = plan.next.as_ref()?.reverted_until;
        let later = until > self.reverted_until;
        self.reverted_until = until;
        let note = format!(
            "the last cut did not lower the share of bad pods: they have their traffic back, and nothing is withheld before {}",
            until?
        );
        later.then(|| self.of_fleet("Reverted", EventKind::Warning, &note))
    }

    /// One Event on each pod; on the resource one for each pod, or one for many.
    fn decided(&self, actions: &[&Action], rehearsed: bool) -> Vec<Event> {
        let mut all = Vec::new();
        let mut groups: BTreeMap<(Verb, &str), Vec<&Action>> = BTreeMap::new();
        for action in actions {
            groups.entry((action.verb, &action.breaker)).or_default().push(action);
        }
        for ((verb, breaker), actions) in groups {
            let Some(verb) = verb_event(verb) else { continue };
            let reason = if rehearsed { verb.rehearsed } else { verb.reason };
            if reason.is_empty() {
                continue;
            }
            // A rehearsal changes nothing, so it warns of nothing.
            let kind = if rehearsed { EventKind::Normal } else { verb.kind };
            let one = |about: &ObjectRef, related, rule: &str, note| {
                let (about, rule) = (about.clone(), rule.to_owned());
                Event { about, related, kind, reason, action: verb.action, rule, note }
            };
            let singly = actions.len() <= SINGLY;
            for action in &actions {
                let pod = self.pod(action);
                if singly {
                    let note = format!("{}: {}", action.name, why(action));
                    all.push(one(&self.resource, Some(pod.clone()), breaker, note));
                }
                all.push(one(&pod, Some(self.resource.clone()), breaker, why(action)));
            }
            if !singly {
                all.push(one(&self.resource, None, "", summed_up(&actions, breaker, verb.past, rehearsed)));
            }
        }
        all
    }

    /// One Event on the resource: a claim does not change a pod's traffic.
    fn claimed(&self, actions: &[&Action]) -> Option<Event> {
        let claims: Vec<_> = actions.iter().filter(|action| action.verb == Verb::Claim).collect();
        let names: Vec<_> = claims.iter().take(SINGLY).map(|action| action.name.as_str()).collect();
        let more = if claims.len() > SINGLY { ", ..." } else { "" };
        let note = format!("{} pods claimed: {}{more}", claims.len(), names.join(", "));
        // One rule makes all claims one series: a rollout claims pod by pod.
        let rule = "claims".to_owned();
        let event = self.of_fleet("Claimed", EventKind::Normal, &note);
        (!claims.is_empty()).then_some(Event { action: "Claim", rule, ..event })
    }

    fn of_fleet(&self, reason: &'static str, kind: EventKind, note: &str) -> Event {
        let (about, rule, note) = (self.resource.clone(), reason.to_owned(), note.to_owned());
        Event { about, related: None, kind, reason, action: "Observe", rule, note }
    }

    fn pod(&self, action: &Action) -> ObjectRef {
        ObjectRef {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: self.resource.namespace.clone(),
            name: action.name.clone(),
            uid: action.uid.to_string(),
        }
    }
}

fn why(action: &Action) -> String {
    if action.breaker.is_empty() {
        return action.reason.clone();
    }
    format!("{}: {}", action.breaker, action.reason)
}

fn summed_up(actions: &[&Action], breaker: &str, past: &str, rehearsed: bool) -> String {
    let names: Vec<_> = actions.iter().take(SINGLY).map(|action| action.name.as_str()).collect();
    let (count, more) = (actions.len(), actions.len().saturating_sub(SINGLY));
    let would = if rehearsed { " would be" } else { "" };
    let account = if breaker.is_empty() { String::new() } else { format!(" ({breaker})") };
    format!("{count} pods{would} {}{account}: {} and {more} more", past, names.join(", "))
}
