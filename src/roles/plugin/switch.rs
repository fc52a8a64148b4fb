//! `enable` and `disable`: the switch in the Service's selector, by which labels begin or cease to decide about traffic.

use kube::api::Patch;
use serde_json::{Value, json};

use super::{PluginOutput, args::PluginSession, fields, tree};
use crate::{adapters::kubernetes::untyped::missing, api::keys, exit::Exit, roles::output::list};

/// The most pods that a message names.
const NAMED: usize = 5;

/// Puts the switch into the selector, once nobody would lose traffic by it.
pub(super) async fn enable(session: &PluginSession, name: &str, dry_run: bool) -> Result<PluginOutput, Exit> {
    let (resource, service) = read(session, name).await?;
    let service_name = fields::cell(&service, "/metadata/name");
    if tree::is_gated(&service) {
        return Ok(said(format!("service/{service_name} has {} in its selector already\n", keys::TRAFFIC)));
    }
    if let Some(why) = not_ready(&resource) {
        return Err(refused(format!("kubervisorservice/{name} is not ready to decide about traffic: {why}")));
    }
    let labels = tree::selector(&resource, Some(&service));
    let labels = labels.ok_or_else(|| refused(format!("service/{service_name} selects no pods")))?;
    let pods = session.cluster.pods(&session.namespace, &labels).await?;
    let dark = without_label(&pods);
    if !dark.is_empty() {
        let why = format!(
            "{} pods would lose their traffic, because they lack the label {}=yes: {}; start the controller, or label them",
            dark.len(),
            keys::TRAFFIC,
            dark.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ")
        );
        return Err(refused(why));
    }
    patch(session, &service, json!("yes"), dry_run).await
}

/// Takes the switch out: every pod gets its traffic, whatever its label.
pub(super) async fn disable(
    session: &PluginSession,
    name: &str,
    dry_run: bool,
) -> Result<PluginOutput, Exit> {
    let (_, service) = read(session, name).await?;
    if !tree::is_gated(&service) {
        let name = fields::cell(&service, "/metadata/name");
        return Ok(said(format!("service/{name} has no {} in its selector\n", keys::TRAFFIC)));
    }
    patch(session, &service, Value::Null, dry_run).await
}

/// The resource and its Service.
async fn read(session: &PluginSession, name: &str) -> Result<(Value, Value), Exit> {
    let resource = session.cluster.service(&session.namespace, name).await?;
    let service = fields::text(&resource, "/spec/service").unwrap_or_default();
    let found = tree::service_of(&session.cluster, &session.namespace, &service).await?;
    let hint = "create it, or correct spec.service of the KubervisorService";
    let found = found.ok_or_else(|| missing("Service", &session.namespace, &service, hint))?;
    Ok((resource, found))
}

/// Why the resource must not decide about traffic yet.
fn not_ready(resource: &Value) -> Option<String> {
    let holds = |kind: &str| fields::condition(resource, kind).is_some_and(|found| found["status"] == "True");
    if resource["spec"]["dryRun"] == true || holds("DryRun") {
        return Some("it is a dry run, in which new pods get no label and so no traffic".to_owned());
    }
    let generation = &resource["metadata"]["generation"];
    if resource["status"]["observedGeneration"] != *generation {
        return Some("the controller has not seen this version of it yet; is it running?".to_owned());
    }
    let message = || {
        let ready = fields::condition(resource, "Ready");
        ready.and_then(|ready| fields::text(ready, "/message")).unwrap_or_else(|| fields::status(resource))
    };
    (!holds("Ready")).then(message)
}

/// Ready pods that the selector would no longer select, and that nobody withholds.
fn without_label(pods: &[Value]) -> Vec<&str> {
    let ready = |pod: &&Value| {
        let mut conditions = list(pod, "/status/conditions").iter();
        conditions.any(|found| found["type"] == "Ready" && found["status"] == "True")
    };
    let unlabelled = |pod: &&Value| !pod["metadata"]["labels"][keys::TRAFFIC].is_string();
    let dark = pods.iter().filter(ready).filter(unlabelled);
    dark.filter_map(|pod| pod["metadata"]["name"].as_str()).collect()
}

async fn patch(
    session: &PluginSession,
    service: &Value,
    word: Value,
    dry_run: bool,
) -> Result<PluginOutput, Exit> {
    let (name, version) = (fields::cell(service, "/metadata/name"), &service["metadata"]["resourceVersion"]);
    let selector = json!({keys::TRAFFIC: word});
    let change = json!({"metadata": {"resourceVersion": version}, "spec": {"selector": selector}});
    let path = format!("/api/v1/namespaces/{}/services", session.namespace);
    session.cluster.patch(&path, &name, &Patch::Merge(change), dry_run).await?;
    let what = match word {
        Value::Null => format!("spec.selector loses {}: every pod gets traffic", keys::TRAFFIC),
        _ => format!("spec.selector gains {}: \"yes\": labels decide about traffic", keys::TRAFFIC),
    };
    let dry = if dry_run { " (dry run: nothing is stored)" } else { "" };
    Ok(said(format!("service/{name}: {what}{dry}\n")))
}

fn said(data: String) -> PluginOutput {
    PluginOutput { data, ..PluginOutput::default() }
}

fn refused(why: String) -> Exit {
    Exit::Failed(anyhow::Error::msg(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_that_no_controller_has_seen_or_that_rehearses_is_not_ready() {
        let ready = json!({"type": "Ready", "status": "True"});
        let seen = |conditions: Value, generation: u32| json!({"metadata": {"generation": 2}, "status": {"observedGeneration": generation, "conditions": conditions}});
        assert_eq!(not_ready(&seen(json!([ready]), 2)), None);
        assert!(not_ready(&seen(json!([ready]), 1)).unwrap().contains("has not seen"));
        assert!(not_ready(&json!({"metadata": {"generation": 1}})).unwrap().contains("is it running"));
        let dry = json!([ready, {"type": "DryRun", "status": "True"}]);
        assert!(not_ready(&seen(dry, 2)).unwrap().contains("dry run"));
        let no =
            json!([{"type": "Ready", "status": "False", "reason": "x", "message": "3 pods are not claimed"}]);
        assert_eq!(not_ready(&seen(no, 2)).as_deref(), Some("3 pods are not claimed"));
    }
}
