//! A role that lacks a verb: the verb is named, nothing is withheld, and once it is there work goes on by itself.

use serde_json::{Value, json};

use crate::{
    plane::User,
    scene::{Scene, Stage, condition_of},
    shop,
};

/// Everything that a controller of one namespace needs, but for one right.
fn role(without: (&str, &str)) -> Value {
    let reads = ["get", "list", "watch"];
    let all: [(&str, &[&str], &[&str]); 10] = [
        ("", &["pods"], &["get", "list", "watch", "patch"]),
        ("", &["pods/eviction"], &["create"]),
        ("", &["services"], &reads),
        ("", &["secrets"], &["get"]),
        ("discovery.k8s.io", &["endpointslices"], &reads),
        ("apps", &["deployments", "replicasets", "statefulsets"], &reads),
        ("autoscaling", &["horizontalpodautoscalers"], &reads),
        ("kubervisor.k8s.io", &["kubervisorservices"], &["get", "list", "watch", "patch"]),
        ("kubervisor.k8s.io", &["kubervisorservices/status"], &["update"]),
        ("events.k8s.io", &["events"], &["create", "patch"]),
    ];
    let rules = all.map(|(group, resources, verbs)| {
        let allowed = |verb: &&&str| without != (**verb, resources[0]);
        let verbs: Vec<_> = verbs.iter().filter(allowed).collect();
        // A rule without verbs is no rule.
        let verbs = if verbs.is_empty() { json!(["deletecollection"]) } else { json!(verbs) };
        json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
    });
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "controller"},
        "rules": rules,
    })
}

fn binding() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "controller"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "controller"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": User::Nobody.name()}],
    })
}

/// A controller with that role, and one bad pod of three.
async fn limited(hint: &str, without: (&str, &str), activator: Value) -> (Scene, Vec<String>) {
    let stage = Stage::set(hint).await;
    stage.kubectl(
        &["apply", "-f", "-"],
        &json!({"apiVersion": "v1", "kind": "List", "items": [role(without), binding()]}),
    );
    let recipe =
        shop::Recipe::of("web", 3).breaker("slow", &stage.asks(), 50).spec("defaultActivator", activator);
    let shop = stage.fleet(&recipe).await;
    let kubeconfig = stage.plane.kubeconfig(User::Nobody);
    let controller =
        crate::controller::Recipe::with_kubeconfig(kubeconfig).namespace(&stage.namespace).start();
    let scene = Scene { stage, shop, controller };
    let chosen = scene.names().await[..1].to_vec();
    scene.bad(&chosen);
    (scene, chosen)
}

/// The role is whole from now on.
fn heal(scene: &Scene) {
    scene.stage.kubectl(&["apply", "-f", "-"], &role(("", "")));
}

fn periodic() -> Value {
    json!({"mode": "periodic", "period": 1})
}

#[tokio::test]
async fn who_may_not_patch_pods_says_so_and_goes_on_once_it_may() {
    let (scene, chosen) = limited("patchless", ("patch", "pods"), periodic()).await;
    let told = scene.until_condition("Forbidden", "True").await;
    assert!(told.message.contains("may not patch pods"), "{told:?}");
    assert_eq!(scene.until_condition("Ready", "False").await.reason, "RoleLacksVerb");
    heal(&scene);
    scene.until_withheld(&chosen).await;
    scene.until_condition("Ready", "True").await;
    assert_eq!(condition_of(&scene.shop, "Forbidden").await, None);
}

#[tokio::test]
async fn who_may_not_evict_says_so_and_the_pod_stays_withheld_until_it_may() {
    let activator = json!({"mode": "retryAndKill", "period": 0.5, "maxRetryCount": 0});
    let (scene, chosen) = limited("evictionless", ("create", "pods/eviction"), activator).await;
    scene.until_withheld(&chosen).await;
    let told = scene.until_condition("Forbidden", "True").await;
    assert!(told.message.contains("may not create pods/eviction"), "{told:?}");
    assert_eq!(scene.those("no").await, chosen);
    heal(&scene);
    scene.until("it is killed", async || !scene.names().await.contains(&chosen[0])).await;
}

#[tokio::test]
async fn who_may_not_store_the_ledger_is_not_ready_and_withholds_nobody() {
    let (scene, chosen) = limited("statusless", ("update", "kubervisorservices/status"), periodic()).await;
    let unready = async || {
        let (code, text) = scene.controller.get("/ready").await.unwrap_or_default();
        code == 503 && text.contains("update kubervisorservices/status")
    };
    scene.until("it is not ready, and says why", unready).await;
    scene.throughout(4, "nobody is cut", async || scene.those("no").await.is_empty()).await;
    heal(&scene);
    scene.until_withheld(&chosen).await;
    scene.controller.ready().await;
}
