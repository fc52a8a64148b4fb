//! What the rendered objects are by default, and how they fit each other.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};

use crate::helm::{chart, of_kind, rendered};

/// The one object of this kind.
#[track_caller]
fn one<'v>(objects: &'v [Value], kind: &str) -> &'v Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

/// Whether a selector's labels are all among these.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().unwrap().iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[test]
fn the_defaults_are_two_replicas_with_a_budget_a_spread_probes_and_the_measured_resources() {
    let objects = rendered(&[]);
    let deployment = &one(&objects, "Deployment")["spec"];
    assert_eq!(deployment["replicas"], 2);
    assert_eq!(deployment["strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 0}));
    let pod = &deployment["template"]["spec"];
    let container = &pod["containers"][0];
    for (probe, path) in [("livenessProbe", "/live"), ("readinessProbe", "/ready")] {
        assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "metrics"}));
    }
    let resources = json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}});
    assert_eq!(container["resources"], resources);
    assert_eq!(pod["topologySpreadConstraints"][0]["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(one(&objects, "PodDisruptionBudget")["spec"]["minAvailable"], 1);
}

#[test]
fn nothing_is_made_that_writes_to_other_peoples_pods_unless_it_is_asked_for() {
    let made = |values: &[&str]| -> BTreeSet<String> {
        rendered(values).iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect()
    };
    let kinds = [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "Deployment",
        "Job",
        "Pod",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    ];
    assert_eq!(made(&[]), kinds.map(str::to_owned).into());
    assert_eq!(made(&["keepalives.enabled=true"]), made(&[]), "an agent is a sidecar that its user writes");
    let admission = ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"].map(str::to_owned);
    let more = &made(&["admissionPolicy.enabled=true"]) - &made(&[]);
    assert_eq!(more, admission.into());
}

#[test]
fn every_selector_finds_the_controllers_and_no_pod_of_a_hook() {
    let objects = rendered(&[
        "keepalives.enabled=true",
        "view.enabled=true",
        "view.behindProxy=true",
        "networkPolicy.enabled=true",
        "metrics.podMonitor.enabled=true",
        "commonLabels={\"team\":\"a\"}",
    ]);
    let template = &one(&objects, "Deployment")["spec"]["template"];
    let hooks = [
        &one(&objects, "Pod")["metadata"]["labels"],
        &one(&objects, "Job")["spec"]["template"]["metadata"]["labels"],
    ];
    let ports: Vec<&Value> = template["spec"]["containers"][0]["ports"].as_array().unwrap().iter().collect();
    let is_port = |name: &Value| ports.iter().any(|port| port["name"] == *name);
    let services = of_kind(&objects, "Service");
    assert_eq!(services.len(), 3, "metrics, keepalives and view");
    let mut selectors: Vec<&Value> = services.iter().map(|service| &service["spec"]["selector"]).collect();
    for port in services.iter().flat_map(|service| service["spec"]["ports"].as_array().unwrap()) {
        assert!(is_port(&port["targetPort"]), "{port}");
    }
    for (kind, path) in [
        ("Deployment", "/spec/selector/matchLabels"),
        ("Deployment", "/spec/template/spec/topologySpreadConstraints/0/labelSelector/matchLabels"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "/spec/podSelector/matchLabels"),
        ("PodMonitor", "/spec/selector/matchLabels"),
    ] {
        selectors.push(one(&objects, kind).pointer(path).unwrap());
    }
    for selector in selectors {
        assert!(selects(selector, &template["metadata"]["labels"]), "{selector}");
        assert!(!hooks.iter().any(|labels| selects(selector, labels)), "{selector}");
    }
    for rule in one(&objects, "NetworkPolicy")["spec"]["ingress"].as_array().unwrap() {
        assert!(is_port(&rule["ports"][0]["port"]), "{rule}");
    }
}

#[test]
fn the_service_monitor_selects_the_metrics_service_and_no_other() {
    let objects = rendered(&["keepalives.enabled=true", "metrics.serviceMonitor.enabled=true"]);
    let monitor = &one(&objects, "ServiceMonitor")["spec"];
    let selected: Vec<&Value> = of_kind(&objects, "Service")
        .into_iter()
        .filter(|service| selects(&monitor["selector"]["matchLabels"], &service["metadata"]["labels"]))
        .collect();
    assert_eq!(selected.len(), 1, "{selected:?}");
    assert_eq!(selected[0]["metadata"]["name"], "kubervisor-metrics");
    assert_eq!(monitor["endpoints"][0]["port"], selected[0]["spec"]["ports"][0]["name"]);
}

#[test]
fn alerts_and_dashboard_are_the_files_with_the_links_and_the_folder_of_the_values() {
    let objects = rendered(&[
        "metrics.prometheusRule.enabled=true",
        "metrics.prometheusRule.runbookUrl=\"https://wiki.example.org/kubervisor\"",
        "grafana.dashboards.enabled=true",
        "grafana.dashboards.folder=\"Traffic\"",
        "grafana.dashboards.namespace=\"monitoring\"",
    ]);
    let read = |name: &str| fs::read_to_string(chart().join("files").join(name)).unwrap();
    let alerts = read("alerts.yaml")
        .replace("https://kubervisor.test/runbooks", "https://wiki.example.org/kubervisor");
    assert!(alerts.contains("https://wiki.example.org/kubervisor/"), "the links are values");
    let alerts: Value = serde_saphyr::from_str(&alerts).unwrap();
    assert_eq!(one(&objects, "PrometheusRule")["spec"], alerts);
    let dashboard = one(&objects, "ConfigMap");
    assert_eq!(dashboard["metadata"]["namespace"], "monitoring");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    assert_eq!(dashboard["metadata"]["annotations"]["grafana_folder"], "Traffic");
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let kept = dashboard["data"]["kubervisor.json"].as_str().unwrap();
    assert_eq!(parsed(kept), parsed(&read("dashboard.json")));
}

#[test]
fn the_check_of_helm_test_looks_into_each_namespace_of_the_scope() {
    let scopes = |values: &[&str]| -> Vec<String> {
        let objects = rendered(values);
        let checks = of_kind(&objects, "Pod").into_iter();
        checks
            .map(|pod| {
                assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
                let arguments = pod["spec"]["containers"][0]["args"].as_array().unwrap();
                arguments.last().unwrap().as_str().unwrap().to_owned()
            })
            .collect()
    };
    assert_eq!(scopes(&[]), ["--all-namespaces"]);
    assert_eq!(scopes(&["namespaces=[\"shop\",\"bank\"]"]), ["--namespace=shop", "--namespace=bank"]);
}
