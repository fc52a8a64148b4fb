//! Where the EndpointSlices do not follow the labels, since when, and the cause: an endpoint controller that hangs, another
//! Service, a slice that somebody else writes, a port that no container has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::LabelSink;
use crate::{
    adapters::{
        kubernetes::{
            cluster::ReadyEndpoints,
            objects::{PodRecord, SliceRecord},
        },
        sink::ListingFinding,
    },
    decide::{
        fleet::{Fleet, Traffic, Uid},
        gate::{
            ADMISSION,
            ledger::{EntryState, Ledger},
        },
        policy::Policy,
        time::Timestamp,
    },
};

/// A withheld pod that is still in ready endpoints after this is reported; following a label takes less.
const STILL_LISTED_AFTER: Duration = Duration::from_secs(10);
/// Causes that one message names.
const CAUSES: usize = 3;

/// What to look at when slices stand still.
const HANGS: &str = "the endpoint controller hangs or is stopped: look at kube-controller-manager";

/// The pods whose listing contradicts their labels.
#[derive(Default)]
pub(super) struct ListingTracker {
    /// Pods that could serve with traffic=yes and that no ready endpoint names.
    unlisted: BTreeMap<Uid, Since>,
    /// Withheld pods that a ready endpoint names.
    lingering: BTreeMap<Uid, Since>,
}

/// The begin of a contradiction.
struct Since {
    at: Timestamp,
    /// The generations of the slices at that time, by UID.
    slices: BTreeMap<Arc<str>, i64>,
}

impl Since {
    fn new(at: Timestamp, slices: &[Arc<SliceRecord>]) -> Self {
        Self { at, slices: generations(slices) }
    }

    fn lasts(&self, now: Timestamp, long: Duration) -> bool {
        now.since(self.at) >= long
    }
}

fn generations(slices: &[Arc<SliceRecord>]) -> BTreeMap<Arc<str>, i64> {
    slices.iter().map(|slice| (Arc::from(&*slice.uid), slice.generation)).collect()
}

impl ListingTracker {
    /// When a contradiction becomes old enough to be reported.
    pub(super) fn look_again(&self, now: Timestamp) -> Option<Timestamp> {
        let unlisted = self.unlisted.values().map(|since| since.at + ADMISSION);
        let lingering = self.lingering.values().map(|since| since.at + STILL_LISTED_AFTER);
        unlisted.chain(lingering).filter(|at| *at > now).min()
    }
}

labelled! {
    /// Why a withheld pod is still in ready endpoints.
    enum LingeringCause, reason {
        SlicesStandStill = "SlicesStandStill",
        ForeignSlice = "ForeignSlice",
        OtherService = "OtherService",
        StillListed = "StillListed",
    }
}

/// A withheld pod that ready endpoints have shown for [`STILL_LISTED_AFTER`].
pub(super) struct LingeringPod {
    pub(super) uid: Uid,
    name: Arc<str>,
    causes: BTreeSet<(LingeringCause, String)>,
}

impl LingeringPod {
    /// The note on the pod.
    pub(super) fn note(&self) -> String {
        let causes: Vec<&str> = self.causes.iter().take(CAUSES).map(|(_, text)| text.as_str()).collect();
        format!("withheld, but still in the ready endpoints of a Service after 10 s: {}", causes.join("; "))
    }
}

/// The condition about all of them.
pub(super) fn not_leaving(pods: &[LingeringPod]) -> Option<ListingFinding> {
    let causes: BTreeSet<&(LingeringCause, String)> = pods.iter().flat_map(|pod| &pod.causes).collect();
    let (first, _) = causes.first()?;
    let names: Vec<&str> = pods.iter().map(|pod| &*pod.name).collect();
    let texts: Vec<&str> = causes.iter().take(CAUSES).map(|(_, text)| text.as_str()).collect();
    let message = format!(
        "{} still in the ready endpoints 10 s after the withdrawal: {}",
        names.join(", "),
        texts.join("; ")
    );
    Some(ListingFinding { reason: first.reason(), message })
}

/// Why `slice` names a withheld pod.
fn cause(slice: &SliceRecord, service: &str, since: &Since) -> (LingeringCause, String) {
    let (name, of, generation) = (&*slice.name, &*slice.service, slice.generation);
    if !slice.is_kubernetes_own() {
        let manager = match &*slice.manager {
            "" => "by nobody that its label names",
            manager => &format!("by {manager}"),
        };
        let of = if of.is_empty() { String::new() } else { format!(" of Service {of}") };
        let text = format!(
            "the slice {name}{of} is managed {manager}, not by the endpoint controller: delete it, or have its manager follow the pods' \
             readiness and labels"
        );
        return (LingeringCause::ForeignSlice, text);
    }
    if of != service {
        let text = format!(
            "Service {of} (slice {name}) selects it too: add kubervisor/traffic: \"yes\" to its selector, if its clients are \
             to be spared as well"
        );
        return (LingeringCause::OtherService, text);
    }
    if since.slices.get(&*slice.uid) == Some(&generation) {
        let text = format!(
            "the slice {name} of Service {of} has not changed since (generation {generation}): {HANGS}"
        );
        return (LingeringCause::SlicesStandStill, text);
    }
    let text = format!(
        "the slice {name} of Service {of} has changed since (generation {generation}) and names it still: look at who \
         writes it (kubectl get endpointslice {name} --show-managed-fields -o yaml)"
    );
    (LingeringCause::StillListed, text)
}

