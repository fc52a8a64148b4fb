//! The gate's state as `/services` and `/explain` show it: pods, floor, ledger, and the last plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    episodes::Episodes,
    history::{History, HistoryEntry},
};
use crate::{
    adapters::sink::{Hindrance, ListingFindings, Observed, PodDetail, endpoints::FileStatus},
    api::requests::{PersonRequests, RequestVerb},
    decide::{
        fleet::{PodView, Presence, Traffic, Uid},
        gate::{
            Plan,
            action::Verb,
            budget::Budget,
            explain::{Explanation, PodState},
            ledger::Ledger,
        },
        measurements::Measurements,
        time::Timestamp,
        verdict::{Source, Verdicts},
    },
};

/// The gate's mode in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum GateMode {
    /// This process decides.
    Leading,
    /// Another process decides; this one only projects the committed roster.
    #[default]
    Following,
    /// This process leads, but cannot decide: traffic stays as it is.
    Frozen,
}

/// The floor arithmetic in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Arithmetic {
    /// Its operands.
    #[serde(flatten)]
    pub budget: Budget,
    /// Serving pods that may still be withheld.
    pub may_withhold: u32,
    /// The arithmetic in words.
    pub formula: String,
}

/// One pod of the fleet.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSnapshot {
    /// Its name.
    pub id: String,
    /// Its identity.
    pub uid: Uid,
    /// Key, address and presence, where the sink has them.
    #[serde(flatten)]
    pub detail: Option<PodDetail>,
    /// It is of the fleet and ready, and not being deleted.
    pub ready: bool,
    /// The value of its traffic label, or the roster's.
    pub traffic: Traffic,
    /// The breaker that withholds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<String>,
    /// When it was withheld.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub break_at: Option<Timestamp>,
    /// How often it was withheld, this time included.
    pub retry_count: u32,
    /// The gate's explanation; `None`: it serves, and no breaker objects.
    pub explanation: Option<Box<Explanation>>,
    /// One line of text.
    pub summary: String,
    /// Oldest first.
    pub history: Arc<[HistoryEntry]>,
}

/// The newest values of one breaker.
#[derive(Clone, Debug)]
pub struct BreakerReading {
    /// The breaker, or the callback.
    pub breaker: String,
    /// When it was evaluated.
    pub at: Timestamp,
    /// What it measured; empty for one that only names pods.
    pub measurements: Measurements,
}

/// One fleet, as `/services` and `/explain` show it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateSnapshot {
    /// The fleet's namespace.
    pub namespace: String,
    /// The Service's or the resource's name.
    pub name: String,
    /// The gate's mode in this process.
    pub part: GateMode,
    /// The reason, while the mode is `Frozen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<String>,
    /// No pod is changed.
    pub dry_run: bool,
    /// Why nothing may be withheld now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// An obstacle that an operator has to remove.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hindrance: Option<Hindrance>,
    /// The pause that a person asks for: who, until when and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<String>,
    /// The end of a pause that a person asks for.
    #[serde(skip)]
    pub resumed: Option<String>,
    /// PersonRequests of people that do not count, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_requests: Vec<String>,
    /// Where the endpoints do not follow the labels; conditions and Events tell it.
    #[serde(skip)]
    pub listing: ListingFindings,
    /// Wall clock of the newest reconcile.
    pub at: Timestamp,
    /// The floor arithmetic.
    pub floor: Arithmetic,
    /// More of the fleet looks bad than the panic threshold allows.
    pub panic: bool,
    /// All pods, by name.
    pub pods: Vec<PodSnapshot>,
    /// The ledger after the newest plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Ledger>,
    /// The newest plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// The plan if no policy and no breaker were a dry run; `None` when none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Plan>,
    /// The newest plan that did more than claim pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_action: Option<Arc<Plan>>,
    /// The newest values of each breaker, which only the view shows.
    #[serde(skip)]
    pub readings: Vec<BreakerReading>,
    /// When pods were withheld, and when a dry run would have; `/services/NAMESPACE/NAME` has them.
    #[serde(skip)]
    pub episodes: Episodes,
    /// This process's endpoints file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<FileStatus>,
    /// Verdicts of the last callback run for unknown pods.
    pub unknown_verdicts: usize,
}

impl PodSnapshot {
    fn silent_listed(&self) -> bool {
        let silent = |detail: &PodDetail| detail.presence == Presence::Unknown && detail.address.is_some();
        self.traffic == Traffic::Yes && self.detail.as_ref().is_some_and(silent)
    }
}

/// Numbers of ready pods; one that is not ready is in none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodCounts {
    /// All of them, withheld and paused ones too.
    pub managed: usize,
    /// Those at `no`.
    pub breaked: usize,
    /// Those at `pause`.
    pub paused: usize,
    /// Those without a known traffic label, and those that are silent and listed.
    pub unknown: usize,
}

impl GateSnapshot {
    /// What goes on from this snapshot to the next; everything else is recorded anew at each reconcile.
    pub(super) fn next(&self) -> Self {
        Self {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            dry_run: self.dry_run,
            last_action: self.last_action.clone(),
            episodes: self.episodes.clone(),
            ..Self::default()
        }
    }

