//! Each rendering of a covering set of values is accepted by a real API server, in a dry run.

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::{Value, json};

use crate::{
    helm::{EXTENSIONS, chart, of_kind, rendered, run, text},
    plane::{self, Plane, Shared, User},
    shop,
};

/// The settings of each question; the first one is the default.
const FACTORS: [&[&[&str]]; 16] = [
    &[&[], &["namespaces=[\"chart-a\"]"], &["namespaces=[\"chart-a\",\"chart-b\"]"]],
    &[&[], &["dryRun=true"]],
    &[
        &[],
        &["replicaCount=1", "podDisruptionBudget.enabled=false"],
        &["replicaCount=5", "podDisruptionBudget.minAvailable=3"],
    ],
    &[
        &[],
        &["metrics.serviceMonitor.enabled=true"],
        &["metrics.podMonitor.enabled=true", "metrics.service.enabled=false"],
    ],
    &[&[], &["metrics.prometheusRule.enabled=true", "metrics.prometheusRule.labels={\"release\":\"prom\"}"]],
    &[&[], &["grafana.dashboards.enabled=true", "grafana.dashboards.folder=\"Traffic\""]],
    &[
        &[],
        &["keepalives.enabled=true", "keepalives.etcd=\"etcd:2379\""],
        &["keepalives.enabled=true", "keepalives.service.type=\"None\""],
    ],
    &[
        &[],
        &["sources.config={\"sources\":[]}", "sources.secrets=[\"login\"]"],
        &["sources.existingConfigMap=\"ours\""],
    ],
    &[
        &[],
        &["networkPolicy.enabled=true"],
        &["networkPolicy.enabled=true", "networkPolicy.metricsFrom=[{\"podSelector\":{}}]"],
    ],
    &[
        &[],
        &["serviceAccount.create=false", "serviceAccount.name=\"ours\""],
        &["serviceAccount.annotations={\"a\":\"b\"}"],
    ],
    &[&[], &["release.enabled=false"]],
    &[
        &[],
        &["view.enabled=true", "view.tlsSecret=\"view-tls\"", "view.hosts=[\"view.example.org\"]"],
        &["view.enabled=true", "view.behindProxy=true", "requestsChecked=true"],
    ],
    &[&[], &["crds.install=false"]],
    &[&[], &["admissionPolicy.enabled=true"]],
    &[
        &[],
        &[
            "image.digest=\"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"",
            "imagePullSecrets=[{\"name\":\"registry\"}]",
            "podAnnotations={\"a\":\"b\"}",
            "podLabels={\"c\":\"d\"}",
            "commonLabels={\"e\":\"f\"}",
            "nodeSelector={\"kubernetes.io/os\":\"linux\"}",
            "tolerations=[{\"operator\":\"Exists\"}]",
            "affinity={\"nodeAffinity\":{}}",
            "priorityClassName=\"system-cluster-critical\"",
        ],
    ],
    &[
        &[],
        &[
            "fullnameOverride=\"gate\"",
            "debug=true",
            "logFormat=\"json\"",
            "extraArgs=[\"--debug\"]",
            "extraEnv=[{\"name\":\"RUST_LOG\",\"value\":\"info\"}]",
            "extraVolumes=[{\"name\":\"more\",\"emptyDir\":{}}]",
            "extraVolumeMounts=[{\"name\":\"more\",\"mountPath\":\"/more\"}]",
            "topologySpreadConstraints.enabled=false",
            "rbac.userRoles=false",
        ],
    ],
];