impl LabelSink {
    /// Adds since when each pod is not listed. Without its Service nothing is listed, and nothing may be withheld.
    pub(super) fn join_listing(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        fleet: Fleet,
        endpoints: Option<ReadyEndpoints>,
    ) -> Fleet {
        let (cluster, namespace) = (&self.cluster, &self.settings.namespace);
        if cluster.service(namespace, &policy.service).is_none() {
            self.listing.unlisted.clear();
            return fleet;
        }
        let endpoints = endpoints.unwrap_or_else(|| cluster.ready_endpoints(namespace, &policy.service));
        let mut slices = None;
        let (mut before, mut after) = (std::mem::take(&mut self.listing.unlisted), BTreeMap::new());
        let fleet = fleet.map(|pod| {
            let routable = pod.ready && !pod.terminating && pod.traffic == Traffic::Yes;
            let listed = || cluster.pod(&pod.uid).is_some_and(|record| endpoints.lists(&record));
            if !routable || listed() {
                return;
            }
            let since = before.remove(&pod.uid).unwrap_or_else(|| {
                let slices = slices.get_or_insert_with(|| cluster.slices(namespace, &policy.service));
                Since::new(now, slices)
            });
            pod.unlisted_since = Some(since.at);
            after.insert(pod.uid.clone(), since);
        });
        self.listing.unlisted = after;
        fleet
    }

    /// Why the pods that are not listed for [`ADMISSION`] are not.
    pub(super) fn not_listed(&self, now: Timestamp, policy: &Policy) -> Option<ListingFinding> {
        let unlisted = &self.listing.unlisted;
        let first = unlisted.values().find(|since| since.lasts(now, ADMISSION))?;
        let service = &policy.service;
        let slices = self.cluster.slices(&self.settings.namespace, service);
        let portless = slices.iter().filter(|slice| !slice.has_ports).find(|slice| {
            slice.ready.iter().any(|uid| unlisted.get(uid).is_some_and(|since| since.lasts(now, ADMISSION)))
        });
        let (reason, message) = if let Some(slice) = portless {
            let text = format!(
                "no container of them has a port of the name that Service {service} has as targetPort (slice {} has no \
                 port): correct the Service's targetPort or the containers' port names",
                slice.name
            );
            ("NoSuchPort", text)
        } else if slices.is_empty() {
            ("NoSlices", format!("Service {service} has no EndpointSlice: {HANGS}"))
        } else if generations(&slices) == first.slices {
            let text = format!("no slice of Service {service} has changed since they became ready: {HANGS}");
            ("SlicesStandStill", text)
        } else {
            let text = format!(
                "the slices of Service {service} change, but leave them out: a zone whose endpoints are withdrawn, or a pod \
                 without an address of the Service's family"
            );
            ("LeftOut", text)
        };
        Some(ListingFinding { reason, message })
    }

    /// Withheld pods that ready endpoints have shown for [`STILL_LISTED_AFTER`].
    pub(super) fn lingering(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        ledger: &Ledger,
    ) -> Vec<LingeringPod> {
        use EntryState::{Paused, Pausing, Reserved, Withheld};
        let out = ledger.entries.values().filter_map(|entry| {
            let pod = self.cluster.pod(&entry.uid)?;
            let withheld = matches!(entry.state, Reserved | Withheld | Pausing | Paused)
                && matches!(pod.traffic(), Traffic::No | Traffic::Pause);
            withheld.then_some(pod)
        });
        let out: Vec<Arc<PodRecord>> = out.collect();
        let naming = self.cluster.slices_naming(&self.settings.namespace, &out);
        let tracked = &mut self.listing.lingering;
        tracked.retain(|uid, _| naming.contains_key(uid));
        for (uid, slices) in &naming {
            tracked.entry(uid.clone()).or_insert_with(|| Since::new(now, slices));
        }
        let lingers = |pod: &Arc<PodRecord>| {
            let since = tracked.get(&pod.uid).filter(|since| since.lasts(now, STILL_LISTED_AFTER))?;
            let slices = naming.get(&pod.uid)?;
            let causes = slices.iter().map(|slice| cause(slice, &policy.service, since)).collect();
            Some(LingeringPod { uid: pod.uid.clone(), name: Arc::clone(&pod.name), causes })
        };
        out.iter().filter_map(lingers).collect()
    }
}
