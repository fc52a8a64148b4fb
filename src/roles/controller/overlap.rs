//! Two resources over the same pods would each withhold down to its own floor, and together below it. The older one keeps
//! the pods; the younger one releases them.

use std::collections::{BTreeMap, BTreeSet};

use super::key::ResourceKey;
use crate::{
    adapters::kubernetes::{
        cluster::Cluster,
        objects::{ResourceRecord, Selector},
    },
    decide::fleet::Uid,
};

/// The resources that release their pods, each with the name of the older one.
pub(super) fn overlapping<'a>(
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
