//! How many pods there should be: the floor is a share of it, so it comes from the owners' wishes and not
//! from what exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    super::objects::{Kind, OwnerRef, PodRecord, SharedText, WorkloadRecord},
    state::State,
};

/// Who decides on a number of pods, at the top of its chain of owners.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerKey {
    /// Where it is.
    pub namespace: SharedText,
    /// Which one.
    pub owner: OwnerRef,
}

/// How many pods a fleet should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The sum over all owners and the pods without one.
    pub count: u32,
    /// Whose wishes are in it.
    pub owners: Vec<OwnerKey>,
    /// Who is named and not known: then the number may be too low, and nothing may be withheld.
    pub unknown: Option<String>,
}

/// What one owner wants.
#[derive(Default)]
struct OwnerScale {
    /// It says so itself.
    replicas: Option<u32>,
    /// It says so by its ReplicaSets.
    by_sets: bool,
    /// Pods that it owns directly.
    direct: u32,
}

enum Top {
    /// Its own number.
    Says(OwnerRef, u32),
    /// An owner of ReplicaSets whose kind we do not know.
    BySets(OwnerRef),
    /// An owner of pods whose kind we do not know.
    Direct(OwnerRef),
    Unknown(OwnerRef),
}

impl State {
    pub(super) fn desired(&self, namespace: &str, pods: &[Arc<PodRecord>]) -> Desired {
        let (mut wishes, mut alone, mut unknown) =
            (BTreeMap::<OwnerRef, OwnerScale>::new(), 0, BTreeSet::new());
        for pod in pods.iter().filter(|pod| !pod.finished() && !pod.terminating) {
            let Some(owner) = &pod.controller else {
                alone += 1;
                continue;
            };
            match self.top(namespace, owner) {
                Top::Says(owner, replicas) => wishes.entry(owner).or_default().replicas = Some(replicas),
                Top::BySets(owner) => wishes.entry(owner).or_default().by_sets = true,
                Top::Direct(owner) => wishes.entry(owner).or_default().direct += 1,
                Top::Unknown(owner) => drop(unknown.insert(format!("{} {}", owner.kind, owner.name))),
            }
        }
        if let Some(feed) = self.feeds.iter().find(|feed| feed.kind == Kind::Autoscalers && !feed.listed) {
            unknown.insert(format!("the {} are not listed yet", feed.kind.resource()));
        }
        let wanted = wishes.iter().map(|(owner, wish)| self.wanted(namespace, owner, wish));
        Desired {
            count: wanted.fold(alone, u32::saturating_add),
            owners: wishes.keys().map(|owner| key(namespace, owner)).collect(),
            unknown: unknown.into_iter().reduce(|all, next| all + ", " + &next),
        }
    }

    /// Follows the chain of owners up to the one that decides.
    fn top(&self, namespace: &str, owner: &OwnerRef) -> Top {
        if owner.is_apps("StatefulSet") {
            return says(owner, known(self.stateful_sets.get(namespace, &owner.name), owner));
        }
        if !owner.is_apps("ReplicaSet") {
            return Top::Direct(owner.clone());
        }
        let Some(set) = known(self.replica_sets.get(namespace, &owner.name), owner) else {
            return Top::Unknown(owner.clone());
        };
        match &set.controller {
            None => says(owner, Some(set)),
            Some(above) if above.is_apps("Deployment") => {
                says(above, known(self.deployments.get(namespace, &above.name), above))
            }
            Some(above) => Top::BySets(above.clone()),
        }
    }

    fn wanted(&self, namespace: &str, owner: &OwnerRef, wish: &OwnerScale) -> u32 {
        let by_sets =
            if wish.by_sets { self.sets_of(namespace, owner).map(|set| set.replicas).sum() } else { 0 };
        let own = wish.replicas.unwrap_or(0).saturating_add(by_sets).saturating_add(wish.direct);
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

/// A namesake is another.
fn known<'a>(found: Option<&'a Arc<WorkloadRecord>>, owner: &OwnerRef) -> Option<&'a WorkloadRecord> {
    found.filter(|found| found.uid == owner.uid).map(|found| &**found)
}

fn says(owner: &OwnerRef, found: Option<&WorkloadRecord>) -> Top {
    found.map_or_else(|| Top::Unknown(owner.clone()), |found| Top::Says(owner.clone(), found.replicas))
}
