//! The fleet of the past: which pods there were, whether they were ready, and how many were wanted.

use std::{collections::BTreeMap, sync::Arc};

use crate::decide::{
    detect::{LifeStatus, Observation},
    fleet::{Fleet, PodView, Traffic, Uid, count},
    gate::ledger::Ledger,
    time::Timestamp,
};

/// A pod as the history knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoricPod {
    /// Identity: Kubernetes' UID where it is known, else the name.
    pub uid: Uid,
    /// Its name, as in the queries' answers.
    pub name: String,
    /// When it was created, if that is known.
    pub created: Option<Timestamp>,
    /// Whether another pod may have had its name before: a `StatefulSet`'s, or one without an owner.
    pub reusable_name: bool,
    /// Whether a controller would replace it.
    pub has_controller: bool,
    /// Its node, where the last serving pod of a node is kept.
    pub node: Option<Arc<str>>,
    /// Whether it was Ready when it appeared.
    pub ready: bool,
}

/// A change of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetEvent {
    /// When.
    pub at: Timestamp,
    /// What.
    pub change: FleetChange,
}

/// What may change in a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetChange {
    /// A pod that was not there before, or is again.
    Appears(HistoricPod),
    /// It became Ready, or ceased to be.
    Ready(Uid, bool),
    /// It is deleted.
    Leaves(Uid),
    /// How many pods there should be; `None`: as many as there are.
    Desired(Option<u32>),
}

/// The fleet at the replay's present moment, as the gate and the detectors see it.
#[derive(Clone, Debug)]
pub(super) struct ReplayFleet {
    pods: BTreeMap<Uid, HistoricPod>,
    desired: Option<u32>,
    view: Fleet,
    observations: Vec<Observation>,
    /// The time since the creation of some pod matters.
    ages: bool,
}

impl Default for ReplayFleet {
    fn default() -> Self {
        Self {
            pods: BTreeMap::new(),
            desired: None,
            view: Fleet::new(0, Vec::new()),
            observations: Vec::new(),
            ages: false,
        }
    }
}

impl ReplayFleet {
    /// Notes a change, which takes effect with [`rebuild`](Self::rebuild).
    pub(super) fn apply(&mut self, event: &FleetEvent) {
        match &event.change {
            FleetChange::Appears(pod) => {
                // A text of its own: replays on several threads would count its owners in the same place of memory.
                let uid = Uid::from(pod.uid.as_str());
                self.pods.insert(uid.clone(), HistoricPod { uid, ..pod.clone() });
            }
            FleetChange::Ready(uid, ready) => {
                if let Some(pod) = self.pods.get_mut(uid) {
                    pod.ready = *ready;
                }
            }
            FleetChange::Leaves(uid) => {
                self.pods.remove(uid);
            }
            FleetChange::Desired(desired) => self.desired = *desired,
        }
    }

    /// Makes the inputs of gate and detectors anew after changes.
    pub(super) fn rebuild(&mut self, ledger: &Ledger) {
        let pods = self.pods.values();
        let view = |pod: &HistoricPod| PodView {
            ready: pod.ready,
            has_controller: pod.has_controller,
            place: pod.node.clone(),
            ..PodView::serving(pod.uid.clone(), pod.name.clone(), ledger.fence())
        };
        let desired = self.desired.unwrap_or_else(|| count(pods.clone()));
        self.view = Fleet::new(desired, pods.clone().map(view).collect());
        self.view.can_kill = true;
        let observation = |pod: &HistoricPod| Observation {
            uid: pod.uid.clone(),
            id: pod.name.clone(),
            age: std::time::Duration::ZERO,
            status: LifeStatus::Live,
            heard: false,
            withheld: false,
            name_age: None,
            payload: Arc::default(),
        };
        self.ages = pods.clone().any(|pod| pod.reusable_name && pod.created.is_some());
        self.observations = pods.map(observation).collect();
        self.project(ledger);
    }

    /// Sets every pod's switch by the ledger.
    pub(super) fn project(&mut self, ledger: &Ledger) {
        let view = std::mem::replace(&mut self.view, Fleet::new(0, Vec::new()));
        self.view = view.map(|pod| ledger.project(pod));
        // Both are in order of the UID.
        for (observation, pod) in self.observations.iter_mut().zip(self.view.pods()) {
            observation.withheld = pod.traffic != Traffic::Yes;
        }
    }

    /// The gate's input.
    pub(super) fn view(&self) -> &Fleet {
        &self.view
    }

    /// Sets the pods' ages.
    pub(super) fn age(&mut self, now: Timestamp) {
        if !self.ages {
            return;
        }
        for (observation, pod) in self.observations.iter_mut().zip(self.pods.values()) {
            let created = pod.created.filter(|_| pod.reusable_name);
            observation.name_age = created.map(|created| now.since(created));
        }
    }

    /// The detectors' input.
    pub(super) fn observations(&self) -> &[Observation] {
        &self.observations
    }
}
