//! The CustomResourceDefinition on a real API server: what it accepts, what it refuses with which message, its columns.

use std::{fs, path::Path, process::Output};

use axum::http::{Request, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::plane::{self, Plane, User};

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn admin(plane: &Plane, arguments: &[&str], input: &str) -> Output {
    plane.kubectl(User::Admin, arguments, input)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Applies the definition with kubectl and waits until it is established.
pub(super) fn install(plane: &Plane) {
    let applied = admin(plane, &["apply", "--server-side", "-f", "-"], &file("crds/kubervisorservices.yaml"));
    assert!(applied.status.success(), "{}", said(&applied));
    let name = "crd/kubervisorservices.kubervisor.k8s.io";
    let waited = admin(plane, &["wait", "--for=condition=Established", name, "--timeout=60s"], "");
    assert!(waited.status.success(), "{}", said(&waited));
}

#[tokio::test]
async fn the_definition_is_established_and_nothing_about_it_is_complained_of() {
    let plane = plane::shared().await;
    install(&plane);
    let got = admin(&plane, &["get", "crd", "kubervisorservices.kubervisor.k8s.io", "-o", "json"], "");
    let definition: Value = serde_json::from_slice(&got.stdout).unwrap();
    let conditions = definition["status"]["conditions"].as_array().unwrap();
    let status =
        |kind: &str| conditions.iter().find(|c| c["type"] == kind).map(|c| c["status"].as_str().unwrap());
    assert_eq!((status("Established"), status("NamesAccepted")), (Some("True"), Some("True")));
    assert_eq!(status("NonStructuralSchema"), None, "{conditions:?}");
    // A protected group without an API approval, as the annotation declares.
    assert_eq!(status("KubernetesAPIApprovalPolicyConformant"), Some("False"));
    assert_eq!(definition["status"]["acceptedNames"]["shortNames"], json!(["kvs", "rdc"]));
}

#[tokio::test]
async fn good_manifests_apply_by_every_name() {
    let plane = plane::shared().await;
    install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "good").await;
    for name in ["smallest.yaml", "among-others.yaml", "everything.yaml", "client-of-2018.json"] {
        let mine = file(&format!("tests/policy/good/{name}"));
        let mine = mine.replace("namespace: shop", &format!("namespace: {namespace}"));
        let mine = mine.replace("\"namespace\": \"shop\"", &format!("\"namespace\": \"{namespace}\""));
        // The Deployment in that file is not complete.
        let mine = mine.split("---\napiVersion: apps/v1").next().unwrap();
        let applied = admin(&plane, &["apply", "-n", &namespace, "-f", "-"], mine);
        assert!(applied.status.success(), "{name}: {}", said(&applied));
    }
    for short in ["kvs", "rdc", "kubervisorservice", "kubervisorservices.kubervisor.k8s.io"] {
        let listed = admin(&plane, &["get", short, "-n", &namespace, "-o", "name"], "");
        assert!(said(&listed).contains("kubervisorservice.kubervisor.k8s.io/shop.web"), "{}", said(&listed));
    }
}

/// A resource with this breaker in flow style, and `rest` in its spec.
fn with(breaker: &str, rest: &str) -> String {
    format!(
        "apiVersion: kubervisor.k8s.io/v1alpha1\nkind: KubervisorService\nmetadata: {{name: web}}\n\
         spec: {{service: web, breakers: [{{name: it, {breaker}}}] {rest}}}\n"
    )
}

const ASKING: &str = "source: a, outlier: {promQL: q, podNamekey: pod}";

/// Each rule: a manifest that breaks only it, and a part of its message.
const RULES: &[(&str, &str, &str)] = &[
    ("timeout: 3", "", "write one of keepalive, outlier, discreteValueOutOfList"),
    ("keepalive: {silentAfter: 9}, outlier: {pointer: /x}", "", "in a breaker of its own"),
    ("keepalive: {silentAfter: 9}, direction: low", "", "direction belongs to continuousValueDeviation"),
    (
        "keepalive: {silentAfter: 9}, auth: {bearerSecret: {name: a, key: b}}",
        "",
        "auth belongs to a detector that asks Prometheus",
    ),
    (
        "auth: {}, outlier: {prometheusService: 'p:1', promQL: q, podNamekey: pod}",
        "",
        "exactly one of bearerSecret and basicSecret",
    ),
    (
        "discreteValueOutOfList: {prometheusService: 'p:1', promQL: q, key: k, podNamekey: pod}",
        "",
        "exactly one of goodValues and badValues",
    ),
    (
        "discreteValueOutOfList: {prometheusService: 'p:1', promQL: q, key: k, podNamekey: pod, \
         goodValues: ['1'], badValues: ['2']}",
        "",
        "exactly one of goodValues and badValues",
    ),
    ("keepalive: {max: 3}", "", "exactly one of silentAfter, and pointer"),
    ("keepalive: {pointer: /x, max: 3, silentAfter: 9}", "", "exactly one of silentAfter, and pointer"),
    ("keepalive: {max: 3, silentAfter: 9}", "", "min and max are for the value at pointer"),
    ("keepalive: {pointer: /x, min: 5, max: 3}", "", "write a min up to max"),
    ("keepalive: {pointer: /x}", "", "at least one schema (anyOf)"),
    ("keepalive: {pointer: /x, max: 3, oneOf: [1]}", "", "must not validate the schema (not)"),
    ("keepalive: {silentAfter: 3, oneOf: [1]}", "", "must not validate the schema (not)"),
    ("keepalive: {pointer: /x, oneOf: []}", "", "should have at least 1 items"),
    ("outlier: {threshold: 3}", "", "exactly one of pointer, customService, and prometheusService"),
    ("outlier: {pointer: /x, promQL: q}", "", "exactly one of pointer, customService, and prometheusService"),
    ("outlier: {promQL: q}", "", "write prometheusService (or the breaker's source), promQL and podNamekey"),
    (
        "outlier: {pointer: /x, customService: a}",
        "",
        "exactly one of pointer, customService, and prometheusService",
    ),
    ("outlier: {promQL: q, podNamekey: pod}", "", "write prometheusService beside promQL, or source"),
    (
        "source: a, outlier: {prometheusService: 'p:1', promQL: q, podNamekey: pod}",
        "",
        "prometheusService stands beside source",
    ),
    (
        "source: a, auth: {bearerSecret: {name: a, key: b}}, outlier: {promQL: q, podNamekey: pod}",
        "",
        "auth stands beside source",
    ),
    (ASKING, ", sources: [{name: a, url: 'ftp://x'}]", "should match"),
    (ASKING, ", sources: [{name: a, url: 'p:1'}, {name: a, url: 'p:2'}]", "Duplicate value"),
    (
        ASKING,
        ", sources: [{name: a, url: 'p:1', auth: {}}]",
        "exactly one of bearer, basic, oauth2 and sigV4",
    ),
    (
        ASKING,
        ", sources: [{name: a, url: 'p:1', auth: {bearer: {secret: one, configMap: two, key: k}}}]",
        "exactly one of secret and configMap",
    ),
    (
        ASKING,
        ", sources: [{name: a, url: 'p:1', tls: {key: {secret: one, key: k}}}]",
        "a client's certificate needs its key",
    ),
    (ASKING, ", sources: [{name: a, url: 'p:1', headers: [{name: X}]}]", "exactly one of value and from"),
    (
        ASKING,
        ", sources: [{name: a, url: 'p:1', auth: {bearer: {file: /x}}}]",
        "unknown field \"spec.sources[0].auth.bearer.file\"",
    ),
    ("outlier: {pointer: /x, consecutive: {of: 3, bad: 4}}", "", "write a bad up to of"),
    ("outlier: {pointer: /x, consecutive: {bad: 6}}", "", "write a bad up to of"),
    (
        "keepalive: {silentAfter: 9}",
        ", defaultActivator: {period: 9, maxPeriod: 8}",
        "write a longer maxPeriod",
    ),
    ("keepalive: {silentAfter: 9}", ", defaultActivator: {maxPeriod: 8}", "write a longer maxPeriod"),
    ("keepalive: {silentAfter: 9}, activator: {period: 9, maxPeriod: 8}", "", "write a longer maxPeriod"),
    ("keepalive: {silentAfter: 9}, activator: {maxPeriod: 8}", "", "write a period beside it"),
    ("keepalive: {silentAfter: 9}", ", panicThreshold: 101", "less than or equal to 100"),
    ("keepalive: {silentAfter: 9}", ", dryRun: 'true'", "must be of type boolean"),
    ("evaluationPeriod: 0.01, keepalive: {silentAfter: 9}", "", "greater than 0.01"),
    ("evaluationPeriod: 1, keepAlive: {silentAfter: 9}", "", "unknown field \"spec.breakers[0].keepAlive\""),
];

#[tokio::test]
async fn every_rule_refuses_what_breaks_it_and_says_what_to_write() {
    let plane = plane::shared().await;
    install(&plane);
    for (breaker, rest, words) in RULES {
        let made = admin(&plane, &["create", "--dry-run=server", "-f", "-"], &with(breaker, rest));
        assert!(!made.status.success(), "{breaker} {rest}: taken");
        assert!(said(&made).contains(words), "{breaker} {rest}: {}", said(&made));
    }
    let long = with("keepalive: {silentAfter: 9}", "")
        .replace("{name: web}", &format!("{{name: {}}}", "a".repeat(64)));
    let made = admin(&plane, &["create", "--dry-run=server", "-f", "-"], &long);
    assert!(said(&made).contains("a name of at most 63 characters"), "{}", said(&made));
    // A valid one is accepted, so the refusals are due to the rules.
    let right =
        admin(&plane, &["create", "--dry-run=server", "-f", "-"], &with("keepalive: {silentAfter: 9}", ""));
    assert!(right.status.success(), "{}", said(&right));
}

/// The bad manifests of `kubervisor check`, and a part of the API server's message; empty where only `check` and the
/// controller can find the mistake.
const BAD: &[(&str, &str)] = &[
    ("another-kind.yaml", ""),
    ("another-version.yaml", "no matches for kind"),
    ("broken.json", "unknown field \"spec.breakers[0].keepalive.silentafter\""),
    ("duplicate-names.yaml", "Duplicate value"),
    ("empty.yaml", "no objects passed"),
    ("good-and-bad-values.yaml", "should match"),
    ("lists-for-maps.yaml", "must be of type object"),
    ("missing.yaml", "spec.service: Required value"),
    ("names.yaml", "should match"),
    ("no-breakers.yaml", "should have at least 1 items"),
    ("no-yaml.yaml", "error"),
    ("not-a-map.yaml", "error"),
    ("ranges.yaml", "spec.panicThreshold"),
    ("ratio-of-101.yaml", "less than or equal to 100"),
    // kubectl itself uses the last of two equal keys.
    ("repeated-key.yaml", ""),
    // The workloads in it are not complete.
    ("selector.yaml", "Required value"),
    ("sources.yaml", "unknown field \"spec.sources[0].auth.bearer.file\""),
    ("two-detectors.yaml", "exactly one detector"),
    ("unknown-field.yaml", "unknown field \"spec.breakers[0].minPodsAvailableRation\""),
    ("unquoted-yes-elsewhere.yaml", "cannot unmarshal bool"),
    ("unquoted-yes.yaml", "labels of type string"),
    ("wrong-types.yaml", "must be of type"),
];

#[tokio::test]
async fn bad_manifests_are_refused_by_the_api_server_too() {
    let plane = plane::shared().await;
    install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "bad").await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/bad");
    let manifests = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let manifests = manifests.filter(|path| path.extension().is_some_and(|e| e != "txt"));
    assert_eq!(manifests.count(), BAD.len(), "each has a row here");
    for (name, words) in BAD.iter().filter(|(_, words)| !words.is_empty()) {
        let text = file(&format!("tests/policy/bad/{name}")).replace("  namespace: -x\n", "");
        let applied = admin(&plane, &["apply", "-n", &namespace, "-f", "-"], &text);
        assert!(!applied.status.success(), "{name}: taken: {}", said(&applied));
        assert!(said(&applied).contains(words), "{name}: {}", said(&applied));
    }
}

