//! The desired number of pods, from their owners' replicas and autoscalers: the floor is a share of it, so pods that are
//! missing must count.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    super::objects::{Kind, OwnerRef, PodRecord, SharedText, WorkloadRecord},
    state::State,
};

/// The owner at the top of a chain of owners, which sets the number of pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerKey {
    /// Its namespace.
    pub namespace: SharedText,
    /// Its kind, name and UID.
    pub owner: OwnerRef,
}

/// The desired number of pods of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The sum over all owners, plus the pods without an owner.
    pub count: u32,
    /// The owners in that sum.
    pub owners: Vec<OwnerKey>,
    /// Owners whose own selector asks for the traffic label: a withdrawal would make them create another pod.
    pub switched: Option<String>,
    /// Owners that are not cached: `count` may be too low, and nothing may be withheld.
    pub unknown: Option<String>,
}

/// The number that one owner wants.
#[derive(Default)]
struct OwnerScale {
    /// Its own `spec.replicas`.
    replicas: Option<u32>,
    /// Its ReplicaSets' replicas count, since its kind is not watched.
    through_sets: bool,
    /// Pods that it owns directly, when its kind is not watched.
    direct: u32,
}

enum TopOwner {
    /// Its `spec.replicas` is known.
    Scaled(OwnerRef, u32),
    /// It owns ReplicaSets, and its kind is not watched.
    ThroughSets(OwnerRef),
    /// It owns pods, and its kind is not watched.
    Direct(OwnerRef),
    Unknown(OwnerRef),
}

impl State {
    pub(super) fn desired(&self, namespace: &str, pods: &[Arc<PodRecord>]) -> Desired {
        let (mut scales, mut alone, mut unknown, mut switched) =
            (BTreeMap::<OwnerRef, OwnerScale>::new(), 0, BTreeSet::new(), BTreeSet::new());
        for pod in pods.iter().filter(|pod| !pod.finished() && !pod.terminating) {
            let Some(owner) = &pod.controller else {
                alone += 1;
                continue;
            };
            switched.extend(self.switched(namespace, owner));
            match self.top(namespace, owner) {
                TopOwner::Scaled(owner, replicas) => {
                    scales.entry(owner).or_default().replicas = Some(replicas)
                }
                TopOwner::ThroughSets(owner) => scales.entry(owner).or_default().through_sets = true,
                TopOwner::Direct(owner) => scales.entry(owner).or_default().direct += 1,
                TopOwner::Unknown(owner) => drop(unknown.insert(format!("{} {}", owner.kind, owner.name))),
            }
        }
        if let Some(feed) = self
            .feeds
            .iter()
            .find(|feed| feed.kind == Kind::Autoscalers && feed.covers(namespace) && !feed.listed)
        {
            unknown.insert(format!("the {} are not listed yet", feed.kind.resource()));
        }
        let wanted = scales.iter().map(|(owner, scale)| self.wanted(namespace, owner, scale));
        Desired {
            count: wanted.fold(alone, u32::saturating_add),
            owners: scales.keys().map(|owner| key(namespace, owner)).collect(),
            switched: switched.into_iter().reduce(|all, next| all + ", " + &next),
            unknown: unknown.into_iter().reduce(|all, next| all + ", " + &next),
        }
    }

    /// Follows the chain of owners to its top.
    fn top(&self, namespace: &str, owner: &OwnerRef) -> TopOwner {
        if owner.is_apps("StatefulSet") {
            return scaled_by(owner, known(self.stateful_sets.get(namespace, &owner.name), owner));
        }
        if !owner.is_apps("ReplicaSet") {
            return TopOwner::Direct(owner.clone());
        }
        let Some(set) = known(self.replica_sets.get(namespace, &owner.name), owner) else {
            return TopOwner::Unknown(owner.clone());
        };
        match &set.controller {
            None => scaled_by(owner, Some(set)),
            Some(parent) if parent.is_apps("Deployment") => {
                scaled_by(parent, known(self.deployments.get(namespace, &parent.name), parent))
            }
            Some(parent) => TopOwner::ThroughSets(parent.clone()),
        }
    }

    /// The owner, or the owner of that, if its own selector asks for the traffic label.
    fn switched(&self, namespace: &str, owner: &OwnerRef) -> Option<String> {
        let find = |owner: &OwnerRef| {
            let table = match &*owner.kind {
                "StatefulSet" if owner.is_apps("StatefulSet") => &self.stateful_sets,
                "ReplicaSet" if owner.is_apps("ReplicaSet") => &self.replica_sets,
                "Deployment" if owner.is_apps("Deployment") => &self.deployments,
                _ => return None,
            };
            known(table.get(namespace, &owner.name), owner)
        };
        let named = |owner: &OwnerRef| format!("{} {}", owner.kind, owner.name);
        let direct = find(owner)?;
        let above =
            direct.controller.as_ref().filter(|above| find(above).is_some_and(|it| it.selects_switch));
        above.or_else(|| direct.selects_switch.then_some(owner)).map(named)
    }

    fn wanted(&self, namespace: &str, owner: &OwnerRef, scale: &OwnerScale) -> u32 {
        let through_sets =
            if scale.through_sets { self.sets_of(namespace, owner).map(|set| set.replicas).sum() } else { 0 };
        let own = scale.replicas.unwrap_or(0).saturating_add(through_sets).saturating_add(scale.direct);
        if own == 0 {
            // An autoscaler leaves an owner alone that is scaled to 0, whatever its `minReplicas`.
            return 0;
        }
        let scalers = self.autoscalers.of(namespace).filter(|scaler| scaler.scales(owner));
        scalers.map(|scaler| scaler.min_replicas).fold(own, u32::max)
    }

    /// The ReplicaSets of an owner.
    pub(super) fn sets_of<'a>(
        &'a self,
        namespace: &'a str,
        owner: &'a OwnerRef,
    ) -> impl Iterator<Item = &'a Arc<WorkloadRecord>> {
        let mine = |set: &&Arc<WorkloadRecord>| set.controller.as_ref().is_some_and(|c| c.uid == owner.uid);
        self.replica_sets.of(namespace).filter(mine)
    }
}

fn key(namespace: &str, owner: &OwnerRef) -> OwnerKey {
    OwnerKey { namespace: namespace.into(), owner: owner.clone() }
}

/// `found`, unless it has another UID than the reference.
fn known<'a>(found: Option<&'a Arc<WorkloadRecord>>, owner: &OwnerRef) -> Option<&'a WorkloadRecord> {
    found.filter(|found| found.uid == owner.uid).map(|found| &**found)
}

fn scaled_by(owner: &OwnerRef, found: Option<&WorkloadRecord>) -> TopOwner {
    found.map_or_else(
        || TopOwner::Unknown(owner.clone()),
        |found| TopOwner::Scaled(owner.clone(), found.replicas),
    )
}
