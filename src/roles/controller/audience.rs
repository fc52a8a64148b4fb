//! What a warden does, told: as the resource's status, and as Events.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::watch;

use super::{
    Deps,
    announce::Announcer,
    conditions::{self, Facts, LedgerState, ServiceState},
    worker::Standing,
};
use crate::{
    adapters::{
        kubernetes::events::ObjectRef,
        sink::{
            Hindrance,
            labels::{LINGERS, LabelSettings},
        },
    },
    api::{API_VERSION, KIND},
    decide::{
        gate::{
            Plan,
            action::{Action, Verb},
            ledger::Outcome,
        },
        policy::Policy,
        time::Timestamp,
    },
    roles::gatekeeper::{view::GatekeeperView, warden::Audience},
};

/// Pods without the label were seen this long ago: new ones still come without it.
const UNLABELLED_FOR: Duration = Duration::from_secs(600);

/// Tells of one resource.
pub(super) struct FleetAudience {
    deps: Arc<Deps>,
    settings: LabelSettings,
    policy: watch::Receiver<Arc<Policy>>,
    standing: Arc<Mutex<Standing>>,
    started: Timestamp,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    announcer: Option<Announcer>,
    unlabelled: Option<Timestamp>,
}

impl FleetAudience {
    pub(super) fn new(
        deps: &Arc<Deps>,
        settings: LabelSettings,
        policy: watch::Receiver<Arc<Policy>>,
        standing: Arc<Mutex<Standing>>,
    ) -> Self {
        let started = deps.process.clock.wall();
        Self { deps: Arc::clone(deps), settings, policy, standing, started, told: Mutex::default() }
    }

    fn service(&self, policy: &Policy) -> (ServiceState, BTreeMap<String, String>) {
        let Some(service) = self.deps.cluster.service(&self.settings.namespace, &policy.service) else {
            return (ServiceState::Missing, BTreeMap::new());
        };
        let refused = |why: &str| (ServiceState::Refused { why: why.to_owned() }, BTreeMap::new());
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

    /// New pods come without the label.
    fn unlabelled(&self, view: &GatekeeperView) -> bool {
        let claims = view.plan.iter().flat_map(|plan| &plan.actions);
        let seen =
            claims.filter(|action| action.verb == Verb::Claim).any(|action| action.write.traffic.is_some());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if seen {
            told.unlabelled = Some(view.at);
        }
        told.unlabelled.is_some_and(|at| view.at.since(at) < UNLABELLED_FOR)
    }
}

/// Withheld pods that stay in ready endpoints, by name.
fn lingering(view: &GatekeeperView) -> Option<String> {
    let lingers = view.pods.iter().filter(|pod| pod.detail.as_ref().is_some_and(|d| d.note == Some(LINGERS)));
    let names: Vec<&str> = lingers.map(|pod| pod.id.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn ledger_state(view: &GatekeeperView) -> LedgerState {
    let full = view.plan.iter().flat_map(|plan| &plan.alarms).any(|alarm| alarm.reason == "ledger_full");
    match &view.hindrance {
        Some(Hindrance::LedgerNotStored) => LedgerState::NotStored,
        Some(Hindrance::LedgerUnreadable(why)) => LedgerState::Unreadable(why.clone()),
        _ if full => LedgerState::Full,
        _ => LedgerState::Stored,
    }
}

/// The action is nobody's who acts: a rehearsal goes through everything, also through what is carried out.
fn only_rehearses(policy: &Policy, action: &Action) -> bool {
    policy.dry_run || policy.breaker(&action.breaker).is_some_and(|breaker| breaker.dry_run)
}

impl Audience for FleetAudience {
    fn report(&self, view: &GatekeeperView) -> Value {
        let found = self.deps.cluster.resource(&self.settings.namespace, &self.settings.name);
        let Some(resource) = found.filter(|found| *found.uid == *self.settings.uid) else {
            return Value::Null;
        };
        let policy = self.policy.borrow().clone();
        let (service, mut selector) = self.service(&policy);
        let previous = resource.object.get("status");
        if service == ServiceState::Missing {
            // Whom it selected last: that is how its pods are found until it comes back.
            let last = previous.and_then(|status| status.get("selector")).cloned();
            selector = last.and_then(|last| serde_json::from_value(last).ok()).unwrap_or_default();
        }
        let rbac = match &view.hindrance {
            Some(Hindrance::Forbidden(what)) => Some(what.clone()),
            _ => None,
        };
        let template_unlabelled = self.unlabelled(view);
        let (problem, overlap, troubles) = {
            let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
            (standing.problem.clone(), standing.overlap.clone(), standing.all_troubles())
        };
        let status = conditions::status(&Facts {
            service_name: &policy.service,
            generation: resource.generation,
            previous,
            now: view.at,
            started: self.started,
            problem,
            service,
            view: Some(view),
            dry_run: policy.dry_run || self.deps.dry_run,
            paused: policy.paused,
            panic_threshold: policy.panic_threshold,
            overlap,
            ledger: ledger_state(view),
            template_unlabelled,
            troubles: &troubles,
            unlanded: lingering(view),
            rbac,
            selector: &selector,
        });
        let news = previous.is_none_or(|old| conditions::changed(old, &status));
        if news { status } else { Value::Null }
    }

    fn carried_out(
        &self,
        _before: &GatekeeperView,
        after: &GatekeeperView,
        plan: &Plan,
        outcomes: &[Outcome],
    ) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let announcer = told.announcer.get_or_insert_with(|| {
            let found = self.deps.cluster.resource(&self.settings.namespace, &self.settings.name);
            let status = found.and_then(|resource| resource.object.get("status").cloned());
            Announcer::resume(&status.unwrap_or_default())
        });
        let mut news = Vec::new();
        if self.deps.dry_run {
            news.extend(announcer.rehearsed(Some(plan), |_| true));
        } else {
            news.extend(announcer.acted(plan, outcomes));
            let policy = self.policy.borrow().clone();
            news.extend(
                announcer.rehearsed(after.rehearsal.as_ref(), |action| only_rehearses(&policy, action)),
            );
        }
        news.extend(announcer.edges(plan, lingering(after).as_deref()));
        drop(told);
        let object = self.object();
        for announcement in news {
            self.deps.events.record(announcement.event(&object));
        }
    }
}
