//! Which decisions become Events, and in which words.
//!
//! Every kind of decision has a reason of its own, on the pod and on the resource. What lasts (a panic, the floor) is
//! told when it begins, and where that is news when it ends, not at every step in between. Pure: an
//! [`EventRecorder`](crate::adapters::kubernetes::events::EventRecorder) sends what comes out.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    adapters::kubernetes::events::{Event, EventKind, ObjectRef},
    decide::{
        fleet::Uid,
        gate::{
            Plan,
            action::{Action, Verb},
            ledger::Outcome,
        },
        time::Timestamp,
    },
};

/// More pods than this of one kind in one plan are one Event on the resource; each pod has its own in any case.
const SINGLY: usize = 5;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// One CamelCase word for it.
    pub reason: &'static str,
    /// One word for what was done.
    pub action: &'static str,
    /// How much it should worry people.
    pub kind: EventKind,
    /// On which of the two it is told.
    pub about: About,
    /// What makes two of them equal beside the objects: the breaker. Empty: the note.
    pub rule: String,
    /// For people.
    pub note: String,
}

/// On which object an announcement is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// The resource; of one pod, if one is named.
    Resource(Option<Named>),
    /// The pod.
    Pod(Named),
}

/// A pod as an Event names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its identity.
    pub uid: Uid,
    /// Its name.
    pub name: String,
}

impl Announcement {
    /// As a recorder takes it.
    #[must_use]
    pub fn event(self, resource: &ObjectRef) -> Event {
        let pod = |named: Named| ObjectRef {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: resource.namespace.clone(),
            name: named.name,
            uid: named.uid.to_string(),
        };
        let (about, related) = match self.about {
            About::Resource(named) => (resource.clone(), named.map(pod)),
            About::Pod(named) => (pod(named), Some(resource.clone())),
        };
        let Self { reason, action, kind, rule, note, .. } = self;
        Event { about, related, kind, reason, action, rule, note }
    }
}

/// How a verb is told.
struct Word {
    reason: &'static str,
    rehearsed: &'static str,
    action: &'static str,
    kind: EventKind,
    /// "withheld", as in "3 pods withheld".
    past: &'static str,
}

/// `None`: nobody needs to hear of it.
fn word(verb: Verb) -> Option<Word> {
    let word = |reason, rehearsed, action, kind, past| Some(Word { reason, rehearsed, action, kind, past });
    match verb {
        Verb::Withhold => word("Withheld", "WouldWithhold", "Withhold", EventKind::Warning, "withheld"),
        Verb::Admit => word("Admitted", "WouldAdmit", "Admit", EventKind::Normal, "admitted"),
        Verb::Pause => word("Paused", "WouldPause", "Pause", EventKind::Warning, "paused"),
        Verb::Kill => word("Killed", "WouldKill", "Kill", EventKind::Warning, "killed"),
        // A dry run has nothing under way that it could take back.
        Verb::Cancel => word("Cancelled", "", "Cancel", EventKind::Normal, "not withheld after all"),
        Verb::Claim | Verb::Release | Verb::Forget => None,
    }
}

/// What lasts: the alarm of a plan, and the words for its beginning and its end.
struct Lasting {
    alarm: &'static str,
    begins: &'static str,
    ends: Option<(&'static str, &'static str)>,
}

const LASTING: &[Lasting] = &[
    Lasting { alarm: "floor_reached", begins: "FloorReached", ends: None },
    Lasting { alarm: "below_floor", begins: "BelowFloor", ends: None },
    Lasting {
        alarm: "panic",
        begins: "PanicEntered",
        ends: Some(("PanicLeft", "no more of the fleet looks bad than usual: decisions are made again")),
    },
    Lasting {
        alarm: "no_data",
        begins: "NoData",
        ends: Some(("DataBack", "every breaker has enough verdicts again")),
    },
    Lasting { alarm: "foreign_no", begins: "ForeignNo", ends: None },
    Lasting { alarm: "odd_switch", begins: "OddSwitch", ends: None },
    Lasting { alarm: "ledger_full", begins: "LedgerFull", ends: None },
];

