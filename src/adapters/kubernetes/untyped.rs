//! The API server with the user's rights, for the plugin; each error names the remedy.
//!
//! Resources stay untyped, so that an older plugin shows all that a newer controller wrote.

use std::{fmt, time::Duration};

use kube::{
    Client,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::{ObjectList, PartialObjectMeta, Request},
};
use serde_json::Value;

use super::connect::{self, ConnectError, ConnectOptions};
use crate::exit::{Exit, chain};

/// The path of the resource's group and version.
pub(crate) const GROUP: &str = "/apis/kubervisor.k8s.io/v1alpha1";
/// The path of the namespaces.
pub(crate) const NAMESPACES: &str = "/api/v1/namespaces";
/// When `--request-timeout` is not given.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the cluster did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error(
        "no cluster to ask: {0}; name a kubeconfig with --kubeconfig or KUBECONFIG, a context with --context"
    )]
    Kubeconfig(String),
    #[error("cannot reach the API server {server}: {why}; is it up, and is it the one you mean (--context)?")]
    Unreachable { server: String, why: String },
    #[error(
        "the API server {server} does not accept your credentials: {why}; log in again, or name another --context"
    )]
    Unauthorized { server: String, why: String },
    #[error("you may not read {what}: {why}; ask for a role that has get and list on it")]
    Forbidden { what: String, why: String },
    #[error("you may not change {what}: {why}; ask for a role that has patch on it")]
    ForbiddenChange { what: String, why: String },
    #[error("{what} was changed by another client meanwhile: {why}; look again, then repeat the command")]
    Conflict { what: String, why: String },
    #[error(
        "the API server {server} has no KubervisorServices; install their definition: \
         kubervisor crd | kubectl apply --server-side -f -"
    )]
    NoDefinition { server: String },
    #[error("no {kind} {name} in namespace {namespace}; is it in another one? {hint}")]
    Missing { kind: &'static str, name: String, namespace: String, hint: &'static str },
    /// Any other answer.
    #[error("the API server {server} did not answer for {what}: {why}; try again")]
    Refused { server: String, what: String, why: String },
}

impl ClusterError {
    /// Static, for the note in an explanation.
    pub(crate) const fn category(&self) -> &'static str {
        match self {
            Self::Kubeconfig(_) => "kubeconfig",
            Self::Unreachable { .. } => "unreachable",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Forbidden { .. } | Self::ForbiddenChange { .. } => "forbidden",
            Self::Conflict { .. } => "conflict",
            Self::NoDefinition { .. } => "no_definition",
            Self::Missing { .. } => "missing",
            Self::Refused { .. } => "refused",
        }
    }
}

impl From<ClusterError> for Exit {
    fn from(error: ClusterError) -> Self {
        Self::Failed(error.into())
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum ListScope<'a> {
    Namespace(&'a str),
    All,
}

impl fmt::Display for ListScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::All => f.write_str("any namespace"),
        }
    }
}

/// A connection, and the namespace of its context.
pub(crate) struct ClusterClient {
    pub(crate) client: Client,
    pub(crate) server: String,
    /// The namespace of the context.
    pub(crate) namespace: String,
}

impl ClusterClient {
    /// `timeout` is that of connecting, and between two parts of an answer; zero is none, as kubectl has it.
    pub(crate) async fn connect(
        options: &ConnectOptions,
        timeout: Option<Duration>,
    ) -> Result<Self, ClusterError> {
        let unusable = |error: ConnectError| ClusterError::Kubeconfig(chain(&error));
        let mut config = connect::configuration(options).await.map_err(unusable)?;
        let timeout = timeout.unwrap_or(TIMEOUT);
        config.connect_timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
        config.read_timeout = config.connect_timeout;
        let (server, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
        let client = connect::build(config).map_err(unusable)?;
        Ok(Self { client, server, namespace })
    }

    /// All KubervisorServices in `scope` with the labels that `selector` asks for.
    pub(crate) async fn services(
        &self,
        scope: ListScope<'_>,
        selector: Option<&str>,
    ) -> Result<Vec<Value>, ClusterError> {
        let path = match scope {
            ListScope::Namespace(name) => services_of(name),
            ListScope::All => format!("{GROUP}/kubervisorservices"),
        };
        let what = format!("kubervisorservices in {scope}");
        let which = ListParams { label_selector: selector.map(str::to_owned), ..ListParams::default() };
        self.list(&path, &which, &what).await
    }

    /// The KubervisorService of that name.
    pub(crate) async fn service(&self, namespace: &str, name: &str) -> Result<Value, ClusterError> {
        let what = format!("kubervisorservice {name} in namespace {namespace}");
        let hint = "kubectl kubervisor -A lists them all";
        let found = self.get(&services_of(namespace), name, &what).await?;
        found.ok_or_else(|| missing("KubervisorService", namespace, name, hint))
    }

    /// The pod, if there is one of that name.
    pub(crate) async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Value>, ClusterError> {
        let what = format!("pod {name} in namespace {namespace}");
        self.get(&pods_of(namespace), name, &what).await
    }

    /// The pods with these labels, such as `app=web`.
    pub(crate) async fn pods(&self, namespace: &str, labels: &str) -> Result<Vec<Value>, ClusterError> {
        let which = ListParams::default().labels(labels);
        let what = format!("pods in namespace {namespace}");
        self.list(&pods_of(namespace), &which, &what).await
    }

    /// Events of the pods of that name, in no order.
    pub(crate) async fn events(&self, namespace: &str, pod: &str) -> Result<Vec<Value>, ClusterError> {
        let of_pod =
            ListParams::default().fields(&format!("involvedObject.kind=Pod,involvedObject.name={pod}"));
        let what = format!("events in namespace {namespace}");
        self.list(&format!("/api/v1/namespaces/{namespace}/events"), &of_pod, &what).await
    }

    /// Sends a patch; `dry_run` has the API server check it and store nothing.
    pub(crate) async fn patch(
        &self,
        path: &str,
        name: &str,
        patch: &Patch<Value>,
        dry_run: bool,
    ) -> Result<Value, ClusterError> {
        let params = PatchParams { dry_run, ..PatchParams::default() };
        let kind = path.rsplit('/').next().unwrap_or_default();
        let what = format!("{} {name}", kind.trim_end_matches('s'));
        let request = Request::new(path)
            .patch(name, &params, patch)
            .map_err(|error| self.refused(&what, chain(&error)))?;
        let changed = self.client.request::<Value>(request).await;
        changed.map(tidy).map_err(|error| match self.error(error, &what) {
            ClusterError::Forbidden { what, why } => ClusterError::ForbiddenChange { what, why },
            other => other,
        })
    }

    /// Creates an object, such as an access review, and returns the answer.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> Result<Value, ClusterError> {
        let what = path.rsplit('/').next().unwrap_or_default();
        let body = object.to_string().into_bytes();
        let request = Request::new(path)
            .create(&PostParams::default(), body)
            .map_err(|error| self.refused(what, chain(&error)))?;
        self.client.request::<Value>(request).await.map_err(|error| self.error(error, what))
    }

