//! The CustomResourceDefinition, made from the table of fields, so that the API server refuses at admission what the
//! controller would refuse later.
//!
//! No field is nullable: clients of 2018 send `null` for a field that is left out, and the API server drops such a null
//! before it applies defaults. `""` also means "left out" in an optional field. Only `spec.defaultActivator` has
//! defaults in the schema: a default inside a breaker would take the place of the inherited value.

mod rules;
mod schema;
mod status;

use serde_json::{Value, json};

use super::{API_VERSION, KIND};

/// The plural, which is also the first part of the definition's name.
const PLURAL: &str = "kubervisorservices";
/// Groups that end in `.k8s.io` are protected: the API server requires this annotation for them.
const APPROVAL: &str = "unapproved, compatible with existing KubervisorService manifests";

/// The definition as a JSON object.
pub fn definition() -> Value {
    let (group, version) = API_VERSION.split_once('/').unwrap_or((API_VERSION, ""));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{PLURAL}.{group}"),
            "annotations": {"api-approved.kubernetes.io": APPROVAL},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": format!("{KIND}List"),
                "plural": PLURAL,
                "singular": KIND.to_lowercase(),
                "shortNames": ["kvs", "rdc"],
                "categories": ["all"],
            },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema::resource()},
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns(),
            }],
        },
    })
}

/// Columns of `kubectl get kvs`; those with priority 1 only with `-o wide`.
fn columns() -> Value {
    let condition = |kind: &str, member: &str| format!(".status.conditions[?(@.type==\"{kind}\")].{member}");
    let column = |name: &str, kind: &str, path: String, wide: u8| json!({"name": name, "type": kind, "jsonPath": path, "priority": wide});
    let count =
        |name: &str, member: &str, wide| column(name, "integer", format!(".status.podCount.{member}"), wide);
    json!([
        column("Ready", "string", condition("Ready", "status"), 0),
        column("Serving", "integer", ".status.serving".to_owned(), 0),
        count("Withheld", "nbPodsBreaked", 0),
        count("Paused", "nbPodsPaused", 0),
        column("Floor", "integer", ".status.floor".to_owned(), 0),
        column("Message", "string", condition("Ready", "message"), 0),
        column("Age", "date", ".metadata.creationTimestamp".to_owned(), 0),
        column("Service", "string", ".spec.service".to_owned(), 1),
        column("Gating", "string", condition("Gating", "status"), 1),
        column("Data", "string", condition("DataAvailable", "status"), 1),
        column("Panic", "string", condition("Panic", "status"), 1),
        column("DryRun", "string", condition("DryRun", "status"), 1),
        count("Managed", "nbPodsManaged", 1),
        count("Unknown", "nbPodsUnknown", 1),
        column("Owner", "string", ".status.owner.member".to_owned(), 1),
    ])
}

/// The definition as the YAML of the file in `crds/`.
///
/// # Errors
/// When it cannot be written as YAML, which is a bug.
pub fn yaml() -> Result<String, serde_saphyr::ser_error::Error> {
    let text = serde_saphyr::to_string(&definition())?;
    Ok(format!(
        "# Made by `kubervisor crd` from src/api/fields/table.rs: edit there, then `make crd`.\n{text}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schema of the definition with its path.
    fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
        visit(path, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(property, &format!("{path}.{name}"), visit);
        }
        for items in ["items", "additionalProperties"] {
            if schema[items].is_object() {
                walk(&schema[items], &format!("{path}[]"), visit);
            }
        }
    }

    fn root() -> Value {
        definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    #[test]
    fn nothing_is_nullable_and_everything_has_a_bound() {
        let mut seen = 0;
        walk(&root(), "", &mut |path, schema| {
            seen += 1;
            assert!(schema.get("nullable").is_none(), "{path} is nullable");
            let free = [".apiVersion", ".kind", ".metadata"].contains(&path)
                || schema["format"] == "date-time"
                || schema.get("enum").is_some();
            match schema["type"].as_str() {
                Some("array") => assert!(schema["maxItems"].is_u64(), "{path} has no maxItems"),
                Some("string") if !free => assert!(schema["maxLength"].is_u64(), "{path} has no maxLength"),
                _ => {}
            }
        });
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn only_the_default_activator_has_defaults() {
        let mut defaults = Vec::new();
        walk(&root(), "", &mut |path, schema| {
            if let Some(default) = schema.get("default") {
                defaults.push(format!("{path} = {default}"));
            }
        });
        assert_eq!(
            defaults,
            [
                ".spec.defaultActivator = {}",
                ".spec.defaultActivator.maxPauseCount = 1",
                ".spec.defaultActivator.maxRetryCount = 3",
                ".spec.defaultActivator.mode = \"periodic\"",
                ".spec.defaultActivator.period = 10",
            ]
        );
    }

    #[test]
    fn every_rule_says_what_to_write() {
        let mut rules = 0;
        walk(&root(), "", &mut |path, schema| {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                rules += 1;
                let message = rule["message"].as_str().unwrap();
                assert!(message.contains("write"), "{path}: {message}");
            }
        });
        assert!(rules >= 12, "{rules}");
    }
}
