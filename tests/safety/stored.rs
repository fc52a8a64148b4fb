//! The cluster as it was stored at one revision, as far as it decides about traffic.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::objects::{self, Autoscaler, Kind, NAME, Owner, Pod, Resource, Selector, Slice, TRAFFIC};

/// Everything by namespace and name.
type Shelf<T> = BTreeMap<(String, String), T>;

#[derive(Default)]
pub(super) struct Stored {
    pub(super) pods: Shelf<Pod>,
    owners: BTreeMap<(Kind, String, String), Owner>,
    autoscalers: Shelf<Autoscaler>,
    services: Shelf<Selector>,
    slices: Shelf<Slice>,
    pub(super) resources: Shelf<Resource>,
}

/// One resource's pods and numbers.
pub(super) struct Fleet<'a> {
    /// The selector with the traffic key.
    selector: &'a Selector,
    /// The pods that the Service's slices list: load balancers follow these, not the labels.
    listed: BTreeSet<&'a str>,
    pub(super) pods: Vec<&'a Pod>,
    pub(super) floor: u64,
}

impl Fleet<'_> {
    /// Whether requests reach that pod.
    pub(super) fn serves(&self, pod: &Pod) -> bool {
        pod.could_serve() && matches(self.selector, pod) && self.listed.contains(pod.uid.as_str())
    }

    pub(super) fn has(&self, pod: &Pod) -> bool {
        self.pods.iter().any(|own| own.uid == pod.uid)
    }
}

fn matches(selector: &Selector, pod: &Pod) -> bool {
    selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
}

impl Stored {
    /// The next revision; a pod's form before and after it.
    pub(super) fn take(&mut self, key: &str, object: Option<&Value>) -> Option<(Option<Pod>, Option<Pod>)> {
        let (kind, namespace, name) = objects::identify(key)?;
        let at = (namespace.to_owned(), name.to_owned());
        match kind {
            Kind::Pod => return Some(put(&mut self.pods, at, object.map(Pod::read))),
            Kind::Autoscaler => drop(put(&mut self.autoscalers, at, object.map(Autoscaler::read))),
            Kind::Service => drop(put(&mut self.services, at, object.map(objects::selector))),
            Kind::Slice => drop(put(&mut self.slices, at, object.map(Slice::read))),
            Kind::Resource => drop(put(&mut self.resources, at, object.map(Resource::read))),
            Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet => {
                let at = (kind, at.0, at.1);
                match object {
                    Some(object) => drop(self.owners.insert(at, Owner::read(object))),
                    None => drop(self.owners.remove(&at)),
                }
            }
        }
        None
    }

    /// The fleet of a resource; `None` while its Service is not there or does not have the switch in its selector.
    pub(super) fn fleet(&self, namespace: &str, resource: &Resource) -> Option<Fleet<'_>> {
        let selector = self.services.get(&(namespace.to_owned(), resource.service.clone()))?;
        selector.get(TRAFFIC)?;
        let mut of_all = selector.clone();
        of_all.remove(TRAFFIC);
        let here = self.pods.iter().filter(|((of, _), _)| of == namespace).map(|(_, pod)| pod);
        let pods: Vec<_> = here.filter(|pod| pod.lives() && matches(&of_all, pod)).collect();
        let floor = resource.floor(self.desired(namespace, &pods));
        let slices = self
            .slices
            .iter()
            .filter(|((of, _), slice)| of == namespace && slice.service == resource.service);
        let listed = slices.flat_map(|(_, slice)| slice.ready.iter().map(String::as_str)).collect();
        Some(Fleet { selector, listed, pods, floor })
    }

    /// The pods that carry the name of a resource.
    pub(super) fn named<'a>(
        &'a self,
        namespace: &'a str,
        resource: &'a str,
    ) -> impl Iterator<Item = &'a Pod> {
        let here = self.pods.iter().filter(move |((of, _), _)| of == namespace).map(|(_, pod)| pod);
        here.filter(move |pod| pod.lives() && pod.labels.get(NAME).is_some_and(|name| name == resource))
    }

    /// Whether a pod of a resource must not be withheld any more: its Service does not have the switch, or selects it no
    /// more, or all is a dry run. A pause freezes the last two. Of a Service that is not there nothing is known.
    pub(super) fn to_give_back(
        &self,
        namespace: &str,
        resource: &Resource,
        fleet: Option<&Fleet<'_>>,
        pod: &Pod,
    ) -> bool {
        match fleet {
            None => self.services.contains_key(&(namespace.to_owned(), resource.service.clone())),
            Some(fleet) => !resource.paused && (resource.dry_run || !fleet.has(pod)),
        }
    }

    /// How many there should be: each topmost owner once, and each pod without one.
    fn desired(&self, namespace: &str, pods: &[&Pod]) -> u64 {
        let mut owners = BTreeSet::new();
        let mut alone = 0;
        for pod in pods {
            match pod.owner.as_ref().and_then(|(kind, name, _)| self.topmost(namespace, kind, name)) {
                Some(owner) => drop(owners.insert(owner)),
                None => alone += 1,
            }
        }
        alone + owners.iter().map(|(kind, name)| self.wanted(namespace, *kind, name)).sum::<u64>()
    }

    fn topmost(&self, namespace: &str, kind: &str, name: &str) -> Option<(Kind, String)> {
        let kind = owner_kind(kind)?;
        let owner = self.owners.get(&(kind, namespace.to_owned(), name.to_owned()))?;
        let above = owner.owner.as_ref().and_then(|(kind, name, _)| self.topmost(namespace, kind, name));
        Some(above.unwrap_or_else(|| (kind, owner.name.clone())))
    }

    fn wanted(&self, namespace: &str, kind: Kind, name: &str) -> u64 {
        let replicas =
            self.owners.get(&(kind, namespace.to_owned(), name.to_owned())).map_or(0, |o| o.replicas);
        if replicas == 0 {
            return 0;
        }
        let scalers = self.autoscalers.iter().filter(|((of, _), _)| of == namespace);
        let scalers = scalers.filter(|(_, s)| owner_kind(&s.kind) == Some(kind) && s.name == name);
        scalers.map(|(_, scaler)| scaler.least).fold(replicas, u64::max)
    }
}

fn owner_kind(kind: &str) -> Option<Kind> {
    match kind {
        "Deployment" => Some(Kind::Deployment),
        "ReplicaSet" => Some(Kind::ReplicaSet),
        "StatefulSet" => Some(Kind::StatefulSet),
        _ => None,
    }
}

fn put<T: Clone>(shelf: &mut Shelf<T>, at: (String, String), now: Option<T>) -> (Option<T>, Option<T>) {
    let before = match &now {
        Some(now) => shelf.insert(at, now.clone()),
        None => shelf.remove(&at),
    };
    (before, now)
}
