//! The fleet that the gate plans on, from the cache: its pods, how many there should be, and what forbids withholding.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use super::{
    LabelSettings, LabelSink,
    listing::{LingeringPod, not_leaving},
};
use crate::{
    adapters::{
        kubernetes::{
            cluster::{Cluster, OwnerKey, ReadyEndpoints},
            objects::{Phase, PodRecord, Selector},
        },
        sink::{Hindrance, ListingFindings, Observed, PodDetail},
    },
    api::{keys, requests::PersonRequests},
    decide::{
        fleet::{Fleet, PodView, Presence, Traffic, Uid},
        gate::{action::Verb, ledger::Ledger},
        policy::Policy,
        time::Timestamp,
    },
};

const LABEL_IS_TRUE: &str = "its label kubervisor/traffic is \"true\": write \"yes\" in quotes";

/// What the Service selects without the traffic key; while it does not exist, what it selected last. `None`: no pod.
fn selector(
    cluster: &Cluster,
    settings: &LabelSettings,
    policy: &Policy,
    status: Option<&Value>,
) -> Option<Selector> {
    match cluster.service(&settings.namespace, &policy.service) {
        Some(service) if service.external_name => None,
        Some(service) => {
            service.selector.as_ref().map(Selector::without_traffic_key).filter(|left| !left.is_empty())
        }
        None => {
            let last = status?.get("selector")?.as_object()?;
            let pairs = last.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
            Some(Selector::new(pairs)).filter(|selector| !selector.is_empty())
        }
    }
}

/// As `selector`, with the status that is cached.
pub fn fleet_selector(cluster: &Cluster, settings: &LabelSettings, policy: &Policy) -> Option<Selector> {
    let resource = cluster.resource(&settings.namespace, &settings.name);
    let status = resource.as_ref().and_then(|resource| resource.object.get("status"));
    selector(cluster, settings, policy, status)
}

/// The cached pods of the fleet, without those that are finished or terminating.
pub fn fleet_of(cluster: &Cluster, settings: &LabelSettings, policy: &Policy) -> Vec<Arc<PodRecord>> {
    let selector = fleet_selector(cluster, settings, policy);
    let pods = selector.map(|selector| cluster.pods(&settings.namespace, &selector)).unwrap_or_default();
    pods.into_iter().filter(|pod| !pod.finished() && !pod.terminating).collect()
}

/// What the cache tells about a fleet.
struct ReadFleet {
    fleet: Fleet,
    /// What keeps it from being gated.
    switched: Option<Hindrance>,
    /// The owners of its pods.
    owners: Vec<OwnerKey>,
    /// What the Service selects, if it is there.
    selector: Option<Selector>,
}

impl LabelSink {
    /// The fleet in the cache. `endpoints`: quorum LISTs have just refreshed it, and these are the Service's endpoints.
    pub(super) fn read_fleet(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        mut ledger: Ledger,
        endpoints: Option<ReadyEndpoints>,
    ) -> Observed {
        self.mark_landed(&mut ledger);
        let hindrance = self.hindrance();
        let hold = hindrance.as_ref().filter(|_| !self.trial_due()).map(ToString::to_string);
        let hold = hold.or_else(|| self.cluster.suspect(&self.settings.namespace));
        let ReadFleet { mut fleet, switched, owners, selector } = self.fleet(policy, &ledger, hold);
        (self.owners, self.fleet_selector) = (owners, selector);
        fleet.absence_proven = endpoints.is_some();
        fleet = self.join_listing(now, policy, fleet, endpoints);
        let lingering = self.lingering(now, policy, &ledger);
        let trial = self.forbidden_right.until_trial().filter(|left| !left.is_zero()).map(|left| now + left);
        let refused = self.refusals.until_next().map(|left| now + left);
        let requests = self.requests(now);
        let pause_ends = requests.pause(now).map(|request| request.until);
        let due = [trial, refused, pause_ends].into_iter().flatten();
        let look_again = self.listing.look_again(now).into_iter().chain(due).min();
        let details = self.details(now, &fleet, &lingering);
        let listing = ListingFindings {
            not_listed: self.not_listed(now, policy),
            not_leaving: not_leaving(&lingering),
        };
        // A refused eviction holds nothing else up.
        let hindrance =
            hindrance.or(switched).or_else(|| self.forbidden_kill.right().map(Hindrance::Forbidden));
        Observed { fleet, ledger, details, look_again, stand_aside: None, hindrance, listing, requests }
    }

    /// Those in the resource's annotation.
    fn requests(&self, now: Timestamp) -> PersonRequests {
        let LabelSettings { namespace, name, uid, requests_checked, .. } = &self.settings;
        let resource = self.cluster.resource(namespace, name).filter(|found| *found.uid == **uid);
        let text = resource.as_ref().and_then(|found| {
            found.object.get("metadata")?.get("annotations")?.get(keys::REQUESTS)?.as_str()
        });
        PersonRequests::parse(text.unwrap_or_default(), now, *requests_checked)
    }

