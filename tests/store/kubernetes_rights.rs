//! Rights: the documented ones suffice, as all tests of this store show, and a missing one is named.

use futures::{StreamExt, stream};
use kubervisor::adapters::store::Leadership;
use serde_json::json;

use crate::{
    fixture::{eventually, join, leading, membership},
    kubernetes::Cluster,
    plane::User,
};

const LEASES: &str = "leases";
const MAPS: &str = "configmaps";

/// Those without which a replica cannot lead, or cannot follow the others.
const NEEDED: [(&str, &str); 8] = [
    ("list", LEASES),
    ("watch", LEASES),
    ("create", LEASES),
    ("update", LEASES),
    ("list", MAPS),
    ("watch", MAPS),
    ("create", MAPS),
    ("patch", MAPS),
];

/// The user who has no rights gets the store's in this namespace, but for one.
fn grant(cluster: &Cluster, without: Option<(&str, &str)>) {
    let all: [(&str, &str, &[&str]); 2] = [
        ("coordination.k8s.io", LEASES, &["get", "list", "watch", "create", "update", "delete"]),
        ("", MAPS, &["get", "list", "watch", "create", "patch", "delete"]),
    ];
    let rules = all.map(|(group, resource, verbs)| {
        let verbs = verbs.iter().filter(|verb| without != Some((verb, resource)));
        json!({"apiGroups": [group], "resources": [resource], "verbs": verbs.collect::<Vec<_>>()})
    });
    let (api, metadata) =
        ("rbac.authorization.k8s.io", json!({"name": "store", "namespace": cluster.namespace}));
    let role =
        json!({"apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": metadata, "rules": rules});
    let binding = json!({
        "apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": api, "kind": "Role", "name": "store"},
        "subjects": [{"apiGroup": api, "kind": "User", "name": User::Nobody.name()}],
    });
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [role, binding]}).to_string();
    let done = cluster.plane().kubectl(User::Admin, &["apply", "-f", "-"], &both);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

async fn named_and_given_back(verb: &str, resource: &str) {
    let cluster = Cluster::start().await;
    if verb == "patch" {
        // What exists is patched; the first leader makes it.
        let earlier = join(&cluster.config(), membership("earlier")).await.unwrap();
        leading(&*earlier).await;
        earlier.resign().await;
    }
    grant(&cluster, Some((verb, resource)));
    let config = cluster.config_of(cluster.plane().kubeconfig(User::Nobody));
    let replica = join(&config, membership("a")).await.unwrap();
    let text = replica.complains(&format!("cannot {verb} resource \"{resource}\"")).await;
    assert!(text.contains(&cluster.namespace) && text.contains("rbac.yaml"), "{text}");
    grant(&cluster, None);
    leading(&*replica).await;
    eventually(&format!("no alarm after {verb} {resource} was given back"), || async {
        replica.complaint().is_none()
    })
    .await;
}

#[tokio::test]
async fn an_alarm_names_each_right_that_is_missing_and_given_back_it_is_used() {
    stream::iter(NEEDED)
        .map(|(verb, resource)| named_and_given_back(verb, resource))
        .buffer_unordered(4)
        .for_each(|()| async {})
        .await;
}

#[tokio::test]
async fn a_namespace_without_any_right_is_named_and_nobody_leads() {
    let cluster = Cluster::start().await;
    let config = cluster.config_of(cluster.plane().kubeconfig(User::Nobody));
    let replica = join(&config, membership("a")).await.unwrap();
    let observed = replica.observe();
    let text = replica.complains("the store needs").await;
    assert!(text.contains("nobody") && text.contains(&cluster.namespace), "{text}");
    let refused = replica.load().await.unwrap_err();
    assert_eq!(refused.category(), "unusable");
    assert_eq!(observed.all(), [Leadership::Unknown]);
}

#[tokio::test]
async fn a_namespace_that_does_not_exist_is_named() {
    let mut cluster = Cluster::start().await;
    cluster.namespace = "nowhere".to_owned();
    let replica = join(&cluster.config(), membership("a")).await.unwrap();
    let text = replica.complains("nowhere").await;
    assert!(text.contains("create that namespace"), "{text}");
    assert_eq!(*replica.leadership().borrow(), Leadership::Unknown);
}