/// Rows that together have every pair of settings of two factors.
fn covering() -> Vec<Vec<usize>> {
    let mut open: BTreeSet<(usize, usize, usize, usize)> = BTreeSet::new();
    for (a, first) in FACTORS.iter().enumerate() {
        for (b, second) in FACTORS.iter().enumerate().skip(a + 1) {
            open.extend((0..first.len()).flat_map(|x| (0..second.len()).map(move |y| (a, x, b, y))));
        }
    }
    let mut rows = Vec::new();
    while let Some((a, x, b, y)) = open.first().copied() {
        let mut row: Vec<Option<usize>> = vec![None; FACTORS.len()];
        (row[a], row[b]) = (Some(x), Some(y));
        for factor in 0..FACTORS.len() {
            if row[factor].is_none() {
                let gain = |setting: usize| {
                    let pairs =
                        row.iter().enumerate().filter_map(|(other, chosen)| Some((other, (*chosen)?)));
                    let pair = |(other, chosen)| {
                        if other < factor {
                            (other, chosen, factor, setting)
                        } else {
                            (factor, setting, other, chosen)
                        }
                    };
                    pairs.filter(|found| open.contains(&pair(*found))).count()
                };
                row[factor] =
                    (0..FACTORS[factor].len()).max_by_key(|setting| (gain(*setting), usize::MAX - setting));
            }
        }
        let row: Vec<usize> = row.into_iter().flatten().collect();
        open.retain(|(a, x, b, y)| row[*a] != *x || row[*b] != *y);
        rows.push(row);
    }
    rows
}

#[test]
fn the_rows_have_every_pair_of_settings() {
    let rows = covering();
    for (a, first) in FACTORS.iter().enumerate() {
        for (b, second) in FACTORS.iter().enumerate().skip(a + 1) {
            for (x, y) in (0..first.len()).flat_map(|x| (0..second.len()).map(move |y| (x, y))) {
                assert!(rows.iter().any(|row| row[a] == x && row[b] == y), "{:?} {:?}", first[x], second[y]);
            }
        }
    }
    assert!(rows.len() < 30, "{} rows", rows.len());
}

/// A plane with our definition, the namespaces of [`FACTORS`] and the Prometheus Operator's kinds. Their schemas are not
/// to be had here: these accept any spec.
async fn prepared() -> Shared {
    let plane = plane::shared().await;
    static PREPARED: std::sync::Once = std::sync::Once::new();
    PREPARED.call_once(|| {
        shop::install(&plane);
        let mut all = String::new();
        for name in ["kubervisor-system", "chart-a", "chart-b"] {
            writeln!(
                all,
                "---\n{}",
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            )
            .unwrap();
        }
        for kind in ["ServiceMonitor", "PodMonitor", "PrometheusRule"] {
            writeln!(all, "---\n{}", definition(kind)).unwrap();
        }
        kubectl(&plane, &["apply", "-f", "-"], &all);
        for kind in ["servicemonitors", "podmonitors", "prometheusrules"] {
            let name = format!("crd/{kind}.monitoring.coreos.com");
            kubectl(&plane, &["wait", "--for=condition=Established", &name, "--timeout=60s"], "");
        }
    });
    plane
}

