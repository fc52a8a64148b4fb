//! How a process joins the replicas of its cluster name.

use std::time::Duration;

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
            prefix: format!("/kubervisor/{}/", options.name),
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
