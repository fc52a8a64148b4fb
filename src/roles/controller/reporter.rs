//! Publishes the gate's decisions as the resource's status and as Events.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    conditions::{self, Facts, ServiceState},
    deps::Deps,
    event_rules::EventRules,
    health::ResourceHealth,
    pod_notifier::PodNotifier,
};
use crate::{
    adapters::{
        kubernetes::events::ObjectRef,
        sink::{Hindrance, labels::LabelSettings},
    },
    api::{API_VERSION, KIND},
    decide::{
        gate::{
            Plan,
            action::{Action, Verb},
            ledger::ActionOutcome,
        },
        policy::Policy,
        time::Timestamp,
    },
    roles::gate::{reporter::Reporter, snapshot::GateSnapshot},
};

/// How long `TemplateUnlabelled` stays after the last pod that came without the traffic label.
const UNLABELLED_FOR: Duration = Duration::from_secs(600);

/// Status and Events of one resource.
pub(super) struct FleetReporter {
    deps: Arc<Deps>,
    settings: LabelSettings,
    policy: watch::Receiver<Arc<Policy>>,
    health: Arc<Mutex<ResourceHealth>>,
    started: Timestamp,
    reported: Mutex<ReporterState>,
    notifier: PodNotifier,
}

#[derive(Default)]
struct ReporterState {
    rules: Option<EventRules>,
    /// The last reconcile that had to label a pod.
    unlabelled: Option<Timestamp>,
}

impl FleetReporter {
    pub(super) fn new(
        deps: &Arc<Deps>,
        settings: LabelSettings,
        policy: watch::Receiver<Arc<Policy>>,
        health: Arc<Mutex<ResourceHealth>>,
        notifier: PodNotifier,
    ) -> Self {
        let (deps, started) = (Arc::clone(deps), deps.process.clock.wall());
        Self { deps, settings, policy, health, started, reported: Mutex::default(), notifier }
    }

    fn service(&self, policy: &Policy) -> (ServiceState, BTreeMap<String, String>) {
        let Some(service) = self.deps.cluster.service(&self.settings.namespace, &policy.service) else {
            return (ServiceState::Missing, BTreeMap::new());
        };
        let refused = |why: &str| (ServiceState::Refused(why.to_owned()), BTreeMap::new());
        if service.external_name {
            return refused("it is of type ExternalName, which has no pods");
        }
        let Some(selector) = &service.selector else {
            return refused("it has no selector, so it selects no pods");
        };
        let fleet = selector.without_traffic_key();
        if fleet.is_empty() {
            return refused(
                "its selector has nothing but the traffic key, so it would take every pod of the namespace",
            );
        }
        let state = match selector.traffic_word() {
            Some("yes") => ServiceState::Gated,
            Some(_) => {
                return refused(
                    "its selector asks for a kubervisor/traffic other than \"yes\": write yes, in quotes",
                );
            }
            None => ServiceState::Ungated,
        };
        (state, fleet.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    fn object(&self) -> ObjectRef {
        ObjectRef {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            namespace: self.settings.namespace.clone(),
            name: self.settings.name.clone(),
            uid: self.settings.uid.clone(),
        }
    }

    /// New pods come without the traffic label.
    fn unlabelled(&self, snapshot: &GateSnapshot) -> bool {
        let claims = snapshot.plan.iter().flat_map(|plan| &plan.actions);
        let seen =
            claims.filter(|action| action.verb == Verb::Claim).any(|action| action.write.traffic.is_some());
        let mut reported = self.reported.lock();
        if seen {
            reported.unlabelled = Some(snapshot.at);
        }
        reported.unlabelled.is_some_and(|at| snapshot.at.since(at) < UNLABELLED_FOR)
    }
}

/// The action belongs to a dry run: a rehearsal's plan also holds the actions that are carried out.
fn is_dry_run(policy: &Policy, action: &Action) -> bool {
    policy.dry_run || policy.breaker(&action.breaker).is_some_and(|breaker| breaker.dry_run)
}

impl Reporter for FleetReporter {
    fn report(&self, snapshot: &GateSnapshot) -> Value {
        let found = self.deps.cluster.resource(&self.settings.namespace, &self.settings.name);
        let Some(resource) = found.filter(|found| *found.uid == *self.settings.uid) else {
            return Value::Null;
        };
        let policy = self.policy.borrow().clone();
        let (service, mut selector) = self.service(&policy);
        let previous = resource.object.get("status");
        if service == ServiceState::Missing {
            // The last known selector finds the pods until the Service is back.
            let last = previous.and_then(|status| status.get("selector")).cloned();
            selector = last.and_then(|last| serde_json::from_value(last).ok()).unwrap_or_default();
        }
        let rbac = match &snapshot.hindrance {
            Some(Hindrance::Forbidden(what)) => Some(what.clone()),
            _ => None,
        };
        let template_unlabelled = self.unlabelled(snapshot);
        let (problem, overlap, failures) = {
            let health = self.health.lock();
            (health.problem.clone(), health.overlap.clone(), health.all_failures())
        };
        let status = conditions::status(&Facts {
            service_name: &policy.service,
            generation: resource.generation,
            previous,
            now: snapshot.at,
            started: self.started,
            problem,
            service,
            snapshot: Some(snapshot),
            dry_run: policy.dry_run || self.deps.dry_run,
            paused: policy.paused,
            panic_threshold: policy.panic_threshold,
            overlap,
            ledger: snapshot.hindrance.as_ref(),
            template_unlabelled,
            failures: &failures,
            listing: &snapshot.listing,
            rbac,
            selector: &selector,
            notified: &self.notifier.results(),
        });
        if previous.is_none_or(|old| conditions::changed(old, &status)) { status } else { Value::Null }
    }

    fn plan_executed(&self, snapshot: &GateSnapshot, plan: &Plan, outcomes: &[ActionOutcome]) {
        let mut reported = self.reported.lock();
        let rules = reported.rules.get_or_insert_with(|| {
            let found = self.deps.cluster.resource(&self.settings.namespace, &self.settings.name);
            let status =
                found.and_then(|resource| resource.object.get("status").cloned()).unwrap_or_default();
            EventRules::resume(self.object(), conditions::reported(&status))
        });
        let mut events = Vec::new();
        if self.deps.dry_run {
            events.extend(rules.rehearsed(Some(plan), |_| true));
        } else {
            events.extend(rules.acted(plan, outcomes));
            let policy = self.policy.borrow().clone();
            self.notifier.tell(snapshot, &policy, plan, outcomes);
            events.extend(rules.rehearsed(snapshot.rehearsal.as_ref(), |action| is_dry_run(&policy, action)));
        }
        events.extend(rules.edges(plan, &snapshot.listing));
        events.extend(rules.pause(snapshot.pause.as_deref(), snapshot.resumed.as_deref()));
        drop(reported);
        for event in events {
            self.deps.events.record(event);
        }
    }
}
