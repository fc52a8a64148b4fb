//! The fleet that the gate plans on, from the cache: its pods, how many there should be, and what forbids withholding.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;

use super::LabelSettings;
use crate::{
    adapters::{
        kubernetes::{
            cluster::Cluster,
            objects::{Phase, PodRecord, Selector},
        },
        sink::PodDetail,
    },
    api::keys,
    decide::{
        fleet::{Fleet, PodView, Presence, Traffic, Uid},
        gate::ledger::{EntryState, Ledger},
        policy::Policy,
        time::Timestamp,
    },
};

/// A withheld pod that is still in ready endpoints after this is reported; following a label takes less.
const STILL_LISTED_AFTER: Duration = Duration::from_secs(10);

/// The note on a withheld pod that is still in ready endpoints.
pub const LINGERS: &str = "withheld, but still in the ready endpoints of a Service after 10 s: another Service that selects it \
                       may lack the key kubervisor/traffic in its selector";
const LABEL_IS_TRUE: &str = "its label kubervisor/traffic is \"true\": write \"yes\" in quotes";

/// What [`read`] takes beside the ledger.
pub(super) struct FleetInputs<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) settings: &'a LabelSettings,
    pub(super) policy: &'a Policy,
    pub(super) leaving: bool,
    pub(super) hold: Option<String>,
    pub(super) status: Option<&'a Value>,
}

/// The fleet, the notes on its pods, and when a note may change.
pub(super) struct FleetReading {
    pub(super) fleet: Fleet,
    pub(super) details: BTreeMap<Uid, PodDetail>,
    pub(super) look_again: Option<Timestamp>,
}

