//! What people change on a Service and its resource: pauses, dry runs, selectors, the floor.

use fastrand::Rng;
use k8s_openapi::api::{autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service};
use kube::{
    Api, Client, Error,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::shop::{Recipe, Shop};

/// The annotation of people's requests.
const REQUESTS: &str = "kubervisor/requests";

async fn edit_resource(shop: &Shop, patch: &Value) -> Result<(), Error> {
    shop.resources().patch(&shop.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// A person's request about the whole resource. It ends by the next one: the checker knows no wall clock.
fn request(verb: &str) -> Value {
    let now = jiff::Timestamp::now();
    let until = now + jiff::SignedDuration::from_hours(1);
    let request = json!({"do": verb, "at": now.to_string(), "until": until.to_string(), "by": "the driver"});
    json!({"metadata": {"annotations": {REQUESTS: request.to_string()}}})
}

/// Pauses the resource by a request or in its spec, or ends that.
pub(super) async fn pause_turns(rng: &mut Rng, shop: &Shop) -> Result<String, Error> {
    let resource = shop.resource().await?;
    let asked = resource["metadata"]["annotations"][REQUESTS].as_str();
    let (what, patch) = if resource["spec"]["paused"] == true {
        ("spec.paused taken out", json!({"spec": {"paused": null}}))
    } else if asked.is_some_and(|text| text.contains(r#""pause""#)) {
        ("resume requested", request("resume"))
    } else if rng.bool() {
        ("spec.paused", json!({"spec": {"paused": true}}))
    } else {
        ("pause requested", request("pause"))
    };
    edit_resource(shop, &patch).await.map(|()| what.to_owned())
}

pub(super) async fn dry_run_turns(shop: &Shop) -> Result<String, Error> {
    let on = shop.resource().await?["spec"]["dryRun"] != true;
    edit_resource(shop, &json!({"spec": {"dryRun": on}})).await.map(|()| format!("dry run: {on}"))
}

/// The floor of the first breaker, in percent.
pub(super) async fn floor_turns(rng: &mut Rng, shop: &Shop) -> Result<String, Error> {
    let mut breakers = shop.resource().await?["spec"]["breakers"].take();
    let percent = rng.u32(30..95);
    breakers[0]["minPodsAvailableRatio"] = json!(percent);
    edit_resource(shop, &json!({"spec": {"breakers": breakers}})).await.map(|()| format!("floor {percent} %"))
}

/// The resource moves on to the other Service of the same pods, or back.
pub(super) async fn service_of_resource_turns(shop: &Shop) -> Result<String, Error> {
    let moved = shop.resource().await?["spec"]["service"] != shop.name.as_str();
    let service = if moved { shop.name.clone() } else { other_service(shop) };
    edit_resource(shop, &json!({"spec": {"service": service}}))
        .await
        .map(|()| format!("its Service: {service}"))
}

fn other_service(shop: &Shop) -> String {
    format!("{}-b", shop.name)
}

fn services(client: &Client, shop: &Shop) -> Api<Service> {
    Api::namespaced(client.clone(), &shop.namespace)
}

/// A second Service of the same pods.
pub(super) async fn add_other_service(client: &Client, shop: &Shop) {
    let selector = json!({"app": shop.name, "kubervisor/traffic": "yes"});
    let service = json!({
        "metadata": {"name": other_service(shop)}, "spec": {"selector": selector, "ports": [{"port": 80}]},
    });
    let service = serde_json::from_value(service).unwrap();
    services(client, shop).create(&PostParams::default(), &service).await.unwrap();
}

async fn select(client: &Client, service: &str, shop: &Shop, selector: &Value) -> Result<(), Error> {
    let patch = Patch::Merge(json!({"spec": {"selector": selector}}));
    services(client, shop).patch(service, &PatchParams::default(), &patch).await.map(drop)
}

/// A Service selects all again, or only one colour, or its pods whatever their switch says.
pub(super) async fn selector_turns(rng: &mut Rng, client: &Client, shop: &Shop) -> Result<String, Error> {
    let service = if rng.bool() { shop.name.clone() } else { other_service(shop) };
    let selectors = [
        json!({"kubervisor/traffic": "yes", "colour": null}),
        json!({"kubervisor/traffic": null}),
        json!({"colour": "blue"}),
        json!({"colour": "green"}),
    ];
    let selector = rng.choice(&selectors).cloned().unwrap_or_default();
    select(client, &service, shop, &selector).await.map(|()| format!("{service} selects {selector}"))
}

/// The autoscaler of a fleet comes, changes its bounds or goes. Without metrics the real one still keeps the bounds.
pub(super) async fn autoscaler_turns(
    rng: &mut Rng,
    client: &Client,
    recipe: &Recipe,
    shop: &Shop,
) -> Result<String, Error> {
    let scalers = Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), &shop.namespace);
    let least = rng.u32(2..9);
    let bounds = json!({"minReplicas": least, "maxReplicas": least + rng.u32(0..5)});
    if scalers.get_opt(&shop.name).await?.is_none() {
        let mut scaler = json!({"metadata": {"name": shop.name}, "spec": bounds});
        scaler["spec"]["scaleTargetRef"] =
            json!({"apiVersion": "apps/v1", "kind": recipe.kind(), "name": shop.name});
        let scaler = serde_json::from_value(scaler).map_err(Error::SerdeError)?;
        scalers.create(&PostParams::default(), &scaler).await?;
        return Ok(format!("an autoscaler: {bounds}"));
    }
    if rng.bool() {
        scalers.delete(&shop.name, &DeleteParams::default()).await?;
        return Ok("no autoscaler".to_owned());
    }
    let patch = Patch::Merge(json!({"spec": bounds}));
    scalers.patch(&shop.name, &PatchParams::default(), &patch).await?;
    Ok(format!("the autoscaler: {bounds}"))
}

/// Both Services and the resource as they were made.
pub(super) async fn put_back(client: &Client, recipe: &Recipe, shop: &Shop) -> Result<(), Error> {
    for service in [shop.name.clone(), other_service(shop)] {
        select(client, &service, shop, &json!({"kubervisor/traffic": "yes", "colour": null})).await?;
    }
    let mut spec = recipe.resource()["spec"].take();
    (spec["paused"], spec["dryRun"]) = (Value::Null, Value::Null);
    edit_resource(shop, &json!({"metadata": {"annotations": {REQUESTS: null}}, "spec": spec})).await
}
