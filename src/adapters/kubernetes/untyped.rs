//! Reads the API server with the user's rights; each error names the remedy.
//!
//! Resources stay untyped, so that an older plugin shows all that a newer controller wrote.

use std::{fmt, time::Duration};

use kube::{Client, api::ListParams, core::Request};
use serde_json::Value;

use super::connect::{self, ConnectError, ConnectOptions};
use crate::exit::{Exit, chain};

const GROUP: &str = "/apis/kubervisor.k8s.io/v1alpha1";
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
            Self::Forbidden { .. } => "forbidden",
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
    client: Client,
    server: String,
    namespace: String,
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

    /// The namespace of the context.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// All KubervisorServices in `scope`.
    pub(crate) async fn services(&self, scope: ListScope<'_>) -> Result<Vec<Value>, ClusterError> {
        let path = match scope {
            ListScope::Namespace(name) => format!("{GROUP}/namespaces/{name}/kubervisorservices"),
            ListScope::All => format!("{GROUP}/kubervisorservices"),
        };
        let what = format!("kubervisorservices in {scope}");
        self.list(&path, &ListParams::default(), &what).await
    }

    /// The KubervisorService of that name.
    pub(crate) async fn service(&self, namespace: &str, name: &str) -> Result<Value, ClusterError> {
        let path = format!("{GROUP}/namespaces/{namespace}/kubervisorservices");
        let what = format!("kubervisorservice {name} in namespace {namespace}");
        let hint = "kubectl kubervisor -A lists them all";
        let found = self.get(&path, name, &what).await?;
        found.ok_or_else(|| missing("KubervisorService", namespace, name, hint))
    }

    /// The pod, if there is one of that name.
    pub(crate) async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Value>, ClusterError> {
        let what = format!("pod {name} in namespace {namespace}");
        self.get(&format!("/api/v1/namespaces/{namespace}/pods"), name, &what).await
    }

    /// Events of the pods of that name, in no order.
    pub(crate) async fn events(&self, namespace: &str, pod: &str) -> Result<Vec<Value>, ClusterError> {
        let of_pod =
            ListParams::default().fields(&format!("involvedObject.kind=Pod,involvedObject.name={pod}"));
        let what = format!("events in namespace {namespace}");
        self.list(&format!("/api/v1/namespaces/{namespace}/events"), &of_pod, &what).await
    }

    async fn list(&self, path: &str, which: &ListParams, what: &str) -> Result<Vec<Value>, ClusterError> {
        let request = Request::new(path).list(which).map_err(|error| self.refused(what, chain(&error)))?;
        match self.client.request::<Value>(request).await {
            Ok(mut list) => match list["items"].take() {
                Value::Array(items) => Ok(items.into_iter().map(tidy).collect()),
                _ => Err(self.refused(what, "the answer is no list".into())),
            },
            Err(error) => Err(self.error(error, what)),
        }
    }

    async fn get(&self, path: &str, name: &str, what: &str) -> Result<Option<Value>, ClusterError> {
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
