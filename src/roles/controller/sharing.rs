//! Which resources this process works on, where several replicas share them.
//!
//! A resource is hashed over the replicas (`roles::cluster`). One whose breakers judge keepalives belongs to the replica
//! whose master leads the ensemble, because only that one has it.

use serde_json::Value;
use tokio::sync::watch;

use super::{
    deps::Deps,
    key::{self, ResourceKey},
    worker::Worker,
};
use crate::{
    adapters::{kubernetes::objects::ResourceRecord, store::Leadership},
    roles::cluster::ReplicaChanges,
};

/// Wakes when another replica, or this one, may have to work on something else.
pub(super) struct SharingChanges {
    replicas: Option<ReplicaChanges>,
    ensemble: Option<watch::Receiver<Leadership>>,
}

impl SharingChanges {
    pub(super) fn of(deps: &Deps) -> Self {
        Self {
            replicas: deps.replicas.get().map(|replicas| replicas.changes()),
            ensemble: deps.replicas.get().and(deps.live.as_ref()).map(|live| live.leadership()),
        }
    }

    pub(super) async fn changed(&mut self) {
        let replicas = async {
            match &mut self.replicas {
                Some(replicas) => replicas.changed().await,
                None => std::future::pending().await,
            }
        };
        let ensemble = async {
            let changed = match &mut self.ensemble {
                Some(ensemble) => ensemble.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = replicas => {}
            () = ensemble => {}
        }
    }
}

/// Whether this process may work on the resource now.
pub(super) fn may_run(deps: &Deps, resource: &ResourceRecord) -> bool {
    let Some(replicas) = deps.replicas.get() else { return true };
    match &deps.live {
        Some(live) if judges_keepalives(resource) => {
            matches!(*live.leadership().borrow(), Leadership::Leading { .. })
        }
        _ => replicas.may_run(&service_key(&key::of(resource))),
    }
}

/// Whether the resource of this worker is assigned by the ensemble, and not by its hash.
pub(super) fn follows_ensemble(deps: &Deps, worker: &Worker) -> bool {
    let resource = worker.state.resource();
    deps.live.is_some() && resource.is_some_and(|resource| judges_keepalives(&resource))
}

/// Whether what is to be done once is this process's: marks without a resource.
pub(super) fn leads(deps: &Deps) -> bool {
    deps.replicas.get().is_none_or(|replicas| replicas.leads())
}

/// The name under which a resource is assigned.
pub(super) fn service_key((namespace, name): &ResourceKey) -> String {
    format!("{namespace}/{name}")
}

/// Whether a breaker of the resource reads keepalives.
fn judges_keepalives(resource: &ResourceRecord) -> bool {
    let breakers = resource.object.pointer("/spec/breakers").and_then(Value::as_array);
    breakers.into_iter().flatten().any(|breaker| {
        breaker.get("keepalive").is_some_and(Value::is_object)
            || breaker.pointer("/outlier/pointer").is_some_and(Value::is_string)
    })
}