/// What lasts and is not in a plan's alarms.
const NOT_LEAVING: &str = "not_leaving_endpoints";

/// Knows what was told already.
#[derive(Clone, Debug, Default)]
pub struct Announcer {
    up: BTreeSet<&'static str>,
    reverted_until: Option<Timestamp>,
    rehearsed: BTreeSet<(Uid, Verb)>,
}

impl Announcer {
    /// One that goes on where the last process stopped: what the stored status says was told by that one.
    #[must_use]
    pub fn resume(status: &Value) -> Self {
        let conditions = status.get("conditions").and_then(Value::as_array);
        let told = |kind: &str, state: &str, reason: &str| {
            conditions.into_iter().flatten().any(|condition| {
                condition.get("type").and_then(Value::as_str) == Some(kind)
                    && condition.get("status").and_then(Value::as_str) == Some(state)
                    && (reason.is_empty() || condition.get("reason").and_then(Value::as_str) == Some(reason))
            })
        };
        let known = [
            ("floor_reached", told("FloorReached", "True", "FloorHolds")),
            ("below_floor", told("FloorReached", "True", "BelowFloor")),
            ("panic", told("Panic", "True", "")),
            ("no_data", told("DataAvailable", "False", "")),
            ("foreign_no", told("ForeignNo", "True", "WithheldByOthers")),
            ("odd_switch", told("ForeignNo", "True", "OddSwitch")),
            ("ledger_full", told("LedgerFull", "True", "")),
            (NOT_LEAVING, told("NotLeavingEndpoints", "True", "")),
        ];
        let up = known.into_iter().filter_map(|(alarm, told)| told.then_some(alarm)).collect();
        let reverted_until = status.pointer("/ledger/revertedUntil");
        let reverted_until = reverted_until.and_then(Value::as_i64).map(Timestamp::from_unix_millis);
        Self { up, reverted_until, rehearsed: BTreeSet::new() }
    }

    /// What a plan did to pods: only what has landed.
    #[must_use]
    pub fn acted(&self, plan: &Plan, outcomes: &[Outcome]) -> Vec<Announcement> {
        let landed = plan.actions.iter().zip(outcomes).filter(|(_, outcome)| **outcome == Outcome::Landed);
        let landed: Vec<&Action> = landed.map(|(action, _)| action).collect();
        let mut all = told(&landed, false);
        all.extend(claimed(&landed));
        all
    }

    /// What a rehearsal would have done on account of those who `only` rehearse, once for as long as it stays the same.
    pub fn rehearsed(
        &mut self,
        rehearsal: Option<&Plan>,
        only: impl Fn(&Action) -> bool,
    ) -> Vec<Announcement> {
        let actions = rehearsal.map(|plan| plan.actions.as_slice()).unwrap_or_default();
        let actions: Vec<&Action> = actions.iter().filter(|action| only(action)).collect();
        let name = |action: &Action| (action.uid.clone(), action.verb);
        let new: Vec<&Action> =
            actions.iter().copied().filter(|action| !self.rehearsed.contains(&name(action))).collect();
        let all = told(&new, true);
        self.rehearsed = actions.into_iter().map(name).collect();
        all
    }

    /// What begins or ends with this plan; `unlanded` are withheld pods that do not leave the endpoints.
    pub fn edges(&mut self, plan: &Plan, unlanded: Option<&str>) -> Vec<Announcement> {
        let mut all = Vec::new();
        for Lasting { alarm, begins, ends } in LASTING {
            let up = plan.alarms.iter().find(|up| up.reason == *alarm);
            match (up, ends) {
                (Some(up), _) if self.up.insert(alarm) => {
                    all.push(of_fleet(begins, EventKind::Warning, &up.message))
                }
                (None, ends) if self.up.remove(alarm) => {
                    all.extend(ends.iter().map(|(reason, note)| of_fleet(reason, EventKind::Normal, note)));
                }
                _ => {}
            }
        }
        match unlanded {
            Some(pods) if self.up.insert(NOT_LEAVING) => {
                let note = format!(
                    "{pods} still in the ready endpoints 10 s after the withdrawal: does another Service select the same pods?"
                );
                all.push(of_fleet("NotLeavingEndpoints", EventKind::Warning, &note));
            }
            None => {
                self.up.remove(NOT_LEAVING);
            }
            Some(_) => {}
        }
        all.extend(self.reverted(plan));
        all
    }

