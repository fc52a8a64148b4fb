//! Pods that are marked with a resource which no longer exists.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    super::{deps::Deps, key::ResourceKey, sharing},
    Registry,
};
use crate::{
    adapters::{kubernetes::cluster::Cluster, sink::labels::release},
    api,
};

/// Interval between tries to release pods without a resource.
const ORPHAN_RETRY_INTERVAL: Duration = Duration::from_secs(1);

impl Registry {
    /// Gives back the traffic of pods marked with a resource that does not exist (only `of`, if given). Failures are tried
    /// again after [`ORPHAN_RETRY_INTERVAL`].
    pub(super) async fn release_orphans(&mut self, of: Option<&ResourceKey>) {
        if self.deps.dry_run || (of.is_none() && !sharing::leads(&self.deps)) {
            return;
        }
        let Deps { client, cluster, .. } = &*self.deps;
        let (mut known, mut all_released) = (BTreeMap::new(), true);
        for pod in cluster.named_pods() {
            let Some(name) = pod.labels.get(api::keys::NAME) else { continue };
            let key = (pod.namespace.to_string(), name.to_owned());
            if of.is_some_and(|of| *of != key) || self.workers.contains_key(&key) || pod.finished() {
                continue;
            }
            let resource_exists = match known.get(&key) {
                Some(exists) => *exists,
                None => *known.entry(key.clone()).or_insert(exists(cluster, &key).await),
            };
            if resource_exists != Some(false) {
                all_released &= resource_exists.is_some();
                continue;
            }
            match release::free(client, cluster, &pod).await {
                Ok(()) => tracing::info!(pod = &*pod.name, resource = name, "freed: its resource is gone"),
                Err(error) => {
                    all_released = false;
                    tracing::warn!(pod = &*pod.name, "{error}; tried again");
                }
            }
        }
        if !all_released {
            self.orphan_retry = Some(Instant::now() + ORPHAN_RETRY_INTERVAL);
        } else if of.is_none() {
            self.orphan_retry = None;
        }
    }
}

/// A quorum read; `None` when it failed.
async fn exists(cluster: &Cluster, (namespace, name): &ResourceKey) -> Option<bool> {
    cluster.fetch_resource(namespace, name).await.ok().map(|found| found.is_some())
}