    /// Records one observation and its plan.
    pub(super) fn record(&mut self, observed: Observed, plan: Plan, history: &History) {
        let entered: BTreeSet<Uid> = observed.ledger.entries.keys().cloned().collect();
        let ledger = plan.committed(&observed.ledger).unwrap_or(observed.ledger);
        let explanations: BTreeMap<_, _> = plan.explanations.iter().map(|e| (e.uid.as_str(), e)).collect();
        let snapshot = |pod: &PodView| {
            let mut after = pod.clone();
            ledger.project(&mut after);
            if !entered.contains(&pod.uid) && !ledger.entries.contains_key(&pod.uid) {
                after.traffic = pod.traffic; // perhaps another writer's
            }
            let explanation = explanations.get(pod.uid.as_str()).copied();
            let detail = observed.details.get(&pod.uid);
            PodSnapshot {
                id: pod.name.clone(),
                uid: pod.uid.clone(),
                ready: pod.selected && pod.ready && !pod.terminating,
                traffic: after.traffic,
                breaker: after.strategy,
                break_at: after.break_at,
                retry_count: after.retry_count.unwrap_or(0),
                summary: summary(pod, detail, explanation),
                detail: detail.cloned(),
                explanation: explanation.cloned().map(Box::new),
                history: history.of(&pod.name),
            }
        };
        self.pods = observed.fleet.pods().iter().map(snapshot).collect();
        self.pods.sort_by(|a, b| a.id.cmp(&b.id));
        self.part = GateMode::Leading;
        self.frozen = None;
        self.at = plan.at;
        self.hold = observed.fleet.hold;
        let PersonRequests { refused, .. } = &observed.requests;
        self.refused_requests.clone_from(refused);
        let asked = |verb| {
            let pause = observed.requests.pause(plan.at).filter(|request| request.verb == verb)?;
            Some(observed.requests.describe(pause))
        };
        (self.pause, self.resumed) = (asked(RequestVerb::Pause), asked(RequestVerb::Resume));
        self.hindrance = observed.hindrance;
        self.listing = observed.listing;
        self.floor = Arithmetic {
            budget: plan.budget,
            may_withhold: plan.budget.may_withhold(),
            formula: plan.budget.to_string(),
        };
        self.panic = ledger.panic.is_some();
        self.ledger = Some(ledger);
        if plan.actions.iter().any(|action| action.verb != Verb::Claim) {
            self.last_action = Some(Arc::new(plan.clone()));
        }
        self.plan = Some(plan);
    }

    /// Records what the breakers measured.
    pub(super) fn record_readings(&mut self, verdicts: &Verdicts) {
        let reading = |source: &Source| BreakerReading {
            breaker: source.name.clone(),
            at: source.at,
            measurements: source.measurements.clone(),
        };
        self.readings = verdicts.sources.iter().map(reading).collect();
    }

    /// Refreshes the history of the pods that `plan` acted on.
    pub(super) fn refresh_history(&mut self, plan: &Plan, history: &History) {
        let acted: BTreeSet<&str> = plan.actions.iter().map(|action| action.name.as_str()).collect();
        for pod in self.pods.iter_mut().filter(|pod| acted.contains(pod.id.as_str())) {
            pod.history = history.of(&pod.id);
        }
    }

    /// Pods that serve after the plan.
    pub fn serving(&self) -> usize {
        let serves = |pod: &&PodSnapshot| {
            let standing = pod.explanation.as_ref().map_or(PodState::Serving, |e| e.standing);
            pod.ready && standing == PodState::Serving
        };
        self.pods.iter().filter(serves).count()
    }

    /// The ready pods after the plan by their traffic, as the original counts them.
    pub fn counts(&self) -> PodCounts {
        let mut counts = PodCounts::default();
        for pod in self.pods.iter().filter(|pod| pod.ready) {
            counts.managed += 1;
            match pod.traffic {
                Traffic::Yes if pod.silent_listed() => counts.unknown += 1,
                Traffic::Yes => {}
                Traffic::No => counts.breaked += 1,
                Traffic::Pause => counts.paused += 1,
                Traffic::Unlabelled | Traffic::Other => counts.unknown += 1,
            }
        }
        counts
    }

    /// Pods that a dry run would withhold now, or withholds on its own ledger, beyond those that are withheld.
    pub fn would_withhold(&self) -> usize {
        let plan = self.rehearsal.iter().flat_map(|plan| &plan.explanations);
        let withheld = plan
            .filter(|it| matches!(it.standing, PodState::Withheld | PodState::Leaving | PodState::Paused));
        let really: BTreeSet<&str> = self
            .ledger
            .iter()
            .filter(|_| !self.dry_run)
            .flat_map(|ledger| ledger.entries.keys().map(Uid::as_str))
            .collect();
        withheld.filter(|it| !really.contains(it.uid.as_str())).count()
    }

    /// Pods that are silent and still listed.
    pub fn silent_listed(&self) -> usize {
        self.pods.iter().filter(|pod| pod.silent_listed()).count()
    }

    /// The `/explain` page of one pod, by its name, key or address.
    pub fn explain(&self, pod: &str) -> Option<Value> {
        let named = |candidate: &&PodSnapshot| {
            let detail = candidate.detail.as_ref();
            candidate.id == pod
                || detail.and_then(|d| d.key.as_deref()) == Some(pod)
                || detail
                    .and_then(|d| d.address)
                    .is_some_and(|a| a.to_string() == pod || a.ip().to_string() == pod)
        };
        let found = self.pods.iter().find(named)?;
        Some(json!({
            "namespace": self.namespace, "service": self.name, "at": self.at, "part": self.part,
            "dryRun": self.dry_run, "hold": self.hold, "panic": self.panic,
            "pod": found, "floor": self.floor,
        }))
    }
}

fn summary(pod: &PodView, detail: Option<&PodDetail>, explanation: Option<&Explanation>) -> String {
    let note = detail.and_then(|detail| detail.note.as_deref());
    match (note, explanation) {
        (Some(note), _) => format!("{}: {note}", pod.name),
        (None, Some(explanation)) => explanation.to_string(),
        (None, None) => format!("{}: serves; nobody objects", pod.name),
    }
}