#[tokio::test]
async fn what_a_client_of_2018_posts_is_taken_and_reads_back_without_nulls() {
    let plane = plane::shared().await;
    install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "typed").await;
    let body = file("tests/policy/good/client-of-2018.json").replace("shop", &namespace);
    let path = format!("/apis/kubervisor.k8s.io/v1alpha1/namespaces/{namespace}/kubervisorservices");
    let request =
        Request::post(&path).header(CONTENT_TYPE, "application/json").body(body.into_bytes()).unwrap();
    let stored: Value = client.request(request).await.unwrap();
    let spec = &stored["spec"];
    assert!(!spec.to_string().contains("null"), "{spec}");
    assert_eq!(spec["breakers"][0]["customService"], "", "what it wrote stays");
    assert_eq!(spec["breakers"][0].get("tolerance"), None, "no default in a breaker");
    assert_eq!(
        spec["defaultActivator"],
        json!({"mode": "", "period": 10, "maxRetryCount": 3, "maxPauseCount": 1})
    );
    // It reads the object, changes a field and replaces the whole object, with status and nulls.
    let mut again = stored.clone();
    again["spec"]["breakers"][0]["minPodsAvailableCount"] = json!(2);
    again["status"] = json!({});
    let request = Request::put(format!("{path}/web")).header(CONTENT_TYPE, "application/json");
    let stored: Value = client.request(request.body(again.to_string().into_bytes()).unwrap()).await.unwrap();
    assert_eq!(stored["metadata"]["generation"], 2);
}

