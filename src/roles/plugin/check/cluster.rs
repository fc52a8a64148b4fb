//! Checks of the cluster as a whole: server, definition, rights, Leases.

use futures::{StreamExt, stream};
use kube::api::ListParams;
use serde_json::{Value, json};

use super::{
    CONTROLLER_RIGHTS, CheckResult, ControllerAccount, DEFINITION, DEFINITION_VERSION, INSTALL_RIGHTS,
    LEASES, NOT_OLDER, SERVER,
};
use crate::{
    adapters::kubernetes::untyped::ClusterError,
    api::{self, crd},
    clock::Clock,
    roles::{
        output::list,
        plugin::{args::PluginSession, fields},
    },
};

/// The oldest minor version of Kubernetes 1 whose API server runs the definition's rules.
const OLDEST_MINOR: u32 = 29;
/// Reviews at a time.
const REVIEWS: usize = 8;
/// All rights of the controller.
const RIGHTS: &str = include_str!("../../../../examples/kubernetes/rbac.yaml");
/// The most missing rights, or fields, that a message names.
const NAMED: usize = 8;

pub(super) async fn server(session: &PluginSession) -> CheckResult {
    let subject = &session.cluster.server;
    match session.cluster.get("", "version", "its version").await {
        Err(error) => SERVER.unread(subject, &error),
        Ok(found) => {
            let found = found.unwrap_or_default();
            let minor = found["minor"].as_str().unwrap_or_default();
            let minor: Option<u32> = minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok();
            let old = minor.is_some_and(|minor| minor < OLDEST_MINOR);
            let wrong = format!(
                "it is Kubernetes {}; the definition needs 1.{OLDEST_MINOR} or newer",
                fields::cell(&found, "/gitVersion")
            );
            SERVER.of(subject, old.then_some(wrong))
        }
    }
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

async fn stored_definition(session: &PluginSession) -> Result<Option<Value>, ClusterError> {
    let name = definition_name();
    session.cluster.get(DEFINITIONS, &name, &format!("the definition {name}")).await
}

fn definition_name() -> String {
    let own = crd::definition();
    own["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

pub(super) async fn before_installation(session: &PluginSession) -> Vec<CheckResult> {
    let subject = definition_name();
    let older = match stored_definition(session).await {
        Err(error) => NOT_OLDER.unread(&subject, &error),
        Ok(None) => NOT_OLDER.passed(&subject),
        Ok(Some(found)) => match lacking(&found) {
            lacking if lacking.is_empty() => NOT_OLDER.passed(&subject),
            lacking => NOT_OLDER.warning(&subject, outdated(&lacking)),
        },
    };
    vec![install_rights(session).await, older]
}

async fn install_rights(session: &PluginSession) -> CheckResult {
    let needed = [
        ("apiextensions.k8s.io", "customresourcedefinitions", false),
        ("rbac.authorization.k8s.io", "clusterroles", false),
        ("rbac.authorization.k8s.io", "clusterrolebindings", false),
        ("", "serviceaccounts", true),
        ("apps", "deployments", true),
    ];
    let mut missing = Vec::new();
    for (group, resource, namespaced) in needed {
        let namespace = if namespaced { session.namespace.as_str() } else { "" };
        let asked = json!({"group": group, "resource": resource, "verb": "create", "namespace": namespace});
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        match session.cluster.create(path, &review).await {
            Ok(answer) if answer["status"]["allowed"] == true => {}
            Ok(_) => missing.push(format!("create {resource}")),
            Err(error) => return INSTALL_RIGHTS.unread("you", &error),
        }
    }
    let message = format!("you may not {}; ask an administrator to install it", missing.join(", "));
    INSTALL_RIGHTS.of("you", (!missing.is_empty()).then_some(message))
}

pub(super) async fn definition(session: &PluginSession) -> Vec<CheckResult> {
    let subject = definition_name();
    let found = match stored_definition(session).await {
        Err(error) => return vec![DEFINITION.unread(&subject, &error)],
        Ok(None) => {
            let how = "it is missing: kubervisor crd | kubectl apply --server-side -f -";
            return vec![DEFINITION.failed(&subject, how)];
        }
        Ok(Some(found)) => found,
    };
    let established =
        fields::condition(&found, "Established").is_some_and(|condition| condition["status"] == "True");
    let not_yet = "the API server has not set it up: kubectl describe crd shows why";
    let lacking = lacking(&found);
    let version = match lacking.is_empty() {
        true => DEFINITION_VERSION.passed(&subject),
        false => DEFINITION_VERSION.failed(&subject, outdated(&lacking)),
    };
    vec![DEFINITION.of(&subject, (!established).then(|| not_yet.to_owned())), version]
}

fn outdated(lacking: &[String]) -> String {
    let named = lacking.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    format!(
        "it is of an older version and lacks {} fields, such as {named}: kubervisor crd | kubectl apply --server-side -f -",
        lacking.len()
    )
}

/// Fields of this version's schema that the stored one does not have.
fn lacking(stored: &Value) -> Vec<String> {
    let schema = |definition: &Value| {
        let versions = list(definition, "/spec/versions").iter();
        let of_ours =
            versions.filter(|version| api::API_VERSION.ends_with(version["name"].as_str().unwrap_or("-")));
        of_ours.map(|version| version["schema"]["openAPIV3Schema"].clone()).next().unwrap_or_default()
    };
    let mut lacking = Vec::new();
    compare(&schema(&crd::definition()), &schema(stored), "", &mut lacking);
    lacking
}

fn compare(ours: &Value, theirs: &Value, path: &str, lacking: &mut Vec<String>) {
    for (name, schema) in ours["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match &theirs["properties"][name] {
            Value::Null => lacking.push(path.trim_start_matches('.').to_owned()),
            found => compare(schema, found, &path, lacking),
        }
    }
    if !ours["items"].is_null() {
        compare(&ours["items"], &theirs["items"], &format!("{path}[]"), lacking);
    }
}

pub(super) async fn controller_rights(session: &PluginSession, account: &ControllerAccount) -> CheckResult {
    let subject = format!("serviceaccount {}/{}", account.namespace, account.name);
    let user = format!("system:serviceaccount:{}:{}", account.namespace, account.name);
    let groups = json!([
        "system:serviceaccounts",
        format!("system:serviceaccounts:{}", account.namespace),
        "system:authenticated"
    ]);
    let namespace = if session.all_namespaces { "" } else { session.namespace.as_str() };
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let reviews = rights().into_iter().map(|(group, resource, verb)| {
        let (name, sub) = resource.split_once('/').unwrap_or((&resource, ""));
        let asked = json!({
            "group": group, "resource": name, "subresource": sub, "verb": verb, "namespace": namespace,
        });
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": asked},
        });
        let right = format!("{verb} {resource}");
        async move { (right, session.cluster.create(path, &review).await) }
    });
    let answers: Vec<_> = stream::iter(reviews).buffered(REVIEWS).collect().await;
    let mut missing = Vec::new();
    for (right, answer) in answers {
        match answer {
            Ok(answer) if answer["status"]["allowed"] == true => {}
            Ok(_) => missing.push(right),
            Err(error) => return CONTROLLER_RIGHTS.unread(&subject, &error),
        }
    }
    let message = format!(
        "it may not {}{}; compare its role with examples/kubernetes/rbac.yaml, and name another account with --controller",
        missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", "),
        if missing.len() > NAMED { ", ..." } else { "" }
    );
    CONTROLLER_RIGHTS.of(&subject, (!missing.is_empty()).then_some(message))
}

