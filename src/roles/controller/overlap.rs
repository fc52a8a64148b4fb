//! Two resources over the same pods would each withhold down to its own floor, and together below it. The older one keeps
//! the pods; the younger one releases them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use super::{key::ResourceKey, worker::Worker};
use crate::{
    adapters::{
        kubernetes::{
            cluster::Cluster,
            objects::{ResourceRecord, Selector},
        },
        sink::labels::{LabelSettings, fleet_selector},
    },
    decide::{fleet::Uid, policy::Policy},
};

/// Makes the younger of two overlapping resources release its pods. Resources that another replica works on count, too.
pub(super) fn resolve(
    cluster: &Cluster,
    workers: &BTreeMap<ResourceKey, Worker>,
    resources: &BTreeMap<ResourceKey, Arc<ResourceRecord>>,
) {
    let claims = resources.iter().filter_map(|(key, resource)| {
        let selector = match workers.get(key) {
            Some(worker) => {
                let policy = worker.state.policy.borrow().clone();
                fleet_selector(cluster, &worker.state.settings, &policy)
            }
            None => service_selector(cluster, resource),
        };
        Some((key, resource.as_ref(), selector?))
    });
    let overlapping = overlapping(cluster, claims);
    for (key, worker) in workers {
        let Some(resource) = resources.get(key) else { continue };
        let overlap = overlapping.get(key).cloned();
        let leaving = worker.state.deps.releasing || resource.deleting || overlap.is_some();
        let before = std::mem::replace(&mut worker.state.health.lock().overlap, overlap.clone());
        let mode = &worker.state.mode;
        let changed = mode.send_if_modified(|mode| std::mem::replace(&mut mode.leaving, leaving) != leaving);
        if changed || before != overlap {
            worker.state.wake();
        }
    }
}

/// The fleet's selector of a resource without a worker here.
fn service_selector(cluster: &Cluster, resource: &ResourceRecord) -> Option<Selector> {
    let settings = LabelSettings {
        namespace: resource.namespace.to_string(),
        name: resource.name.to_string(),
        uid: resource.uid.to_string(),
        owner: None,
        requests_checked: false,
    };
    let mut policy = Policy::without_manifest(&settings.name);
    resource.object.pointer("/spec/service").and_then(Value::as_str)?.clone_into(&mut policy.service);
    fleet_selector(cluster, &settings, &policy)
}

/// The resources that release their pods, each with the name of the older one.
fn overlapping<'a>(
    cluster: &Cluster,
    claims: impl Iterator<Item = (&'a ResourceKey, &'a ResourceRecord, Selector)>,
) -> BTreeMap<ResourceKey, String> {
    let mut by_namespace: BTreeMap<&str, Vec<(&ResourceKey, &ResourceRecord, Selector)>> = BTreeMap::new();
    for claim in claims {
        by_namespace.entry(claim.0.0.as_str()).or_default().push(claim);
    }
    let mut released = BTreeMap::new();
    for (namespace, mut claims) in by_namespace.into_iter().filter(|(_, claims)| claims.len() > 1) {
        claims.sort_by_key(|(_, resource, _)| (resource.created, resource.uid.to_string()));
        let mut taken: Vec<(&ResourceKey, BTreeSet<Uid>)> = Vec::new();
        for (key, _, selector) in &claims {
            let pods: BTreeSet<Uid> =
                cluster.pods(namespace, selector).iter().map(|pod| pod.uid.clone()).collect();
            match taken.iter().find(|(_, theirs)| !theirs.is_disjoint(&pods)) {
                Some((elder, _)) => {
                    released.insert((*key).clone(), elder.1.clone());
                }
                None => taken.push((key, pods)),
            }
        }
    }
    released
}
