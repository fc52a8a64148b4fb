//! Which pods belong together: those behind a Service as kube-state-metrics or the series tell it, else those of a workload.

use std::collections::{BTreeMap, BTreeSet};

use super::inventory::{MOMENTS, MetricSighting, label};
use crate::decide::replay::answers::{RangeAnswer, RangeSeries};

/// Pods that are compared with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodGroup {
    /// The Service, or what is taken for one.
    pub(super) name: String,
    pub(super) pods: BTreeSet<String>,
}

/// Where the groups are known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupedBy {
    /// `kube_endpoint_address` and `kube_pod_info`.
    Endpoints,
    /// A label of the series.
    ServiceLabel,
    /// The pods' owners, or their names.
    Workload,
}

impl GroupedBy {
    /// As a reader needs to know it.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Endpoints => {
                "Services and their pods are those of kube_endpoint_address and kube_pod_info."
            }
            Self::ServiceLabel => {
                "Services are taken from the series' own labels, because kube_endpoint_address was not found; where these \
                 name a Service for metrics only, write the one that clients use."
            }
            Self::Workload => {
                "No series name Services, so pods are grouped by workload: spec.service is the workload's name, write that \
                 of its Service."
            }
        }
    }
}

/// Answers about a namespace's pods, over the same moments.
#[derive(Debug)]
pub(super) struct NamespaceFacts {
    /// `kube_endpoint_address`: `endpoint`, `ip`.
    pub(super) endpoints: RangeAnswer,
    /// `kube_pod_info`: `pod`, `pod_ip`.
    pub(super) pods: RangeAnswer,
    /// `kube_pod_owner`: `pod`, `owner_kind`, `owner_name`.
    pub(super) owners: RangeAnswer,
}

/// The groups, the largest first, and how they are known. A pod is in one group only, because one resource gates it.
pub(super) fn groups(facts: &NamespaceFacts, sightings: &[MetricSighting]) -> (GroupedBy, Vec<PodGroup>) {
    let seen = || sightings.iter().flat_map(|sighting| &sighting.pods);
    let measured: BTreeSet<&str> = seen().map(|(pod, _)| pod.as_str()).collect();
    let (by, named) = match behind_services(facts) {
        services if !services.is_empty() => (GroupedBy::Endpoints, services),
        _ => {
            let labelled: Vec<(String, String)> =
                seen().filter_map(|(pod, one)| Some((one.service.clone()?, pod.clone()))).collect();
            match labelled.is_empty() {
                false => (GroupedBy::ServiceLabel, collect(labelled)),
                true => (GroupedBy::Workload, by_workload(facts, &measured)),
            }
        }
    };
    let mut groups: Vec<PodGroup> = named
        .into_iter()
        .map(|(name, pods)| {
            let pods = pods.into_iter().filter(|pod| measured.contains(pod.as_str())).collect();
            PodGroup { name, pods }
        })
        .collect();
    groups.sort_by(|a, b| (b.pods.len(), a.name.len(), &a.name).cmp(&(a.pods.len(), b.name.len(), &b.name)));
    let mut taken: BTreeSet<String> = BTreeSet::new();
    groups.retain_mut(|group| {
        group.pods.retain(|pod| taken.insert(pod.clone()));
        !group.pods.is_empty()
    });
    (by, groups)
}

/// Services with the pods whose addresses they had. Pods in the network of their node share its address: they are left
/// out, because the address does not tell them apart.
fn behind_services(facts: &NamespaceFacts) -> BTreeMap<String, BTreeSet<String>> {
    let mut by_address: BTreeMap<&str, Vec<(&RangeSeries, &str)>> = BTreeMap::new();
    for series in &facts.pods.series {
        if let (Some(pod), Some(address)) = (label(series, "pod"), label(series, "pod_ip")) {
            by_address.entry(address).or_default().push((series, pod));
        }
    }
    let mut found = Vec::new();
    for endpoint in &facts.endpoints.series {
        let (Some(service), Some(address)) = (label(endpoint, "endpoint"), label(endpoint, "ip")) else {
            continue;
        };
        let holders = by_address.get(address).map(Vec::as_slice).unwrap_or_default();
        for index in (0..MOMENTS).filter(|index| endpoint.at(*index).is_some()) {
            let mut now = holders.iter().filter(|(series, _)| series.at(index).is_some());
            if let (Some((_, pod)), None) = (now.next(), now.next()) {
                found.push((service.to_owned(), (*pod).to_owned()));
            }
        }
    }
    collect(found)
}

