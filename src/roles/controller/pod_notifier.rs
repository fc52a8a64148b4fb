//! Tells pods about decisions that have landed, where the manifest asks for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    adapters::notify::{Notification, Notifier},
    api::Manifest,
    clock::Clock,
    decide::{
        gate::{
            PERSON, Plan,
            action::{Action, Verb},
            activator,
            ledger::ActionOutcome,
        },
        policy::Policy,
    },
    roles::gate::snapshot::GateSnapshot,
};

/// The notifications of one resource, and how the last one of each pod ended.
pub(super) struct PodNotifier {
    pub(super) notifier: Notifier,
    pub(super) manifest: watch::Receiver<Option<Arc<Manifest>>>,
    /// Requests a reconcile, which publishes the result.
    pub(super) changes: watch::Sender<u64>,
    pub(super) clock: Clock,
    pub(super) results: Arc<Mutex<BTreeMap<String, String>>>,
}

impl PodNotifier {
    /// By the pod's UID.
    pub(super) fn results(&self) -> BTreeMap<String, String> {
        self.results.lock().clone()
    }

    /// Sends the notifications of the actions that landed, in the background.
    pub(super) fn tell(
        &self,
        snapshot: &GateSnapshot,
        policy: &Policy,
        plan: &Plan,
        outcomes: &[ActionOutcome],
    ) {
        let Some(manifest) = self.manifest.borrow().clone() else { return };
        let landed = plan.actions.iter().zip(outcomes);
        for (action, _) in landed.filter(|(_, outcome)| **outcome == ActionOutcome::Landed) {
            let Some(traffic) = traffic(action.verb) else { continue };
            let Some(rule) = manifest.notify.of(&action.breaker) else { continue };
            let ledger = plan.next.as_ref().or(snapshot.ledger.as_ref());
            let notification = Notification {
                namespace: snapshot.namespace.clone(),
                pod: action.name.clone(),
                uid: action.uid.to_string(),
                traffic,
                reason: format!("{}: {}", action.breaker, action.reason),
                until: until_of(policy, plan, action),
                id: ledger.map(|ledger| ledger.fence().to_string()).unwrap_or_default(),
                serial: plan.at.unix_millis(),
            };
            let (uid, results) = (action.uid.to_string(), Arc::clone(&self.results));
            let (changes, clock) = (self.changes.clone(), self.clock);
            self.notifier.notify(notification, rule.clone(), move |ended| {
                let told = match ended {
                    Ok(()) => format!("traffic={traffic} at {}", clock.wall()),
                    Err(error) => format!("not told traffic={traffic}: {error}"),
                };
                results.lock().insert(uid, told);
                changes.send_modify(|count| *count += 1);
            });
        }
        self.forget(snapshot);
    }

    /// Drops the results of pods that have left the fleet.
    fn forget(&self, snapshot: &GateSnapshot) {
        let mut results = self.results.lock();
        if !results.is_empty() {
            let known: BTreeSet<&str> = snapshot.pods.iter().map(|pod| pod.uid.as_str()).collect();
            results.retain(|uid, _| known.contains(uid.as_str()));
        }
    }
}

/// The pod's traffic after the action; `None`: as before.
fn traffic(verb: Verb) -> Option<&'static str> {
    match verb {
        Verb::Withhold => Some("no"),
        // Also of a pod that a person gave its traffic back, which may have been told of its withdrawal.
        Verb::Admit | Verb::Cancel => Some("yes"),
        Verb::Pause => Some("pause"),
        Verb::Claim | Verb::Kill | Verb::Release | Verb::Forget => None,
    }
}

/// When a withheld pod comes back at the earliest.
fn until_of(policy: &Policy, plan: &Plan, action: &Action) -> Option<String> {
    let withheld = action.verb == Verb::Withhold && action.breaker != PERSON;
    let entry = plan.next.as_ref()?.entries.get(&action.uid).filter(|_| withheld)?;
    Some(activator::due(entry, policy.activator(&entry.breaker)).to_string())
}