/// What the Service selects without the traffic key; while it does not exist, what it selected last. `None`: nothing, or
/// everything.
pub(super) fn selector(
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

/// As [`selector`], with the status that is cached.
#[must_use]
pub fn fleet_selector(cluster: &Cluster, settings: &LabelSettings, policy: &Policy) -> Option<Selector> {
    let resource = cluster.resource(&settings.namespace, &settings.name);
    let status = resource.as_ref().and_then(|resource| resource.object.get("status"));
    selector(cluster, settings, policy, status)
}

/// The cached pods of the fleet, without those that are finished or terminating.
#[must_use]
pub fn fleet_of(cluster: &Cluster, settings: &LabelSettings, policy: &Policy) -> Vec<Arc<PodRecord>> {
    let selector = fleet_selector(cluster, settings, policy);
    let pods = selector.map(|selector| cluster.pods(&settings.namespace, &selector)).unwrap_or_default();
    pods.into_iter().filter(|pod| !pod.finished() && !pod.terminating).collect()
}

/// Reads the fleet from the cache; `proven`: a quorum LIST has just refreshed it.
pub(super) fn read(
    inputs: &FleetInputs<'_>,
    now: Timestamp,
    ledger: &Ledger,
    proven: bool,
    still_in_endpoints: &mut BTreeMap<Uid, Timestamp>,
) -> FleetReading {
    let FleetInputs { cluster, settings, policy, .. } = inputs;
    let namespace = settings.namespace.as_str();
    let service = cluster.service(namespace, &policy.service);
    let selector = selector(cluster, settings, policy, inputs.status);
    let members = selector.as_ref().map(|selector| cluster.pods(namespace, selector)).unwrap_or_default();
    let members: Vec<Arc<PodRecord>> = members.into_iter().filter(|pod| !pod.finished()).collect();
    let desired = cluster.desired(namespace, &members);
    let endpoints = cluster.ready_endpoints(namespace, &policy.service);
    let view = |pod: &PodRecord| view(pod, &settings.name, endpoints.contains(&pod.uid));
    let mut pods: Vec<PodView> = if inputs.leaving {
        let named = cluster.pods_named(namespace, &settings.name);
        named.iter().filter(|pod| !pod.finished()).map(|pod| view(pod)).collect()
    } else {
        members.iter().map(|pod| view(pod)).collect()
    };
    pods.extend(unselected(cluster, ledger, &pods, view));
    let mut fleet = Fleet::new(desired.count, pods);
    let missing = service.is_none();
    let key = service.as_ref().and_then(|service| service.selector.as_ref());
    let gated = key.is_some_and(|selector| selector.traffic_word() == Some("yes"));
    // While the Service does not exist, what is withheld stays withheld.
    fleet.gated = (gated && selector.is_some()) || missing;
    fleet.leaving = inputs.leaving;
    fleet.can_kill = true;
    fleet.absence_proven = proven;
    let why_missing = || format!("the Service {} is not there", policy.service);
    fleet.hold = inputs.hold.clone().or_else(|| missing.then(why_missing)).or(desired.unknown);
    let still_listed_pods = still_listed(cluster, namespace, now, ledger, still_in_endpoints);
    let look_again =
        still_in_endpoints.values().map(|since| *since + STILL_LISTED_AFTER).filter(|at| *at > now).min();
    let note = |pod: &PodView| {
        let is_true = cluster.pod(&pod.uid).is_some_and(|pod| pod.labels.get(keys::TRAFFIC) == Some("true"));
        match () {
            () if still_listed_pods.contains(&pod.uid) => Some(LINGERS),
            () if pod.traffic == Traffic::Other && is_true => Some(LABEL_IS_TRUE),
            () => None,
        }
    };
    let detail = |pod: &PodView| {
        let note = note(pod)?;
        let since = pod.break_at.unwrap_or(now);
        let detail =
            PodDetail { key: None, address: None, presence: Presence::Present, since, note: Some(note) };
        Some((pod.uid.clone(), detail))
    };
    let details = fleet.pods().iter().filter_map(detail).collect();
    FleetReading { fleet, details, look_again }
}

/// Pods with an entry in the ledger that the Service does not select (any more): not serving, but to be given traffic back.
fn unselected<'a>(
    cluster: &'a Cluster,
    ledger: &'a Ledger,
    members: &[PodView],
    view: impl Fn(&PodRecord) -> PodView + 'a,
) -> Vec<PodView> {
    let known: BTreeSet<&Uid> = members.iter().map(|pod| &pod.uid).collect();
    let missing = ledger.entries.keys().filter(|uid| !known.contains(uid));
    let found = missing.filter_map(|uid| cluster.pod(uid)).filter(|pod| !pod.finished());
    found.map(|pod| PodView { ready: false, ..view(&pod) }).collect()
}

/// Withheld pods that a Service's endpoints have shown as ready for [`STILL_LISTED_AFTER`].
fn still_listed(
    cluster: &Cluster,
    namespace: &str,
    now: Timestamp,
    ledger: &Ledger,
    since: &mut BTreeMap<Uid, Timestamp>,
) -> Vec<Uid> {
    let out = ledger.entries.values().filter(|entry| {
        matches!(
            entry.state,
            EntryState::Reserved | EntryState::Withheld | EntryState::Pausing | EntryState::Paused
        ) && cluster.pod(&entry.uid).is_some_and(|pod| matches!(pod.traffic(), Traffic::No | Traffic::Pause))
    });
    let still = cluster.shown_ready(namespace, out.map(|entry| &entry.uid));
    since.retain(|uid, _| still.contains(uid));
    for uid in &still {
        since.entry(uid.clone()).or_insert(now);
    }
    still
        .into_iter()
        .filter(|uid| since.get(uid).is_some_and(|at| now.since(*at) >= STILL_LISTED_AFTER))
        .collect()
}

/// One pod, as the gate plans on it.
pub(super) fn view(pod: &PodRecord, resource: &str, in_endpoints: bool) -> PodView {
    PodView {
        uid: pod.uid.clone(),
        name: pod.name.to_string(),
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
        in_endpoints,
    }
}

/// The time in an annotation; `None` for other text.
fn time(text: &str) -> Option<Timestamp> {
    let parsed: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_unix_millis(parsed.as_millisecond()))
}