/// Group, resource and verb of each right of the ClusterRole.
fn rights() -> Vec<(String, String, String)> {
    let role = RIGHTS.split("\n---\n").filter_map(|text| serde_saphyr::from_str::<Value>(text).ok());
    let rules = role.filter(|object| object["kind"] == "ClusterRole");
    let rules = rules.flat_map(|role| list(&role, "/rules").to_vec());
    let texts = |rule: &Value, member: &str| -> Vec<String> {
        list(rule, member).iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let mut rights = Vec::new();
    for rule in rules {
        for group in texts(&rule, "/apiGroups") {
            for resource in texts(&rule, "/resources") {
                let verbs = texts(&rule, "/verbs").into_iter();
                rights.extend(verbs.map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    rights
}

pub(super) async fn leases(session: &PluginSession, account: &ControllerAccount) -> CheckResult {
    let namespace = &account.namespace;
    let subject = format!("namespace {namespace}");
    let which = ListParams::default().labels("app.kubernetes.io/managed-by=kubervisor");
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    let what = format!("leases in namespace {namespace}");
    match session.cluster.list(&path, &which, &what).await {
        Err(error) => LEASES.unread(&subject, &error),
        Ok(leases) => {
            let now = Clock::start().wall();
            let stale = leases.iter().filter_map(|lease| {
                let renewed = fields::time(&lease["spec"]["renewTime"])?;
                let lasts = lease["spec"]["leaseDurationSeconds"].as_u64()?;
                let age = now.since(renewed).as_secs();
                let name = fields::cell(lease, "/metadata/name");
                (age > 2 * lasts).then(|| format!("{name} was renewed {age} s ago and lasts {lasts} s"))
            });
            let stale: Vec<String> = stale.collect();
            let message = format!("{}: does that controller run?", stale.join(", "));
            if stale.is_empty() { LEASES.passed(&subject) } else { LEASES.warning(&subject, message) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_are_those_of_the_example() {
        let rights = rights();
        let has = |group: &str, resource: &str, verb: &str| {
            rights.iter().any(|(g, r, v)| (g.as_str(), r.as_str(), v.as_str()) == (group, resource, verb))
        };
        assert!(has("", "pods", "patch") && has("kubervisor.k8s.io", "kubervisorservices/status", "update"));
        assert!(rights.len() > 20, "{rights:?}");
    }

    #[test]
    fn an_older_definition_is_known_by_the_fields_that_it_lacks() {
        assert_eq!(lacking(&crd::definition()), Vec::<String>::new());
        let mut older = crd::definition();
        let schema = &mut older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        schema["spec"]["properties"].as_object_mut().unwrap().remove("dryRun");
        let breaker = &mut schema["spec"]["properties"]["breakers"]["items"]["properties"];
        breaker.as_object_mut().unwrap().remove("outlier");
        assert_eq!(lacking(&older), ["spec.breakers[].outlier", "spec.dryRun"]);
        assert!(!lacking(&json!({})).is_empty());
    }
}