fn by_workload(facts: &NamespaceFacts, measured: &BTreeSet<&str>) -> BTreeMap<String, BTreeSet<String>> {
    let owner = |series: &RangeSeries| {
        let (pod, name) = (label(series, "pod")?, label(series, "owner_name")?);
        let of_deployment = label(series, "owner_kind") == Some("ReplicaSet");
        // A ReplicaSet of a Deployment has its name and a hash.
        let workload =
            if of_deployment { name.rsplit_once('-').map_or(name, |(name, _)| name) } else { name };
        Some((pod.to_owned(), workload.to_owned()))
    };
    let owners: BTreeMap<String, String> =
        facts.owners.series.iter().filter_map(owner).filter(|(_, workload)| workload != "<none>").collect();
    let named = |pod: &&str| {
        let workload = owners.get(*pod).map_or_else(|| workload_of(pod), String::as_str);
        (workload.to_owned(), (*pod).to_owned())
    };
    collect(measured.iter().map(named).collect())
}

/// The workload in a pod's name: Deployments add a hash and five letters, StatefulSets a number, others five letters.
fn workload_of(pod: &str) -> &str {
    let drawn = |part: &str| part.chars().all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c));
    let Some((rest, last)) = pod.rsplit_once('-') else { return pod };
    let number = !last.is_empty() && last.chars().all(|c| c.is_ascii_digit());
    let letters = last.len() == 5 && drawn(last);
    match rest.rsplit_once('-') {
        Some((name, hash)) if letters && (6..=10).contains(&hash.len()) && drawn(hash) => name,
        _ if letters || number => rest,
        _ => pod,
    }
}

fn collect(pairs: Vec<(String, String)>) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, pod) in pairs {
        all.entry(name).or_default().insert(pod);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{
        super::inventory::{sightings, tests::answer},
        *,
    };

    fn measured(pods: &[&str]) -> Vec<MetricSighting> {
        let labels: Vec<[(&str, &str); 4]> = pods
            .iter()
            .map(|pod| {
                [("__name__", "http_requests_total"), ("namespace", "shop"), ("pod", *pod), ("code", "200")]
            })
            .collect();
        let series: Vec<(&[(&str, &str)], usize)> =
            labels.iter().map(|labels| (labels.as_slice(), 48)).collect();
        sightings(&[("namespace", answer(&series))])
    }

    fn facts() -> NamespaceFacts {
        NamespaceFacts { endpoints: answer(&[]), pods: answer(&[]), owners: answer(&[]) }
    }

    fn named(groups: &[PodGroup]) -> Vec<(&str, Vec<&str>)> {
        groups
            .iter()
            .map(|group| (group.name.as_str(), group.pods.iter().map(String::as_str).collect()))
            .collect()
    }

    #[test]
    fn services_are_those_whose_addresses_the_pods_had_and_each_pod_is_in_one_group() {
        let facts = NamespaceFacts {
            endpoints: answer(&[
                (&[("endpoint", "web"), ("ip", "10.0.0.1")], 48),
                (&[("endpoint", "web"), ("ip", "10.0.0.2")], 48),
                (&[("endpoint", "web-headless"), ("ip", "10.0.0.1")], 48),
                (&[("endpoint", "web-headless"), ("ip", "10.0.0.2")], 48),
                (&[("endpoint", "nodes"), ("ip", "192.168.0.1")], 48),
            ]),
            pods: answer(&[
                (&[("pod", "web-1"), ("pod_ip", "10.0.0.1")], 48),
                (&[("pod", "web-2"), ("pod_ip", "10.0.0.2")], 48),
                (&[("pod", "proxy"), ("pod_ip", "192.168.0.1")], 48),
                (&[("pod", "exporter"), ("pod_ip", "192.168.0.1")], 48),
            ]),
            ..facts()
        };
        let (by, groups) = groups(&facts, &measured(&["web-1", "web-2", "worker", "proxy"]));
        assert_eq!(by, GroupedBy::Endpoints);
        assert_eq!(named(&groups), [("web", vec!["web-1", "web-2"])]);
    }

    #[test]
    fn without_services_the_owners_and_then_the_names_say_what_belongs_together() {
        let facts = NamespaceFacts {
            owners: answer(&[
                (&[("pod", "a-1"), ("owner_kind", "ReplicaSet"), ("owner_name", "front-6d4cf56db6")], 48),
                (&[("pod", "a-2"), ("owner_kind", "StatefulSet"), ("owner_name", "front")], 48),
                (&[("pod", "lone"), ("owner_kind", "<none>"), ("owner_name", "<none>")], 48),
            ]),
            ..facts()
        };
        let pods = [
            "a-1",
            "a-2",
            "lone",
            "cart-6d4cf56db6-x2b4c",
            "cart-7f8d9c5b4-zz9xw",
            "db-0",
            "db-1",
            "agent-x2b4c",
        ];
        let (by, groups) = groups(&facts, &measured(&pods));
        assert_eq!(by, GroupedBy::Workload);
        assert_eq!(
            named(&groups),
            [
                ("db", vec!["db-0", "db-1"]),
                ("cart", vec!["cart-6d4cf56db6-x2b4c", "cart-7f8d9c5b4-zz9xw"]),
                ("front", vec!["a-1", "a-2"]),
                ("lone", vec!["lone"]),
                ("agent", vec!["agent-x2b4c"]),
            ]
        );
    }
}