fn definition(kind: &str) -> Value {
    let (single, plural) = (kind.to_lowercase(), format!("{}s", kind.to_lowercase()));
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": single, "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

#[track_caller]
fn kubectl(plane: &Plane, arguments: &[&str], input: &str) -> String {
    let done = plane.kubectl(User::Admin, arguments, input);
    assert!(done.status.success(), "{arguments:?}: {}\n{input}", String::from_utf8_lossy(&done.stderr));
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

#[tokio::test]
async fn every_pair_of_values_renders_what_the_api_server_accepts_without_a_warning() {
    let plane = prepared().await;
    for row in covering() {
        let values: Vec<&str> =
            row.iter().enumerate().flat_map(|(factor, at)| FACTORS[factor][*at]).copied().collect();
        let made = text(&values, &EXTENSIONS).unwrap_or_else(|said| panic!("{values:?}: {said}"));
        let said = kubectl(&plane, &["apply", "--dry-run=server", "--validate=strict", "-f", "-"], &made);
        let said =
            said.replace("missing the kubectl.kubernetes.io/last-applied-configuration annotation", "");
        let warned = said.lines().find(|line| line.starts_with("Warning:") && !line.contains("resource "));
        assert_eq!(warned, None, "{values:?}");
    }
}

/// What each pod that the chart makes would be, with these values: controller, release, check.
fn pods(values: &[&str]) -> Vec<Value> {
    let objects = rendered(values);
    let mut specs: Vec<Value> =
        of_kind(&objects, "Pod").into_iter().map(|object| object["spec"].clone()).collect();
    for kind in ["Deployment", "Job"] {
        let of_kind = of_kind(&objects, kind).into_iter();
        specs.extend(of_kind.map(|object| object["spec"]["template"]["spec"].clone()));
    }
    assert_eq!(specs.len(), 3);
    let name = |number: usize| json!({"name": format!("pod-{number}")});
    let pod =
        |(number, spec)| json!({"apiVersion": "v1", "kind": "Pod", "metadata": name(number), "spec": spec});
    specs.into_iter().enumerate().map(pod).collect()
}

/// Whether the API server would take the pod there, and its words.
fn admitted(plane: &Plane, namespace: &str, pod: &Value) -> Result<(), String> {
    let create = ["create", "-n", namespace, "--dry-run=server", "-f", "-"];
    let done = plane.kubectl(User::Admin, &create, &pod.to_string());
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

#[tokio::test]
async fn all_pods_of_the_chart_are_admitted_where_pod_security_restricted_is_enforced() {
    let plane = prepared().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "chart-restricted", "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
    }});
    kubectl(&plane, &["apply", "-f", "-"], &namespace.to_string());
    let pods =
        pods(&["keepalives.enabled=true", "keepalives.etcd=\"e:1\"", "sources.existingConfigMap=\"s\""]);
    for pod in &pods {
        assert_eq!(admitted(&plane, "chart-restricted", pod), Ok(()));
    }
    let mut wrong = pods[0].clone();
    wrong["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    let refused = admitted(&plane, "chart-restricted", &wrong).unwrap_err();
    assert!(refused.contains("restricted"), "it is enforced: {refused}");
}

#[tokio::test]
async fn a_quota_on_limits_is_met_by_the_value_that_the_refusal_names() {
    let plane = prepared().await;
    kubectl(&plane, &["create", "namespace", "chart-quota"], "");
    let hard =
        json!({"limits.cpu": "4", "limits.memory": "4Gi", "requests.cpu": "4", "requests.memory": "4Gi"});
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "all", "namespace": "chart-quota"},
        "spec": {"hard": hard}});
    kubectl(&plane, &["apply", "-f", "-"], &quota.to_string());
    // No controller of this plane counts what is used.
    let used = json!({"limits.cpu": "0", "limits.memory": "0", "requests.cpu": "0", "requests.memory": "0"});
    let counted = json!({"status": {"hard": hard, "used": used}}).to_string();
    kubectl(
        &plane,
        &[
            "patch",
            "quota",
            "all",
            "-n",
            "chart-quota",
            "--subresource=status",
            "--type=merge",
            "-p",
            &counted,
        ],
        "",
    );
    for pod in pods(&[]) {
        let refused = admitted(&plane, "chart-quota", &pod).unwrap_err();
        assert!(refused.contains("must specify limits.cpu"), "{refused}");
    }
    for pod in pods(&["resources.limits.cpu=\"1\""]) {
        assert_eq!(admitted(&plane, "chart-quota", &pod), Ok(()));
    }
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    let done = run(crate::helm::program(), &["lint", "--strict", &chart().display().to_string()], None);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

#[tokio::test]
async fn the_plain_manifest_is_accepted_too() {
    let plane = prepared().await;
    let made = std::process::Command::new(crate::helm::root().join("scripts/manifest")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made = String::from_utf8(made.stdout).unwrap();
    assert!(!made.contains("helm.sh/hook"), "kubectl knows no hooks");
    // In a dry run the namespace is not made, so its objects go into one that is there.
    let made = made.replace("namespace: kubervisor\n", "namespace: kubervisor-system\n");
    kubectl(&plane, &["apply", "--dry-run=server", "--validate=strict", "-f", "-"], &made);
}