/// A status as the controller writes it, with a member of the ledger that this version does not know.
fn status() -> Value {
    let condition = |kind: &str, status: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": kind, "message": message, "observedGeneration": 1,
            "lastProbeTime": "2026-01-02T03:04:05Z", "lastTransitionTime": "2026-01-02T03:04:05Z",
        })
    };
    json!({
        "conditions": [condition("Ready", "True", "3 pods are looked after"), condition("Gating", "False", "watched only")],
        "startTime": "2026-01-02T03:04:05Z",
        "podCount": {"nbPodsManaged": 31, "nbPodsBreaked": 32, "nbPodsPaused": 33, "nbPodsUnknown": 34},
        "observedGeneration": 9_007_199_254_740_993_i64,
        "floor": 35, "serving": 30,
        "selector": {"app": "web"},
        "ledger": {"schema": 1, "uid": "u", "epoch": "ab", "serial": 7, "entries": {"p": {"later": true}}},
        "explanations": [{"name": "web-1", "decision": "withheld", "since": "2026-01-02T03:04:05Z"}],
    })
}

#[tokio::test]
async fn a_status_is_kept_whole_and_kubectl_shows_it_in_columns() {
    let plane = plane::shared().await;
    install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "columns").await;
    let n = namespace.as_str();
    let made = admin(&plane, &["apply", "-n", n, "-f", "-"], &with("keepalive: {silentAfter: 9}", ""));
    assert!(made.status.success(), "{}", said(&made));
    // As the controller's user, which may only write the status.
    let controller = plane.client(User::Kubervisor).await;
    let path = format!("/apis/kubervisor.k8s.io/v1alpha1/namespaces/{n}/kubervisorservices/web");
    let get = Request::get(&path).body(Vec::new()).unwrap();
    let mut resource: Value = controller.request(get).await.unwrap();
    resource["status"] = status();
    let put = |path: &str, resource: &Value| {
        let request = Request::put(path).header(CONTENT_TYPE, "application/json");
        request.body(resource.to_string().into_bytes()).unwrap()
    };
    let stored: Value = controller.request(put(&format!("{path}/status"), &resource)).await.unwrap();
    assert_eq!(stored["status"], status(), "nothing of it is pruned or rounded");
    controller.request::<Value>(put(&path, &stored)).await.expect_err("it may not write the rest");
    let waited = admin(&plane, &["wait", "kvs/web", "-n", n, "--for=condition=Ready", "--timeout=30s"], "");
    assert!(waited.status.success(), "{}", said(&waited));
    let table = said(&admin(&plane, &["get", "kvs", "-n", n], ""));
    let mut lines = table.lines();
    let names: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(names, ["NAME", "READY", "SERVING", "WITHHELD", "PAUSED", "FLOOR", "MESSAGE", "AGE"]);
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row[..6], ["web", "True", "30", "32", "33", "35"], "{table}");
    assert!(table.contains("3 pods are looked after"), "{table}");
    let wide = said(&admin(&plane, &["get", "rdc", "-n", n, "-o", "wide"], ""));
    for name in ["SERVICE", "GATING", "DATA", "PANIC", "DRYRUN", "MANAGED", "UNKNOWN"] {
        assert!(wide.contains(name), "{wide}");
    }
}

