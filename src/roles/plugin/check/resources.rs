//! Checks of each KubervisorService, and of what earlier ones have left behind.

use std::collections::BTreeSet;

use kube::api::ListParams;
use serde_json::Value;

use super::{
    CONDITIONS, CheckResult, GATED, LEFT_PODS, LEFT_SWITCHES, READY, SEEN, SERVICE, SOURCES, SPEC, TEMPLATES,
};
use crate::{
    adapters::kubernetes::untyped::{ClusterError, ListScope},
    api::{self, Context, Detectors, keys},
    roles::plugin::{args::PluginSession, fields, tree},
};

/// Conditions that are true only while something is wrong; the others have checks of their own.
const PROBLEMS: &[&str] = &[
    "DesiredUnknown",
    "Failed",
    "Forbidden",
    "ForeignNo",
    "LedgerFull",
    "LedgerNotStored",
    "NotLeavingEndpoints",
    "NotListed",
    "OnePerNode",
    "Overlapping",
    "Panic",
    "RequestsRefused",
    "SetBack",
    "WritesRefused",
];
/// The most objects that a message names.
const NAMED: usize = 5;

pub(super) async fn check(session: &PluginSession) -> Vec<CheckResult> {
    let selector = session.selector.as_deref();
    let found = session.cluster.services(session.scope(), selector).await;
    let resources = match found {
        Ok(resources) => resources,
        Err(error) => return vec![SEEN.unread(&session.scope().to_string(), &error)],
    };
    let mut results = Vec::new();
    for resource in &resources {
        results.extend(of_resource(session, resource).await);
    }
    // With a selector the other resources are not known.
    if selector.is_none() {
        results.push(left_pods(session, &resources).await);
        results.push(left_switches(session, &resources).await);
    }
    results
}

async fn of_resource(session: &PluginSession, resource: &Value) -> Vec<CheckResult> {
    let text = |pointer| fields::text(resource, pointer).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let subject = match session.all_namespaces {
        true => format!("{namespace}/kvs/{name}"),
        false => format!("kvs/{name}"),
    };
    let service = tree::service_of(&session.cluster, &namespace, &text("/spec/service")).await;
    let mut results = vec![SEEN.of(&subject, unseen(resource)), SPEC.of(&subject, invalid(&name, resource))];
    results.push(match &service {
        Err(error) => SERVICE.unread(&subject, error),
        Ok(service) => SERVICE.of(&subject, unusable(resource, service.as_ref())),
    });
    results.push(READY.of(&subject, not(resource, "Ready")));
    if let Ok(Some(service)) = &service {
        results.push(match tree::is_gated(service) {
            true => GATED.passed(&subject),
            false => {
                let how = format!(
                    "labels do not decide about traffic yet: kubectl kubervisor enable {name} -n {namespace}"
                );
                GATED.warning(&subject, how)
            }
        });
    }
    results.push(sources(&subject, resource));
    results.push(templates(&subject, resource));
    let problems = PROBLEMS.iter().filter(|kind| holds(resource, kind));
    let problems: Vec<String> = problems.map(|kind| format!("{kind}: {}", message(resource, kind))).collect();
    results.push(CONDITIONS.of(&subject, (!problems.is_empty()).then(|| problems.join("; "))));
    results
}

fn holds(resource: &Value, kind: &str) -> bool {
    fields::condition(resource, kind).is_some_and(|condition| condition["status"] == "True")
}

fn message(resource: &Value, kind: &str) -> String {
    let condition = fields::condition(resource, kind);
    condition.and_then(|condition| fields::text(condition, "/message")).unwrap_or_default()
}

/// Why the condition is not true.
fn not(resource: &Value, kind: &str) -> Option<String> {
    let condition = fields::condition(resource, kind);
    let wrong = || match condition {
        None => "no controller has said so: does it run?".to_owned(),
        Some(_) => message(resource, kind),
    };
    (!holds(resource, kind)).then(wrong)
}

fn unseen(resource: &Value) -> Option<String> {
    let generation = &resource["metadata"]["generation"];
    let seen = &resource["status"]["observedGeneration"];
    let words = match seen {
        Value::Null => "no controller has looked at it: does one run, and for this namespace?".to_owned(),
        seen => format!("the controller has seen generation {seen} of {generation}: does it still run?"),
    };
    (seen != generation).then_some(words)
}

/// As `kubervisor check`; sources of the operator are not known here, so that the controller's word counts.
fn invalid(name: &str, resource: &Value) -> Option<String> {
    if let Some(condition) = fields::condition(resource, "InitFailed") {
        return (condition["status"] == "True").then(|| message(resource, "InitFailed"));
    }
    let context = Context { detectors: Detectors::All, timing: None, sources: &[] };
    let mut manifest = resource.clone();
    manifest.as_object_mut().and_then(|members| members.remove("status"));
    let problems = api::from_value(name, manifest, context).err()?;
    Some(
        problems
            .list
            .iter()
            .map(|problem| format!("{}: {}", problem.field, problem.what))
            .collect::<Vec<_>>()
            .join("; "),
    )
}

