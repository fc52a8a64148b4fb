//! Which resources this process works on, where several replicas share them.
//!
//! A resource is hashed over the replicas (`roles::cluster`). One whose breakers judge keepalives belongs to the replica
//! whose master leads the ensemble, because only that one has it; a cordoned one gives that lead up.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use tokio::sync::watch;

use super::{
    deps::Deps,
    key::{self, ResourceKey},
    worker::Worker,
};
use crate::{
    adapters::{
        kubernetes::objects::ResourceRecord,
        store::{Leader, Leadership, Member, MemberState, StoreError},
    },
    roles::{
        cluster::{ReplicaChanges, Replicas},
        master::LiveEnsemble,
    },
};

/// Wakes when another replica, or this one, may have to work on something else.
pub(super) struct SharingChanges {
    replicas: Option<ReplicaChanges>,
    ensemble: Option<EnsembleChanges>,
}

/// Wakes when another master, or this one, leads the ensemble, or may lead it.
struct EnsembleChanges {
    leadership: watch::Receiver<Leadership>,
    masters: watch::Receiver<Arc<Vec<MemberState>>>,
}

impl EnsembleChanges {
    /// Returns at the next change; never once the store has ended.
    async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.leadership.changed() => changed,
            changed = self.masters.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl SharingChanges {
    pub(super) fn of(deps: &Deps) -> Self {
        let ensemble =
            |live: &LiveEnsemble| EnsembleChanges { leadership: live.leadership(), masters: live.masters() };
        Self {
            replicas: deps.replicas.get().map(|replicas| replicas.changes()),
            ensemble: deps.replicas.get().and(deps.live.as_ref()).map(ensemble),
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
            match &mut self.ensemble {
                Some(ensemble) => ensemble.changed().await,
                None => std::future::pending().await,
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

/// The owner of each of these resources, by the name under which it is assigned; without one where nobody may have any.
pub(super) fn owners(
    deps: &Deps,
    replicas: &Replicas,
    resources: &[Arc<ResourceRecord>],
) -> BTreeMap<String, Member> {
    let by_ensemble = |resource: &&Arc<ResourceRecord>| deps.live.is_some() && judges_keepalives(resource);
    let (led, hashed): (Vec<_>, Vec<_>) = resources.iter().partition(by_ensemble);
    let name = |resource: &Arc<ResourceRecord>| service_key(&key::of(resource));
    let mut owners = replicas.owners(hashed.into_iter().map(name));
    let leader = deps.live.as_ref().and_then(|live| ensemble_leader(live, replicas));
    if let Some(leader) = leader {
        owners.extend(led.into_iter().map(|resource| (name(resource), leader.clone())));
    }
    owners
}

/// The replica whose master leads the ensemble: the one of the same pod.
fn ensemble_leader(live: &LiveEnsemble, replicas: &Replicas) -> Option<Member> {
    match &*live.leadership().borrow() {
        Leadership::Leading { .. } => Some(replicas.member().clone()),
        Leadership::Follower { leader: Some(Leader { member, .. }) } => {
            let members = replicas.members();
            // The process before it may not have gone yet.
            let newest = of_pod(&members, &member.pod).max_by_key(|state| state.renewed);
            Some(newest.map_or_else(|| member.clone(), |state| state.member.clone()))
        }
        Leadership::Follower { leader: None } | Leadership::Unknown => None,
    }
}

/// If this process is cordoned and its master leads the ensemble, lets another one lead that is not cordoned.
///
/// # Errors
/// The store does not answer; to be called again.
pub(super) async fn give_up_ensemble(deps: &Deps) -> Result<(), StoreError> {
    let (Some(replicas), Some(live)) = (deps.replicas.get(), &deps.live) else { return Ok(()) };
    let leads = matches!(*live.leadership().borrow(), Leadership::Leading { .. });
    if !leads {
        return Ok(());
    }
    let members = replicas.members();
    let works = |state: &MemberState| !state.status.cordoned;
    let cordoned = members.iter().any(|state| state.member.id == replicas.member().id && !works(state));
    let masters = Arc::clone(&live.masters().borrow());
    let another = masters.iter().any(|master| of_pod(&members, &master.member.pod).any(works));
    if cordoned && another {
        tracing::info!("cordoned: another master leads the ensemble next");
        return live.hand_over().await;
    }
    Ok(())
}

/// The members of this pod.
fn of_pod<'a>(members: &'a [MemberState], pod: &'a str) -> impl Iterator<Item = &'a MemberState> {
    members.iter().filter(move |state| state.member.pod == pod)
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