#[tokio::test]
async fn an_unquoted_yes_is_refused_wherever_a_user_writes_it() {
    let plane = plane::shared().await;
    install(&plane);
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n\
                   spec: {ports: [{port: 80}], selector: {app: web, kubervisor/traffic: yes}}\n";
    let label = with("keepalive: {silentAfter: 9}", "")
        .replace("{name: web}", "{name: web, labels: {kubervisor/traffic: yes}}");
    for text in [service, &label] {
        let made = admin(&plane, &["create", "--dry-run=server", "-f", "-"], text);
        assert!(!made.status.success() && said(&made).contains("cannot unmarshal bool"), "{}", said(&made));
        let quoted = text.replace(": yes", ": \"yes\"");
        let made = admin(&plane, &["create", "--dry-run=server", "-f", "-"], &quoted);
        assert!(made.status.success(), "{}", said(&made));
    }
}

#[tokio::test]
async fn a_service_whose_name_begins_with_a_digit_is_taken_as_the_api_server_takes_it() {
    let plane = plane::shared().await;
    install(&plane);
    let client = plane.client(User::Admin).await;
    let namespace = plane.namespace(&client, "digit").await;
    let service = "{apiVersion: v1, kind: Service, metadata: {name: 1web}, \
                   spec: {selector: {app: web, kubervisor/traffic: 'yes'}, ports: [{port: 80}]}}\n---\n";
    let resource = with("keepalive: {silentAfter: 9}", "").replace("web", "1web");
    let applied = admin(
        &plane,
        &["apply", "--dry-run=server", "-n", &namespace, "-f", "-"],
        &format!("{service}{resource}"),
    );
    assert!(applied.status.success(), "{}", said(&applied));
}