fn unusable(resource: &Value, service: Option<&Value>) -> Option<String> {
    let name = fields::cell(resource, "/spec/service");
    let Some(service) = service else {
        return Some(format!("service/{name} does not exist: create it, or correct spec.service"));
    };
    if service["spec"]["type"] == "ExternalName" {
        return Some(format!("service/{name} is of type ExternalName, which has no pods"));
    }
    let selects = service["spec"]["selector"].as_object().is_some_and(|selector| !selector.is_empty());
    (!selects).then(|| format!("service/{name} has no selector, so it selects no pods"))
}

/// The controller asks the sources from where it runs, and says what it finds.
fn sources(subject: &str, resource: &Value) -> CheckResult {
    let Some(condition) = fields::condition(resource, "DataAvailable") else {
        return SOURCES.warning(subject, "no controller has asked them yet");
    };
    match (condition["status"].as_str(), condition["reason"].as_str()) {
        (Some("True"), _) => SOURCES.passed(subject),
        (Some("False"), Some("DetectorFailed")) => {
            SOURCES.failed(subject, message(resource, "DataAvailable"))
        }
        _ => SOURCES.warning(subject, message(resource, "DataAvailable")),
    }
}

fn templates(subject: &str, resource: &Value) -> CheckResult {
    if holds(resource, "SwitchInWorkloadSelector") {
        return TEMPLATES.failed(subject, message(resource, "SwitchInWorkloadSelector"));
    }
    if holds(resource, "TemplateUnlabelled") {
        return TEMPLATES.warning(subject, message(resource, "TemplateUnlabelled"));
    }
    TEMPLATES.passed(subject)
}

/// Pods with our marks whose resource is gone: nobody gives a withheld one its traffic back.
async fn left_pods(session: &PluginSession, resources: &[Value]) -> CheckResult {
    let scope = session.scope();
    let subject = scope.to_string();
    let pods = match listed(session, scope, "pods", Some(keys::NAME)).await {
        Ok(pods) => pods,
        Err(error) => return LEFT_PODS.unread(&subject, &error),
    };
    let known: BTreeSet<(&str, &str)> = resources.iter().filter_map(named).collect();
    let left = pods.iter().filter_map(|pod| {
        let owner = (pod["metadata"]["namespace"].as_str()?, pod["metadata"]["labels"][keys::NAME].as_str()?);
        let name = pod["metadata"]["name"].as_str()?;
        (!known.contains(&owner)).then(|| format!("{name} (of kvs/{})", owner.1))
    });
    let left: Vec<String> = left.collect();
    let how = "start the controller, which frees them, or label them kubervisor/traffic=yes";
    LEFT_PODS.of(&subject, (!left.is_empty()).then(|| format!("{}; {how}", some(&left))))
}

/// Services with the switch and without a resource: new pods without the label get no traffic.
async fn left_switches(session: &PluginSession, resources: &[Value]) -> CheckResult {
    let scope = session.scope();
    let subject = scope.to_string();
    let services = match listed(session, scope, "services", None).await {
        Ok(services) => services,
        Err(error) => return LEFT_SWITCHES.unread(&subject, &error),
    };
    let gated = |service: &&Value| tree::is_gated(service);
    let known: BTreeSet<(&str, &str)> = resources
        .iter()
        .filter_map(|resource| Some((named(resource)?.0, resource["spec"]["service"].as_str()?)))
        .collect();
    let left = services.iter().filter(gated).filter_map(named).filter(|service| !known.contains(service));
    let left: Vec<String> = left.map(|(namespace, name)| format!("service/{name} in {namespace}")).collect();
    let how = "take kubervisor/traffic out of the selector, or create the KubervisorService";
    LEFT_SWITCHES.of(&subject, (!left.is_empty()).then(|| format!("{}; {how}", some(&left))))
}

async fn listed(
    session: &PluginSession,
    scope: ListScope<'_>,
    kind: &str,
    label: Option<&str>,
) -> Result<Vec<Value>, ClusterError> {
    let path = match scope {
        ListScope::Namespace(name) => format!("/api/v1/namespaces/{name}/{kind}"),
        ListScope::All => format!("/api/v1/{kind}"),
    };
    let which = ListParams { label_selector: label.map(str::to_owned), ..ListParams::default() };
    session.cluster.list(&path, &which, &format!("{kind} in {scope}")).await
}

fn named(object: &Value) -> Option<(&str, &str)> {
    Some((object["metadata"]["namespace"].as_str()?, object["metadata"]["name"].as_str()?))
}

/// The first few, and how many there are.
fn some(all: &[String]) -> String {
    let first = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if all.len() > NAMED { format!("{} objects, such as {first}", all.len()) } else { first }
}
