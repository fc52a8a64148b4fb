//! What people, rollouts and machines do to a fleet behind the controllers' backs, and how they clear up.
//!
//! An API server that is away refuses some of it: that is part of it, and nobody tries again.

use std::collections::BTreeSet;

use fastrand::Rng;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, Error,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
        PostParams,
    },
};
use serde_json::{Value, json};

use crate::{
    shop::{Recipe, Shop},
    switches,
};

/// Everybody who is not the controller.
pub(super) struct People {
    client: Client,
    pub(super) namespace: String,
    unready: BTreeSet<String>,
    rollouts: u32,
}

impl People {
    pub(super) fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace, unready: BTreeSet::new(), rollouts: 0 }
    }

    fn workloads(&self, recipe: &Recipe) -> Api<DynamicObject> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", recipe.kind()));
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind)
    }

    /// How many pods its workload should have.
    pub(super) async fn replicas(&self, recipe: &Recipe, shop: &Shop) -> Result<usize, Error> {
        let replicas =
            self.workloads(recipe).get_scale(&shop.name).await?.spec.and_then(|spec| spec.replicas);
        Ok(usize::try_from(replicas.unwrap_or(0)).unwrap_or(0))
    }

    async fn scale(&self, recipe: &Recipe, shop: &Shop, replicas: u32) -> Result<String, Error> {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.workloads(recipe).patch_scale(&shop.name, &PatchParams::default(), &patch).await?;
        Ok(format!("scaled to {replicas}"))
    }

    /// Each rollout has the other colour: a Service may select one of them.
    async fn roll_out(&mut self, recipe: &Recipe, shop: &Shop) -> Result<String, Error> {
        self.rollouts += 1;
        let colour = if self.rollouts.is_multiple_of(2) { "blue" } else { "green" };
        let containers = json!([{"name": "app", "image": format!("app:{}", self.rollouts)}]);
        let template =
            json!({"metadata": {"labels": {"colour": colour}}, "spec": {"containers": containers}});
        let patch = Patch::Merge(json!({"spec": {"template": template}}));
        self.workloads(recipe).patch(&shop.name, &PatchParams::default(), &patch).await?;
        Ok(format!("rollout of {colour} pods"))
    }

    async fn node(&self, name: &str, lost: bool) -> Result<(), Error> {
        let word = if lost { json!("true") } else { Value::Null };
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"stand-in/lost": word}}}));
        let nodes = Api::<Node>::all(self.client.clone());
        nodes.patch(name, &PatchParams::default(), &patch).await.map(drop)
    }

    /// At most one node is lost at a time; the next roll brings it back.
    async fn node_turns(&self, rng: &mut Rng) -> Result<(), Error> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?.items;
        let names = nodes.iter().filter_map(|node| node.metadata.name.clone()).collect::<Vec<_>>();
        let lost = nodes.iter().find(|node| {
            let annotations = node.metadata.annotations.as_ref();
            annotations.is_some_and(|all| all.contains_key("stand-in/lost"))
        });
        match lost.and_then(|node| node.metadata.name.as_ref()) {
            Some(name) => self.node(name, false).await,
            None => self.node(&names[rng.usize(..names.len())], true).await,
        }
    }

    async fn unready(&mut self, shop: &Shop, pod: &str) -> Result<(), Error> {
        let known = self.unready.remove(pod);
        if !known {
            self.unready.insert(pod.to_owned());
        }
        let word = if known { Value::Null } else { json!("true") };
        shop.patch_pod(pod, &json!({"metadata": {"annotations": {"stand-in/unready": word}}})).await
    }

    async fn edit(&self, rng: &mut Rng, shop: &Shop, pod: &str) -> Result<String, Error> {
        let words = [json!("yes"), json!("no"), json!("pause"), json!("maybe"), Value::Null];
        let word = rng.choice(&words).cloned().unwrap_or_default();
        shop.patch_pod(pod, &json!({"metadata": {"labels": {"kubervisor/traffic": word}}})).await?;
        Ok(format!("a person writes {word} on {pod}"))
    }

    /// Deletes the resource, or makes it again when it is gone.
    async fn resource_turns(&self, recipe: &Recipe, shop: &Shop) -> Result<&'static str, Error> {
        match self.make_resource(recipe, shop).await {
            Ok(true) => Ok("resource made again"),
            Ok(false) => {
                shop.resources().delete(&shop.name, &DeleteParams::default()).await?;
                Ok("resource deleted")
            }
            Err(error) => Err(error),
        }
    }

    /// Whether it had to be made.
    async fn make_resource(&self, recipe: &Recipe, shop: &Shop) -> Result<bool, Error> {
        if shop.resources().get_opt(&shop.name).await?.is_some() {
            return Ok(false);
        }
        let object = serde_json::from_value(recipe.resource()).map_err(Error::SerdeError)?;
        shop.resources().create(&PostParams::default(), &object).await.map(|_| true)
    }

    /// Takes back all that only a person can take back: nodes, readiness, the resource and the Services, words on labels that
    /// are not the controller's.
    pub(super) async fn clear_up(&mut self, recipe: &Recipe, shop: &Shop) -> Result<(), Error> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?.items;
        for node in nodes {
            if node.metadata.annotations.is_some_and(|all| all.contains_key("stand-in/lost")) {
                self.node(&node.metadata.name.unwrap_or_default(), false).await?;
            }
        }
        self.make_resource(recipe, shop).await?;
        switches::put_back(&self.client, recipe, shop).await?;
        for pod in shop.pods().await? {
            let name = pod.metadata.name.clone().unwrap_or_default();
            if pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key("stand-in/unready")) {
                let patch = json!({"metadata": {"annotations": {"stand-in/unready": null}}});
                gone_is_well(shop.patch_pod(&name, &patch).await)?;
            }
            if is_a_persons(&pod) {
                let patch = json!({"metadata": {"labels": {"kubervisor/traffic": "yes"}}});
                gone_is_well(shop.patch_pod(&name, &patch).await)?;
            }
        }
        self.unready.clear();
        Ok(())
    }
}