    fn fleet(&self, policy: &Policy, ledger: &Ledger, hold: Option<String>) -> ReadFleet {
        let Self { cluster, settings: LabelSettings { namespace, name, .. }, .. } = self;
        let service = cluster.service(namespace, &policy.service);
        let selector = self.service_selector(policy);
        let mut members = selector.as_ref().map(|by| cluster.pods(namespace, by)).unwrap_or_default();
        members.retain(|pod| !pod.finished());
        let desired = cluster.desired(namespace, &members, selector.as_ref());
        let leaving = self.mode.borrow().leaving;
        if leaving {
            members = cluster.pods_named(namespace, name);
            members.retain(|pod| !pod.finished());
        }
        let local = service.as_ref().is_some_and(|service| service.internal_local);
        let keeps = policy.keep_one_per_node.unwrap_or(local);
        let view = |pod: &Arc<PodRecord>| {
            let view = view(pod, name);
            let claimed = view.claimed && view.fence.is_some_and(|fence| fence.epoch == ledger.epoch);
            let refusal = self.refusals.of(&pod.uid);
            let refusal = refusal.filter(|refusal| refusal.verb != Verb::Claim || !claimed);
            PodView { place: place(pod, keeps), refusal, set_by: self.managers.of(&pod.uid), ..view }
        };
        let mut pods: Vec<PodView> = members.iter().map(view).collect();
        // Pods with an entry that the Service does not select (any more): not serving, but to be given traffic back.
        let known: BTreeSet<&Uid> = members.iter().map(|pod| &pod.uid).collect();
        // And those that we withheld, which no ledger knows: a LIST without a pod says that it is gone, or that it has left.
        let entered = ledger.entries.keys().filter_map(|uid| cluster.pod(uid));
        let marked = cluster
            .pods_named(namespace, name)
            .into_iter()
            .filter(|pod| pod.break_at.is_some() && matches!(pod.traffic(), Traffic::No | Traffic::Pause));
        let unselected = entered.chain(marked).filter(|pod| !known.contains(&pod.uid) && !pod.finished());
        let selected = service.is_none();
        pods.extend(unselected.map(|pod| PodView { ready: false, selected, ..view(&pod) }));
        let mut fleet = Fleet::new(desired.count, pods);
        let key = service.as_ref().and_then(|service| service.selector.as_ref());
        let gated = key.is_some_and(|selector| selector.traffic_word() == Some("yes"));
        // While the Service does not exist, what is withheld stays withheld.
        fleet.gated = (gated && selector.is_some()) || service.is_none();
        fleet.leaving = leaving;
        fleet.can_kill = true;
        let missing = service.is_none().then(|| format!("the Service {} is not there", policy.service));
        let unreadable = desired.unreadable.map(Hindrance::DesiredUnknown);
        let switched = desired.switched.map(Hindrance::SwitchInSelector).or(unreadable);
        fleet.hold = hold.or(missing).or(switched.as_ref().map(ToString::to_string)).or(desired.unknown);
        ReadFleet { fleet, switched, owners: desired.owners, selector: service.and(selector) }
    }

    /// The notes on pods, with their details.
    fn details(&self, now: Timestamp, fleet: &Fleet, lingering: &[LingeringPod]) -> BTreeMap<Uid, PodDetail> {
        let is_true = |pod: &PodView| {
            self.cluster.pod(&pod.uid).is_some_and(|pod| pod.labels.get(keys::TRAFFIC) == Some("true"))
        };
        let detail = |pod: &PodView| {
            let lingers = lingering.iter().find(|lingering| lingering.uid == pod.uid);
            let note = match lingers {
                Some(lingering) => lingering.note(),
                None if pod.traffic == Traffic::Other && is_true(pod) => LABEL_IS_TRUE.to_owned(),
                None => return None,
            };
            let (since, note) = (pod.break_at.unwrap_or(now), Some(note));
            let detail = PodDetail { key: None, address: None, presence: Presence::Present, since, note };
            Some((pod.uid.clone(), detail))
        };
        fleet.pods().iter().filter_map(detail).collect()
    }

    /// As [`fleet_selector`], with the status as last read.
    pub(super) fn service_selector(&self, policy: &Policy) -> Option<Selector> {
        selector(&self.cluster, &self.settings, policy, self.ledger_store.status())
    }
}

/// One pod, as the gate plans on it.
fn view(pod: &PodRecord, resource: &str) -> PodView {
    PodView {
        uid: pod.uid.clone(),
        name: pod.name.to_string(),
        selected: true,
        ready: pod.ready && pod.phase == Phase::Running,
        terminating: pod.terminating,
        presence: Presence::Present,
        traffic: pod.traffic(),
        fence: pod.fence_text.as_deref().and_then(|text| text.parse().ok()),
        claimed: pod.labels.get(keys::NAME) == Some(resource),
        has_controller: pod.controller.is_some(),
        strategy: pod.labels.get(keys::STRATEGY).map(str::to_owned),
        break_at: pod.break_at.as_deref().and_then(time),
        retry_count: pod.retry_count.as_deref().and_then(|text| text.parse().ok()),
        admitted_at: pod.admitted_at.as_deref().and_then(time),
        place: None,
        set_by: None,
        unlisted_since: None,
        refusal: None,
    }
}

/// Its node, if the last pod of a node is kept.
fn place(pod: &PodRecord, keeps: bool) -> Option<Arc<str>> {
    (keeps && !pod.node.is_empty()).then(|| Arc::from(&*pod.node))
}

/// The time in an annotation; `None` for other text.
fn time(text: &str) -> Option<Timestamp> {
    let parsed: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_unix_millis(parsed.as_millisecond()))
}