    /// A cut that helped nobody was taken back.
    fn reverted(&mut self, plan: &Plan) -> Option<Announcement> {
        // Without a ledger to store, everything in it is as it was.
        let until = plan.next.as_ref()?.reverted_until;
        let later = until > self.reverted_until;
        self.reverted_until = until;
        let note = format!(
            "the last cut did not lower the share of bad pods: they have their traffic back, and nothing is withheld before {}",
            until?
        );
        later.then(|| of_fleet("Reverted", EventKind::Warning, &note))
    }
}

/// Each on its pod; on the resource one by one, or many as one.
fn told(actions: &[&Action], rehearsed: bool) -> Vec<Announcement> {
    let mut all = Vec::new();
    let mut groups: BTreeMap<(Verb, &str), Vec<&Action>> = BTreeMap::new();
    for action in actions {
        groups.entry((action.verb, &action.breaker)).or_default().push(action);
    }
    for ((verb, breaker), actions) in groups {
        let Some(word) = word(verb) else { continue };
        let reason = if rehearsed { word.rehearsed } else { word.reason };
        if reason.is_empty() {
            continue;
        }
        // Nothing has happened that anybody must look at.
        let kind = if rehearsed { EventKind::Normal } else { word.kind };
        let one = |about, rule: &str, note| {
            let (action, rule) = (word.action, rule.to_owned());
            Announcement { reason, action, kind, about, rule, note }
        };
        let singly = actions.len() <= SINGLY;
        for action in &actions {
            let named = Named { uid: action.uid.clone(), name: action.name.clone() };
            if singly {
                let note = format!("{}: {}", action.name, why(action));
                all.push(one(About::Resource(Some(named.clone())), breaker, note));
            }
            all.push(one(About::Pod(named), breaker, why(action)));
        }
        if !singly {
            all.push(one(About::Resource(None), "", summed_up(&actions, breaker, &word, rehearsed)));
        }
    }
    all
}

fn why(action: &Action) -> String {
    if action.breaker.is_empty() {
        return action.reason.clone();
    }
    format!("{}: {}", action.breaker, action.reason)
}

fn summed_up(actions: &[&Action], breaker: &str, word: &Word, rehearsed: bool) -> String {
    let names: Vec<_> = actions.iter().take(SINGLY).map(|action| action.name.as_str()).collect();
    let (count, more) = (actions.len(), actions.len().saturating_sub(SINGLY));
    let would = if rehearsed { " would be" } else { "" };
    let account = if breaker.is_empty() { String::new() } else { format!(" ({breaker})") };
    format!("{count} pods{would} {}{account}: {} and {more} more", word.past, names.join(", "))
}

/// On the resource only: a pod that is claimed notices nothing of it.
fn claimed(actions: &[&Action]) -> Option<Announcement> {
    let claims: Vec<_> = actions.iter().filter(|action| action.verb == Verb::Claim).collect();
    let names: Vec<_> = claims.iter().take(SINGLY).map(|action| action.name.as_str()).collect();
    let more = if claims.len() > SINGLY { ", ..." } else { "" };
    let note = format!("{} pods claimed: {}{more}", claims.len(), names.join(", "));
    // All claims of ten minutes are one series: a rollout claims pod by pod.
    (!claims.is_empty()).then(|| Announcement {
        reason: "Claimed",
        action: "Claim",
        kind: EventKind::Normal,
        about: About::Resource(None),
        rule: "claims".to_owned(),
        note,
    })
}

fn of_fleet(reason: &'static str, kind: EventKind, note: &str) -> Announcement {
    let (about, rule) = (About::Resource(None), reason.to_owned());
    Announcement { reason, action: "Observe", kind, about, rule, note: note.to_owned() }
}
