//! Hands the stored spec of a resource to its worker.

use std::sync::Arc;

use super::{conditions::ResourceProblem, deps::Deps, worker::Worker};
use crate::{
    adapters::kubernetes::objects::ResourceRecord,
    api::{self, Context, Detectors, Manifest, Problems},
    decide::{detect::Rule, policy::Policy},
};

/// Hands a worker the newest spec. An invalid spec removes all breakers, and the default activator returns the pods.
pub(super) fn update(deps: &Deps, worker: &mut Worker, resource: &ResourceRecord) {
    if worker.generation == Some(resource.generation) {
        return;
    }
    worker.generation = Some(resource.generation);
    let read = read(deps, resource);
    let state = &worker.state;
    state.health.lock().problem =
        read.as_ref().err().map(|problems| ResourceProblem::InvalidSpec(message(problems)));
    match read {
        Ok(manifest) => {
            let sees = |rule: &&Rule| deps.live.is_none() && rule.detector.uses_keepalives_only();
            state.health.lock().without_keepalives =
                manifest.rules.iter().filter(sees).map(|rule| rule.breaker.clone()).collect();
            let generation = Some(resource.generation);
            state.policy.send_replace(Arc::new(Policy { generation, ..manifest.policy.clone() }));
            state.manifest.send_replace(Some(Arc::new(manifest)));
        }
        Err(problems) => {
            tracing::warn!(service = state.settings.name, "{problems}");
            let mut policy = Policy::without_manifest(&state.settings.name);
            let service = resource.object.pointer("/spec/service").and_then(serde_json::Value::as_str);
            service.unwrap_or_default().clone_into(&mut policy.service);
            policy.generation = Some(resource.generation);
            state.reconciler.retain_breakers(|_| false);
            state.policy.send_replace(Arc::new(policy));
        }
    }
}

/// The manifest in the resource's spec.
fn read(deps: &Deps, resource: &ResourceRecord) -> Result<Manifest, Problems> {
    let name = format!("{}/{}", resource.namespace, resource.name);
    let manifest = serde_json::json!({
        "apiVersion": api::API_VERSION, "kind": api::KIND, "spec": resource.object.get("spec"),
        "metadata": {"name": &*resource.name, "namespace": &*resource.namespace},
    });
    let context = Context { detectors: Detectors::All, timing: deps.timing, sources: deps.sources };
    api::from_value(&name, manifest, context)
}

/// All mistakes in one line, without line numbers, which a stored object does not have.
fn message(problems: &Problems) -> String {
    let one = |problem: &api::Problem| format!("{} {}; {}", problem.field, problem.what, problem.write);
    problems.list.iter().map(one).collect::<Vec<_>>().join(" | ")
}
