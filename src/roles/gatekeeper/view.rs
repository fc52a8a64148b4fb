//! What the gatekeeper lets people see: the fleet, the ledger, the arithmetic, the last plan, and each pod's story.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;
use serde_json::{Value, json};

use super::history::{Event, History};
use crate::{
    adapters::sink::{Detail, Hindrance, Observed, endpoints::FileStatus},
    decide::{
        fleet::{PodView, Presence, Traffic},
        gate::{
            Plan,
            budget::Budget,
            explain::{Explanation, Standing},
            ledger::Ledger,
        },
        time::Timestamp,
    },
};

/// What this process does for the fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// It decides.
    Leading,
    /// Another process decides; this one projects what was committed.
    #[default]
    Following,
    /// It should decide, and does not know enough to: everything stays as it is.
    Frozen,
}

/// The floor arithmetic in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Arithmetic {
    /// What it is made of.
    #[serde(flatten)]
    pub budget: Budget,
    /// What comes out.
    pub may_withhold: u32,
    /// Written out.
    pub formula: String,
}

/// One pod.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStory {
    /// Its id.
    pub id: String,
    /// Its identity.
    pub uid: String,
    /// Key, address, and since when it is heard or silent.
    #[serde(flatten)]
    pub detail: Option<Detail>,
    /// Its switch.
    pub traffic: Traffic,
    /// The breaker that withholds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<String>,
    /// When that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub break_at: Option<Timestamp>,
    /// How often it was withheld, this time included.
    pub retry_count: u32,
    /// The gate's word on it; `None`: it serves, and nobody objects.
    pub explanation: Option<Explanation>,
    /// The same for people.
    pub summary: String,
    /// What happened to it, oldest first.
    pub history: Vec<Event>,
}

/// Everything that `/services` and `/explain` show of one fleet.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatekeeperView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What this process does for it.
    pub part: Part,
    /// Why it is frozen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<String>,
    /// Decides and reports only.
    pub dry_run: bool,
    /// Why nothing may be withheld at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// What keeps the decisions from being carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hindrance: Option<Hindrance>,
    /// When this was true.
    pub at: Timestamp,
    /// The floor.
    pub floor: Arithmetic,
    /// Most of the fleet looks bad.
    pub panic: bool,
    /// All pods, by id.
    pub pods: Vec<PodStory>,
    /// What is withheld.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Ledger>,
    /// The newest plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// What a policy or breaker that only rehearses would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Plan>,
    /// The newest plan that did something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_action: Option<Arc<Plan>>,
    /// The endpoints file of this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<FileStatus>,
    /// Verdicts of the last callback run that named nobody.
    pub unknown_verdicts: usize,
}

impl GatekeeperView {
    /// Puts one observation and its plan down.
    pub(super) fn record(&mut self, observed: Observed, plan: Plan, history: &History) {
        let ledger = plan.committed(&observed.ledger).unwrap_or(observed.ledger);
        let explanations: BTreeMap<_, _> = plan.explanations.iter().map(|e| (e.uid.as_str(), e)).collect();
        let story = |pod: &PodView| {
            let mut after = pod.clone();
            ledger.project(&mut after);
            let explanation = explanations.get(pod.uid.as_str()).copied();
            let detail = observed.details.get(&pod.uid);
            PodStory {
                id: pod.name.clone(),
                uid: pod.uid.to_string(),
                traffic: after.traffic,
                breaker: after.strategy,
                break_at: after.break_at,
                retry_count: after.retry_count.unwrap_or(0),
                summary: summary(pod, detail, explanation),
                detail: detail.cloned(),
                explanation: explanation.cloned(),
                history: history.of(&pod.name),
            }
        };
        self.pods = observed.fleet.pods().iter().map(story).collect();
        self.pods.sort_by(|a, b| a.id.cmp(&b.id));
        self.part = Part::Leading;
        self.frozen = None;
        self.at = plan.at;
        self.hold = observed.fleet.hold;
        self.hindrance = observed.hindrance;
        self.floor = Arithmetic {
            budget: plan.budget,
            may_withhold: plan.budget.may_withhold(),
            formula: plan.budget.to_string(),
        };
        self.panic = ledger.panic.is_some();
        self.ledger = Some(ledger);
        if !plan.actions.is_empty() {
            self.last_action = Some(Arc::new(plan.clone()));
        }
        self.plan = Some(plan);
    }

    /// Adds what `plan` has just done to the stories of its pods.
    pub(super) fn tell_history(&mut self, plan: &Plan, history: &History) {
        let acted: BTreeSet<&str> = plan.actions.iter().map(|action| action.name.as_str()).collect();
        for story in self.pods.iter_mut().filter(|story| acted.contains(story.id.as_str())) {
            story.history = history.of(&story.id);
        }
    }

    /// How many pods stand like this after the plan.
    #[must_use]
    pub fn count(&self, standings: &[Standing]) -> usize {
        let stands = |pod: &&PodStory| {
            let standing = pod.explanation.as_ref().map_or(Standing::Serving, |e| e.standing);
            standings.contains(&standing)
        };
        self.pods.iter().filter(stands).count()
    }

    /// How many pods are silent and listed all the same.
    #[must_use]
    pub fn silent_listed(&self) -> usize {
        let silent = |pod: &&PodStory| {
            pod.traffic == Traffic::Yes
                && pod.detail.as_ref().is_some_and(|d| d.presence == Presence::Unknown && d.address.is_some())
        };
        self.pods.iter().filter(silent).count()
    }

    /// The page of one pod, by its id, key or address.
    #[must_use]
    pub fn explain(&self, pod: &str) -> Option<Value> {
        let named = |story: &&PodStory| {
            let detail = story.detail.as_ref();
            story.id == pod
                || detail.and_then(|d| d.key.as_deref()) == Some(pod)
                || detail
                    .and_then(|d| d.address)
                    .is_some_and(|a| a.to_string() == pod || a.ip().to_string() == pod)
        };
        let story = self.pods.iter().find(named)?;
        Some(json!({
            "namespace": self.namespace, "service": self.name, "at": self.at, "part": self.part,
            "dryRun": self.dry_run, "hold": self.hold, "panic": self.panic,
            "pod": story, "floor": self.floor,
        }))
    }
}

fn summary(pod: &PodView, detail: Option<&Detail>, explanation: Option<&Explanation>) -> String {
    let note = detail.and_then(|detail| detail.note);
    match (note, explanation) {
        (Some(note), _) => format!("{}: {note}", pod.name),
        (None, Some(explanation)) => explanation.to_string(),
        (None, None) => format!("{}: serves; nobody objects", pod.name),
    }
}
