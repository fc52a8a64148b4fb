//! What the chart says about itself is what it is.

use std::fs;

use serde_json::Value;

use crate::helm::{chart, of_kind, rendered, root};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A row for each value: `path`, default, description.
fn rows(schema: &Value, default: &Value, path: &str, rows: &mut Vec<String>) {
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if inner["properties"].is_object() {
            self::rows(inner, &default[key], &path, rows);
        } else if path != "global" {
            let text = inner["description"].as_str().unwrap_or_else(|| panic!("{path} has no description"));
            rows.push(format!("| `{path}` | `{}` | {text} |", default[key]));
        }
    }
}

/// `UPDATE_DOCS=1 cargo test --test chart documented` writes it anew.
#[test]
fn the_table_of_values_is_made_from_the_schema_and_the_defaults() {
    let schema: Value = serde_json::from_str(&read("charts/kubervisor/values.schema.json")).unwrap();
    let defaults: Value = serde_saphyr::from_str(&read("charts/kubervisor/values.yaml")).unwrap();
    let mut table = vec!["| value | default | meaning |".to_owned(), "|---|---|---|".to_owned()];
    rows(&schema, &defaults, "", &mut table);
    let path = chart().join("README.md");
    let kept = fs::read_to_string(&path).unwrap();
    let (start, rest) = kept.split_once("<!-- values -->\n").unwrap();
    let (_, end) = rest.split_once("<!-- end of values -->").unwrap();
    let made = format!("{start}<!-- values -->\n{}\n<!-- end of values -->{end}", table.join("\n"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == made,
        "run UPDATE_DOCS=1 cargo test --test chart documented"
    );
}

#[test]
fn every_part_of_the_schema_refuses_unknown_keys_or_is_kubernetes_own() {
    fn check(schema: &Value, path: &str) {
        if schema["properties"].is_object() {
            assert_eq!(schema["additionalProperties"], false, "{path}");
        }
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            check(inner, &format!("{path}.{key}"));
        }
    }
    check(&serde_json::from_str(&read("charts/kubervisor/values.schema.json")).unwrap(), "");
}

#[test]
fn the_files_of_the_chart_are_those_of_the_repository() {
    for (inside, outside) in [
        ("files/kubervisorservices.yaml", "crds/kubervisorservices.yaml"),
        ("files/admission.yaml", "examples/kubernetes/admission.yaml"),
    ] {
        let inside = format!("charts/kubervisor/{inside}");
        if std::env::var_os("UPDATE").is_some() {
            fs::copy(root().join(outside), root().join(&inside)).unwrap();
        }
        assert!(read(&inside) == read(outside), "{inside} differs from {outside}: run make crd");
    }
    let manifest = read("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
    let chart: Value = serde_saphyr::from_str(&read("charts/kubervisor/Chart.yaml")).unwrap();
    assert_eq!(
        format!("{:?}", chart["appVersion"].as_str().unwrap()),
        version,
        "appVersion is that of Cargo.toml"
    );
}

/// The rules of the first role in the text.
fn rules(objects: &[Value], kind: &str, name: &str) -> Value {
    let mut found = of_kind(objects, kind).into_iter().filter(|role| role["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))["rules"].clone()
}

#[test]
fn the_rights_are_those_of_the_example_at_both_scopes() {
    let example: Vec<Value> = crate::helm::objects(&read("examples/kubernetes/rbac.yaml"));
    let wanted = rules(&example, "ClusterRole", "kubervisor");
    let store = rules(&example, "Role", "kubervisor-store");
    let cluster = rendered(&[]);
    assert_eq!(rules(&cluster, "ClusterRole", "kubervisor"), wanted);
    assert_eq!(rules(&cluster, "Role", "kubervisor-store"), store);
    let listed = rendered(&["namespaces=[\"shop\",\"bank\"]"]);
    for namespace in ["shop", "bank"] {
        let role =
            of_kind(&listed, "Role").into_iter().find(|role| role["metadata"]["namespace"] == namespace);
        assert_eq!(role.unwrap()["rules"], wanted, "{namespace}");
    }
    let cluster_wide = ["ClusterRole", "ClusterRoleBinding"].map(|kind| of_kind(&listed, kind).len());
    assert_eq!(cluster_wide, [0, 0], "a list of namespaces needs Roles only");
}

#[test]
fn every_flag_of_the_controller_is_a_value() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_kubervisor"));
    let mut help = help;
    let help = String::from_utf8(help.args(["controller", "--help"]).output().unwrap().stdout).unwrap();
    let variables = help.split("[env: ").skip(1).map(|rest| rest.split(['=', ']']).next().unwrap());
    // A pod has its service account.
    let variables: Vec<&str> =
        variables.filter(|name| !["KUBERVISOR_KUBECONFIG", "KUBERVISOR_MASTER"].contains(name)).collect();
    assert!(variables.len() > 7, "{help}");
    let templates = read("charts/kubervisor/templates/_helpers.tpl")
        + &read("charts/kubervisor/templates/deployment.yaml")
        + &read("charts/kubervisor/templates/release.yaml");
    for variable in variables {
        assert!(templates.contains(&format!("name: {variable},")), "no value sets {variable}");
    }
}
