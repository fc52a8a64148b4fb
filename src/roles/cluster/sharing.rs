//! How a process joins the replicas of its cluster name.

use std::{collections::BTreeSet, time::Duration};

use super::{metrics::ClusterMetrics, replicas::Replicas};
use crate::{
    adapters::store::{self, Membership, StoreMetrics},
    config::{self, StoreConfig, environment::Environment},
    exit::Exit,
    runtime::{self, Runtime},
};

/// Settings of one replica.
pub(crate) struct SharingOptions {
    /// Replicas of the same name share the work.
    pub(crate) name: String,
    /// How long a replica counts without a renewal.
    pub(crate) lease: Duration,
    /// Its share of the work.
    pub(crate) weight: u32,
    /// The port that its member record names.
    pub(crate) port: u16,
    /// The namespaces that it works on; empty: all.
    pub(crate) namespaces: Vec<String>,
}

/// A configured store, not yet opened.
pub(crate) struct Sharing {
    store: StoreConfig,
    membership: Membership,
    name: String,
    weight: u32,
}

impl Sharing {
    /// `None`: this process is alone.
    ///
    /// # Errors
    /// [`Exit::Usage`] for a store that cannot be.
    pub(crate) fn read(options: &SharingOptions, env: &Environment) -> Result<Option<Self>, Exit> {
        if options.name.is_empty() {
            return Err(Exit::Usage(
                "--cluster-name (KUBERVISOR_CLUSTER_NAME) is empty; write a name".to_owned(),
            ));
        }
        let namespace = env.get("NAMESPACE").unwrap_or("default");
        let store = config::store::of_replicas(env, config::in_pod(env), namespace)?;
        let Some(store) = store else { return Ok(None) };
        let host = env.get("HOSTNAME").unwrap_or("kubervisor");
        let address = format!("{}:{}", env.get("KONTROL_IP").unwrap_or(host), options.port);
        let membership = Membership {
            prefix: prefix(&options.name, &options.namespaces),
            member: runtime::member(host, address)?,
            lease: options.lease,
        };
        Ok(Some(Self { store, membership, name: options.name.clone(), weight: options.weight }))
    }

    /// Opens the store: this process is a member from now on.
    ///
    /// # Errors
    /// [`Exit::Usage`] for a store that cannot be used.
    pub(crate) async fn join(self, process: &Runtime) -> Result<Replicas, Exit> {
        let member = self.membership.member.clone();
        let metrics = process.metrics.with_registry(StoreMetrics::register);
        let store = store::open(&self.store, self.membership, &process.alarms, metrics)
            .await
            .map_err(|error| Exit::Usage(error.to_string()))?;
        let metrics = process.metrics.with_registry(ClusterMetrics::register);
        Ok(Replicas::new(self.name, store, member, self.weight, process.clock, metrics))
    }
}

/// Start of the keys of one cluster: of replicas with the same name that work on the same namespaces. Others would be
/// given resources that they do not see. None of the prefixes is the start of another one.
fn prefix(name: &str, namespaces: &[String]) -> String {
    let sorted: BTreeSet<&str> = namespaces.iter().map(String::as_str).collect();
    if sorted.is_empty() {
        return format!("/kubervisor/{name}/");
    }
    let sorted: Vec<&str> = sorted.into_iter().collect();
    format!("/kubervisor-in/{}/{name}/", sorted.join(","))
}

#[cfg(test)]
mod tests {
    use super::prefix;

    #[test]
    fn a_cluster_is_a_name_and_the_namespaces_in_any_order() {
        let of = |namespaces: &[&str]| {
            prefix("kubervisor", &namespaces.iter().copied().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), "/kubervisor/kubervisor/");
        assert_eq!(of(&["b", "a", "a"]), of(&["a", "b"]));
        assert_eq!(of(&["a", "b"]), "/kubervisor-in/a,b/kubervisor/");
        assert_ne!(of(&["a"]), of(&["a", "b"]));
    }
}
