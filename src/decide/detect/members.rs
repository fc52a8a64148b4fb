//! Matches the ensemble's members to the pods that another source lists.
//!
//! In a fleet on Kubernetes the API server lists the pods; a keepalive only claims an id and an address. A wrong match
//! would let one pod's silence cut another, so only unambiguous ones count: an address that no other pod may use, a name
//! together with a namespace, and no keepalive from before the pod's creation (addresses and a `StatefulSet`'s names
//! are reused).
//!
//! A pod without a member is unknown, not silent: it may have no agent. A pod that has reported and whose member the
//! ensemble no longer retains *is* silent; the [`ReportHistory`] records that it reported.

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc, time::Duration};

use serde_json::Value;

use super::{LifeStatus, Observation};
use crate::decide::{fleet::Uid, time::Moment};

/// One member of the ensemble.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberRow {
    /// Its claimed id; by default its pod's name.
    pub id: String,
    /// Its claimed namespace: our agents send none, other clients may.
    pub namespace: Option<String>,
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// Time since its last keepalive.
    pub age: Duration,
    /// How much of it counts as silence, as the ensemble's `KnownPod` has it.
    pub silence: Duration,
    /// By its keepalives.
    pub status: LifeStatus,
    /// JSON text, parsed only when it is matched.
    pub payload: Box<str>,
}

/// One pod of the fleet, as listed by its source.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedPod {
    /// Identity, for example of Kubernetes.
    pub uid: Uid,
    /// The pod's name.
    pub name: String,
    /// Its IPv4 address, once assigned.
    pub address: Option<Ipv4Addr>,
    /// Whether the address is its node's (`hostNetwork`), so that other pods may use it.
    pub shares_address: bool,
    /// Time since its creation.
    pub age: Duration,
    /// Whether another pod may have had its name before: a `StatefulSet`'s, or one without an owner.
    pub reusable_name: bool,
    /// Whether it has no traffic now.
    pub withheld: bool,
}

/// All members at one moment, indexed by address and by id; shared by all fleets.
#[derive(Clone, Debug, Default)]
pub struct Members {
    rows: Vec<MemberRow>,
    by_address: HashMap<Ipv4Addr, Vec<usize>>,
    by_name: HashMap<String, Vec<usize>>,
}

/// The result of [`Members::join`].
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// One per pod, in their order.
    pub observations: Vec<Observation>,
    /// Members that match none of the pods.
    pub strangers: usize,
}

/// The last report of each pod of one fleet; outlasts the ensemble's retention of expired pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportHistory {
    last: HashMap<Uid, Moment>,
}

impl Members {
    /// Builds the indices.
    pub fn new(rows: Vec<MemberRow>) -> Self {
        let mut members = Self { rows, ..Self::default() };
        for (place, row) in members.rows.iter().enumerate() {
            members.by_address.entry(row.address).or_default().push(place);
            members.by_name.entry(row.id.clone()).or_default().push(place);
        }
        members
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Observations of one fleet's pods, all in `namespace`, each with its member's data; updates `report_history`.
    pub fn join(
        &self,
        namespace: &str,
        pods: &[ListedPod],
        now: Moment,
        report_history: &mut ReportHistory,
    ) -> Joined {
        let mut pods_per_address: HashMap<Ipv4Addr, usize> = HashMap::new();
        for address in pods.iter().filter_map(|pod| pod.address) {
            *pods_per_address.entry(address).or_default() += 1;
        }
        let (mut last, mut observations) = (HashMap::new(), Vec::with_capacity(pods.len()));
        let mut found = 0;
        for pod in pods {
            let alone = pod.address.is_none_or(|address| pods_per_address.get(&address) == Some(&1));
            let member = self.of(namespace, pod, alone && !pod.shares_address);
            found += usize::from(member.is_some());
            let silence = match member {
                // After `down`, no keepalive is expected.
                Some(member) if member.status == LifeStatus::Down => None,
                Some(member) => Some(member.silence),
                None => report_history.last.get(&pod.uid).map(|last| now.since(*last)),
            };
            let member = member.filter(|member| member.status != LifeStatus::Down);
            observations.push(observe(pod, member, silence));
            let reported = |silence| Moment::after_origin(now.since_origin().saturating_sub(silence));
            last.extend(silence.map(|silence| (pod.uid.clone(), reported(silence))));
        }
        report_history.last = last;
        Joined { observations, strangers: self.rows.len() - found }
    }

    /// The pod's member: the match of the highest certainty, then of the youngest keepalive.
    fn of(&self, namespace: &str, pod: &ListedPod, has_own_address: bool) -> Option<&MemberRow> {
        let at = pod.address.and_then(|address| self.by_address.get(&address));
        let named = self.by_name.get(&pod.name);
        let candidates = at.into_iter().chain(named).flatten().filter_map(|place| self.rows.get(*place));
        candidates
            .filter_map(|row| Some((certainty(namespace, pod, has_own_address, row)?, row)))
            .min_by_key(|(certainty, row)| (*certainty, row.age))
            .map(|(_, row)| row)
    }
}

/// Observations of a fleet without keepalives, or while none are received; no pod counts as silent.
pub fn without_keepalives(pods: &[ListedPod]) -> Vec<Observation> {
    pods.iter().map(|pod| observe(pod, None, None)).collect()
}

/// Certainty of a match; the least is the most certain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Certainty {
    AddressAndName,
    Address,
    NamespaceAndName,
}

fn certainty(
    namespace: &str,
    pod: &ListedPod,
    has_own_address: bool,
    member: &MemberRow,
) -> Option<Certainty> {
    let elsewhere = member.namespace.as_deref().is_some_and(|claimed| claimed != namespace);
    if elsewhere || member.age > pod.age {
        return None;
    }
    match (pod.address == Some(member.address), pod.name == member.id) {
        (true, true) => Some(Certainty::AddressAndName),
        (true, false) if has_own_address => Some(Certainty::Address),
        (false, true) if member.namespace.is_some() => Some(Certainty::NamespaceAndName),
        _ => None,
    }
}

fn observe(pod: &ListedPod, member: Option<&MemberRow>, silence: Option<Duration>) -> Observation {
    let status = match (member, silence) {
        (Some(member), _) => member.status,
        // No longer retained by the ensemble.
        (None, Some(_)) => LifeStatus::Expired,
        // Listed: detectors with other inputs may judge it.
        (None, None) => LifeStatus::Live,
    };
    // An unreadable payload (such as a number out of range) is an error for a rule, not "no data".
    let read = |member: &MemberRow| {
        serde_json::from_str(&member.payload).unwrap_or_else(|_| Value::from("unreadable"))
    };
    Observation {
        uid: pod.uid.clone(),
        id: pod.name.clone(),
        age: silence.unwrap_or_default(),
        status,
        heard: silence.is_some(),
        withheld: pod.withheld,
        name_age: pod.reusable_name.then_some(pod.age),
        payload: Arc::new(member.map(read).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