    /// The objects at `path`; `what` names them in errors.
    pub(crate) async fn list(
        &self,
        path: &str,
        which: &ListParams,
        what: &str,
    ) -> Result<Vec<Value>, ClusterError> {
        let request = Request::new(path).list(which).map_err(|error| self.refused(what, chain(&error)))?;
        match self.client.request::<Value>(request).await {
            Ok(mut list) => match list["items"].take() {
                Value::Array(items) => Ok(items.into_iter().map(tidy).collect()),
                _ => Err(self.refused(what, "the answer is no list".into())),
            },
            Err(error) => Err(self.error(error, what)),
        }
    }

    /// The names of the objects at `path`, as recent as the API server's cache.
    pub(crate) async fn names(&self, path: &str) -> Result<Vec<String>, ClusterError> {
        let which = ListParams::default().match_any();
        let request = Request::new(path).list_metadata(&which);
        let request = request.map_err(|error| self.refused(path, chain(&error)))?;
        let found = self.client.request::<ObjectList<PartialObjectMeta>>(request).await;
        let found = found.map_err(|error| self.error(error, path))?;
        Ok(found.items.into_iter().filter_map(|object| object.metadata.name).collect())
    }

    /// The object of that name at `path`, if there is one.
    pub(crate) async fn get(
        &self,
        path: &str,
        name: &str,
        what: &str,
    ) -> Result<Option<Value>, ClusterError> {
        let request = Request::new(path)
            .get(name, &Default::default())
            .map_err(|error| self.refused(what, chain(&error)))?;
        match self.client.request::<Value>(request).await {
            Ok(object) => Ok(Some(tidy(object))),
            // The status names the missing object; for an unknown kind it names none.
            Err(kube::Error::Api(no))
                if no.code == 404 && no.details.as_ref().is_some_and(|d| d.name == name) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.error(error, what)),
        }
    }

    fn error(&self, error: kube::Error, what: &str) -> ClusterError {
        let (server, what) = (self.server.clone(), what.to_owned());
        match error {
            kube::Error::Api(status) => match status.code {
                401 => ClusterError::Unauthorized { server, why: status.message.clone() },
                403 => ClusterError::Forbidden { what, why: status.message.clone() },
                409 => ClusterError::Conflict { what, why: status.message.clone() },
                404 => ClusterError::NoDefinition { server },
                _ => ClusterError::Refused { server, what, why: status.message.clone() },
            },
            kube::Error::SerdeError(error) => ClusterError::Refused { server, what, why: error.to_string() },
            other => ClusterError::Unreachable { server, why: chain(&other) },
        }
    }

    fn refused(&self, what: &str, why: String) -> ClusterError {
        ClusterError::Refused { server: self.server.clone(), what: what.to_owned(), why }
    }
}

/// The path of a namespace's KubervisorServices.
pub(crate) fn services_of(namespace: &str) -> String {
    format!("{GROUP}/namespaces/{namespace}/kubervisorservices")
}

/// The path of a namespace's pods.
pub(crate) fn pods_of(namespace: &str) -> String {
    format!("{NAMESPACES}/{namespace}/pods")
}

pub(crate) fn missing(kind: &'static str, namespace: &str, name: &str, hint: &'static str) -> ClusterError {
    ClusterError::Missing { kind, name: name.to_owned(), namespace: namespace.to_owned(), hint }
}

/// As kubectl prints an object: without `managedFields`.
fn tidy(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}
