//! KubervisorServices in plain columns, as kubectl prints them, for people and for scripts.

use comfy_table::presets::NOTHING;
use serde_json::Value;

use super::fields;
use crate::{decide::time::Timestamp, roles::output};

/// The original's columns, and the pods that serve.
const NARROW: [&str; 7] = ["NAME", "NAMESPACE", "STATUS", "MANAGED", "BREAKED", "PAUSED", "SERVING"];
/// Added by `-o wide`.
const WIDE: [&str; 8] = ["UNKNOWN", "FLOOR", "SERVICE", "GATING", "DATA", "PANIC", "DRYRUN", "AGE"];

pub(super) fn narrow(resources: &[Value]) -> String {
    columns(&NARROW, resources.iter().map(narrow_row))
}

pub(super) fn wide(resources: &[Value], now: Timestamp) -> String {
    let header = [NARROW.as_slice(), WIDE.as_slice()].concat();
    columns(
        &header,
        resources.iter().map(|resource| [narrow_row(resource), wide_row(resource, now)].concat()),
    )
}

/// A line as `kubectl get -o name` writes it.
pub(super) fn name(resource: &Value) -> String {
    format!("kubervisorservice.kubervisor.k8s.io/{}\n", fields::cell(resource, "/metadata/name"))
}

fn narrow_row(resource: &Value) -> Vec<String> {
    let cell = |pointer| fields::cell(resource, pointer);
    vec![
        cell("/metadata/name"),
        cell("/metadata/namespace"),
        fields::status(resource),
        cell("/status/podCount/nbPodsManaged"),
        cell("/status/podCount/nbPodsBreaked"),
        cell("/status/podCount/nbPodsPaused"),
        cell("/status/serving"),
    ]
}

fn wide_row(resource: &Value, now: Timestamp) -> Vec<String> {
    let cell = |pointer| fields::cell(resource, pointer);
    let condition = |kind| match fields::condition(resource, kind) {
        Some(condition) => fields::cell(condition, "/status"),
        None => fields::NONE.into(),
    };
    let since = fields::time(&resource["metadata"]["creationTimestamp"]);
    vec![
        cell("/status/podCount/nbPodsUnknown"),
        cell("/status/floor"),
        cell("/spec/service"),
        condition("Gating"),
        condition("DataAvailable"),
        condition("Panic"),
        condition("DryRun"),
        since.map_or_else(|| fields::NONE.into(), |since| fields::age(since, now)),
    ]
}

fn columns(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = output::table(NOTHING, header, rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_plain_and_aligned() {
        let ready = json!({ "type": "Ready", "status": "False", "reason": "ServiceMissing" });
        let web = json!({
            "metadata": { "name": "web", "namespace": "shop", "creationTimestamp": "1970-01-01T00:00:00Z" },
            "spec": { "service": "front" },
            "status": { "conditions": [ready], "floor": 3, "serving": 4, "podCount": { "nbPodsManaged": 5, "nbPodsBreaked": 1 } },
        });
        let new = json!({ "metadata": { "name": "new-one", "namespace": "shop" } });
        assert_eq!(
            narrow(&[web.clone(), new]),
            "NAME      NAMESPACE   STATUS                     MANAGED   BREAKED   PAUSED   SERVING\n\
             web       shop        NotReady: ServiceMissing   5         1         <none>   4\n\
             new-one   shop        Unknown                    <none>    <none>    <none>   <none>\n"
        );
        let wide = wide(std::slice::from_ref(&web), Timestamp::from_unix_millis(5000));
        let row = wide.lines().nth(1).unwrap();
        assert!(row.ends_with("5s") && row.contains("   3       front"), "{wide}");
        assert_eq!(name(&web), "kubervisorservice.kubervisor.k8s.io/web\n");
    }
}
