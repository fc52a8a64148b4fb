//! The desired number of pods, from their owners' replicas and autoscalers: the floor is a share of it, so pods that are
//! missing must count.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    super::objects::{Kind, OwnerRef, PodRecord, Selector, SharedText, WorkloadRecord},
    feed::Feed,
    owner_scale::{self, OwnerScale},
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
    /// Those of them that will stay unknown until someone changes something, with the cause.
    pub unreadable: Option<String>,
}

/// Where the number comes from that one owner wants.
#[derive(Clone, Copy)]
enum DesiredSource {
    /// Its own `spec.replicas`.
    Replicas(u32),
    /// Its kind is not watched: what was read of it.
    Scale,
    /// As `Scale`, and it owns ReplicaSets, which are watched.
    Sets,
}

enum TopOwner {
    Known(OwnerRef, DesiredSource),
    Unknown(OwnerRef),
    /// It wants as many pods as there are.
    Node,
}

/// An owner whose number is not known.
struct UnknownOwner {
    why: String,
    /// It stays so until someone changes something.
    lasting: bool,
}

impl State {
    pub(super) fn desired(
        &self,
        namespace: &str,
        pods: &[Arc<PodRecord>],
        selector: Option<&Selector>,
    ) -> Desired {
        let (mut scales, mut count, mut unknown, mut switched) =
            (BTreeMap::<OwnerRef, DesiredSource>::new(), 0_u32, BTreeSet::new(), BTreeSet::new());
        let mut unreadable = BTreeSet::new();
        for pod in pods.iter().filter(|pod| !pod.finished() && !pod.terminating) {
            let Some(owner) = &pod.controller else {
                count += 1;
                continue;
            };
            switched.extend(self.switched(namespace, owner));
            match self.top(namespace, owner) {
                TopOwner::Known(owner, scale) => drop(scales.insert(owner, scale)),
                TopOwner::Node => count += 1,
                TopOwner::Unknown(owner) => drop(unknown.insert(format!("{} {}", owner.kind, owner.name))),
            }
        }
        let scalers = |feed: &&Feed| feed.kind == Kind::Autoscalers && feed.covers(namespace) && !feed.listed;
        if let Some(feed) = self.feeds.iter().find(scalers) {
            unknown.insert(format!("the {} are not listed yet", feed.kind.resource()));
        }
        for (owner, scale) in &scales {
            match self.wanted(namespace, owner, *scale, selector) {
                Ok(wanted) => count = count.saturating_add(wanted),
                Err(UnknownOwner { why, lasting }) => {
                    let why = format!("{} {}: {why}", owner.kind, owner.name);
                    unreadable.extend(lasting.then(|| why.clone()));
                    unknown.insert(why);
                }
            }
        }
        let joined = |all: BTreeSet<String>| all.into_iter().reduce(|all, next| all + ", " + &next);
        Desired {
            count,
            owners: scales.keys().map(|owner| key(namespace, owner)).collect(),
            switched: joined(switched),
            unknown: joined(unknown),
            unreadable: joined(unreadable),
        }
    }

    /// Follows the chain of owners to its top.
    fn top(&self, namespace: &str, owner: &OwnerRef) -> TopOwner {
        if owner.is_apps("StatefulSet") {
            return scaled_by(owner, known(self.stateful_sets.get(namespace, &owner.name), owner));
        }
        if !owner.is_apps("ReplicaSet") {
            return match owner_scale::is_node(owner) {
                true => TopOwner::Node,
                false => TopOwner::Known(owner.clone(), DesiredSource::Scale),
            };
        }
        let Some(set) = known(self.replica_sets.get(namespace, &owner.name), owner) else {
            return TopOwner::Unknown(owner.clone());
        };
        match &set.controller {
            None => scaled_by(owner, Some(set)),
            Some(parent) if parent.is_apps("Deployment") => {
                scaled_by(parent, known(self.deployments.get(namespace, &parent.name), parent))
            }
            Some(parent) => TopOwner::Known(parent.clone(), DesiredSource::Sets),
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
        if let Some(read) = self.scales.get(&*owner.uid) {
            return read.selects_switch.then(|| named(owner));
        }
        let direct = find(owner)?;
        let above =
            direct.controller.as_ref().filter(|above| find(above).is_some_and(|it| it.selects_switch));
        above.or_else(|| direct.selects_switch.then_some(owner)).map(named)
    }

    fn wanted(
        &self,
        namespace: &str,
        owner: &OwnerRef,
        scale: DesiredSource,
        selector: Option<&Selector>,
    ) -> Result<u32, UnknownOwner> {
        let own = match scale {
            DesiredSource::Replicas(replicas) => replicas,
            DesiredSource::Scale => self.scale_of(owner, None)?,
            DesiredSource::Sets => {
                let sets = self.sets_of(namespace, owner).filter(|set| set.replicas > 0);
                let (ours, others): (Vec<_>, Vec<_>) = sets.partition(|set| selects(selector, set));
                let sum = ours.iter().fold(0_u32, |sum, set| sum.saturating_add(set.replicas));
                if !others.is_empty() {
                    // Of blue and green, or of a preview: what the owner wants in all can never serve here.
                    return Ok(sum);
                }
                self.scale_of(owner, Some(sum))?
            }
        };
        if own == 0 {
            // An autoscaler leaves an owner alone that is scaled to 0, whatever its `minReplicas`.
            return Ok(0);
        }
        let scalers = self.autoscalers.of(namespace).filter(|scaler| scaler.scales(owner));
        Ok(scalers.map(|scaler| scaler.min_replicas).fold(own, u32::max))
    }

    /// What was read of an owner; `without_scale`: the number if its kind has no `scale` subresource.
    fn scale_of(&self, owner: &OwnerRef, without_scale: Option<u32>) -> Result<u32, UnknownOwner> {
        let unknown = |why: &str, lasting| Err(UnknownOwner { why: why.to_owned(), lasting });
        match self.scales.get(&*owner.uid).map(|known| &known.scale) {
            None => unknown("not read yet", false),
            Some(OwnerScale::Pods(wanted)) => Ok(*wanted),
            Some(OwnerScale::NoScale) => {
                let why = "its kind has no scale subresource, which tells how many pods it wants";
                without_scale.map_or_else(|| unknown(why, true), Ok)
            }
            Some(OwnerScale::Unreadable(why)) => unknown(why, true),
        }
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

/// Whether the Service selects the pods of a set, as far as its template is known.
fn selects(selector: Option<&Selector>, set: &WorkloadRecord) -> bool {
    let Some((selector, template)) = selector.zip(set.template.as_ref()) else { return true };
    selector.matches_labels(template)
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
        |found| TopOwner::Known(owner.clone(), DesiredSource::Replicas(found.replicas)),
    )
}
