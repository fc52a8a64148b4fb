//! One test's namespace with some resources, and replicas that share them over the Leases of that namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Once,
        atomic::{AtomicU8, Ordering},
    },
};

use kube::Client;
use serde_json::Value;

use crate::{
    controller::{self, Controller},
    plane::{self, Shared, User, until},
    ports::own_address,
    shop::{self, Recipe, Shop},
    signals::Signals,
};

/// Seconds until the others take over from a replica that is gone.
pub(super) const LEASE: u64 = 3;

/// Ports for the keepalives of three replicas, on addresses of their own: no connection of another process or test takes
/// the port of a replica that is down.
pub(super) fn keepalive_ports() -> [SocketAddr; 3] {
    static TAKEN: AtomicU8 = AtomicU8::new(1);
    let first = TAKEN.fetch_add(3, Ordering::Relaxed);
    [0, 1, 2].map(|host| (own_address(first + host), 8000).into())
}

/// A namespace with resources, replicas and their detectors.
pub(super) struct Cluster {
    pub(super) plane: Arc<Shared>,
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) signals: Signals,
    pub(super) shops: Vec<Shop>,
}

impl Cluster {
    /// That many resources with two pods each, whose detectors are asked three times a second.
    pub(super) async fn start(services: usize) -> Self {
        static INSTALLED: Once = Once::new();
        let plane = Arc::new(plane::shared().await);
        INSTALLED.call_once(|| shop::install(&plane));
        let client = plane.client(User::Admin).await;
        let namespace = plane.namespace(&client, "replicas").await;
        let signals = Signals::start();
        let made = (0..services).map(|number| {
            let name = format!("web-{number}");
            let recipe = Recipe::of(&name, 2).breaker("errors", &signals.service(&name), 50);
            let (plane, client, namespace) = (&plane, &client, &namespace);
            async move { recipe.apply(plane, client, namespace).await }
        });
        let shops = futures::future::join_all(made).await;
        Self { plane, client, namespace, signals, shops }
    }

    /// A replica, not started yet.
    pub(super) fn recipe(&self, pod: &str) -> controller::Recipe {
        self.recipe_with_leases_in(&self.namespace, pod)
    }

    /// A replica for this namespace whose Lease is in another one.
    pub(super) fn recipe_with_leases_in(&self, leases: &str, pod: &str) -> controller::Recipe {
        controller::Recipe::with_kubeconfig(self.plane.kubeconfig(User::Kubervisor))
            .namespace(&self.namespace)
            .argument(format!("--store=kubernetes:{leases}"))
            .argument(format!("--lease={LEASE}"))
            .variable("HOSTNAME", pod)
            .variable("KUBERVISOR_POD_UID", &format!("uid-of-{pod}"))
    }

    /// Replicas of these pods, all members.
    pub(super) async fn replicas<const N: usize>(&self, pods: [&str; N]) -> [Controller; N] {
        let replicas = pods.map(|pod| self.recipe(pod).start());
        for replica in &replicas {
            replica.ready().await;
        }
        self.until_shared(&replicas).await;
        replicas
    }

    /// More replicas; all share the work with `others` then.
    pub(super) async fn replicas_beside<const N: usize>(
        &self,
        pods: [&str; N],
        others: &[&Controller],
    ) -> [Controller; N] {
        let replicas = pods.map(|pod| self.recipe(pod).start());
        for replica in &replicas {
            replica.ready().await;
        }
        until("they are members", || async {
            let members = self.members(others[0]).await;
            (members.len() == others.len() + N).then_some(())
        })
        .await;
        self.until_shared_by(&others.iter().copied().chain(&replicas).collect::<Vec<_>>()).await;
        replicas
    }

    /// The names of the resources.
    pub(super) fn services(&self) -> BTreeSet<String> {
        self.shops.iter().map(|shop| shop.name.clone()).collect()
    }

    /// What each replica works on, by its `/services`.
    pub(super) async fn work(&self, replicas: &[&Controller]) -> Vec<BTreeSet<String>> {
        let mut work = Vec::new();
        for replica in replicas {
            let page = replica.page("services").await;
            let names = page["services"].as_array().into_iter().flatten();
            work.push(names.filter_map(|row| row["name"].as_str().map(str::to_owned)).collect());
        }
        work
    }

    /// Waits until every resource is worked on by exactly one of these replicas, and its status says so.
    pub(super) async fn until_shared(&self, replicas: &[Controller]) {
        self.until_shared_by(&replicas.iter().collect::<Vec<_>>()).await;
    }

    /// As [`until_shared`](Self::until_shared).
    pub(super) async fn until_shared_by(&self, replicas: &[&Controller]) {
        until("each resource has one owner", || async {
            let work = self.work(replicas).await;
            let all: Vec<&String> = work.iter().flatten().collect();
            let whole = all.len() == self.shops.len();
            let seen: BTreeSet<String> = all.into_iter().cloned().collect();
            if !whole || seen != self.services() {
                return None;
            }
            let owners = self.owners().await;
            let members = self.members(replicas[0]).await;
            let known = owners.values().all(|(member, _)| members.contains(member));
            (known && owners.len() == self.shops.len()).then_some(())
        })
        .await;
    }

    /// `status.owner` of each resource: member and generation.
    pub(super) async fn owners(&self) -> BTreeMap<String, (String, u64)> {
        let mut owners = BTreeMap::new();
        for shop in &self.shops {
            let owner = shop.resource().await.unwrap()["status"]["owner"].take();
            if let (Some(member), Some(generation)) = (owner["member"].as_str(), owner["generation"].as_u64())
            {
                owners.insert(shop.name.clone(), (member.to_owned(), generation));
            }
        }
        owners
    }

    /// The ids of the members, as this replica sees them.
    pub(super) async fn members(&self, replica: &Controller) -> BTreeSet<String> {
        let page = replica.page("cluster").await;
        let rows = page["members"].as_array().into_iter().flatten();
        rows.filter_map(|row: &Value| row["id"].as_str().map(str::to_owned)).collect()
    }
}