fn gone_is_well(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

/// Whether only a person can bring it back: these fleets' activators never pause, and a `no` of ours has its mark.
fn is_a_persons(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    let marked = pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key("breaker/breakAt"));
    match labels.and_then(|labels| labels.get("kubervisor/traffic")).map(String::as_str) {
        Some("yes") | None => false,
        Some("no") => !marked,
        Some(_) => true,
    }
}

/// One misdeed by the roll of 51 to 99; what it was.
pub(super) async fn one(
    rng: &mut Rng,
    roll: u32,
    people: &mut People,
    recipe: &Recipe,
    shop: &Shop,
) -> String {
    let client = people.client.clone();
    let done = match roll {
        51..55 => people.roll_out(recipe, shop).await,
        55..62 => {
            let replicas = rng.u32(3..14);
            people.scale(recipe, shop, replicas).await
        }
        62..64 => switches::autoscaler_turns(rng, &client, recipe, shop).await,
        64..67 => people.node_turns(rng).await.map(|()| "a node is lost or back".to_owned()),
        67..69 => people.resource_turns(recipe, shop).await.map(str::to_owned),
        69..72 => switches::pause_turns(rng, shop).await,
        72..74 => switches::dry_run_turns(shop).await,
        74..77 => switches::selector_turns(rng, &client, shop).await,
        77..79 => switches::service_of_resource_turns(shop).await,
        79..81 => switches::floor_turns(rng, shop).await,
        // Or there would soon be nobody left to withhold.
        92..100 => people.clear_up(recipe, shop).await.map(|()| "people clear up".to_owned()),
        _ => match shop.names().await {
            Ok(names) if names.is_empty() => Ok("nobody is there".to_owned()),
            Ok(names) => {
                let pod = &names[rng.usize(..names.len())];
                match roll {
                    81..87 => {
                        people.unready(shop, pod).await.map(|()| format!("{pod} unready, or ready again"))
                    }
                    _ => people.edit(rng, shop, pod).await,
                }
            }
            Err(error) => Err(error),
        },
    };
    done.unwrap_or_else(|error| format!("refused: {error}"))
}
