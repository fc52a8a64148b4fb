//! The API server, asked as its user may; each failure says what to do about it.
//!
//! Resources stay untyped: an older plugin shows what a newer controller wrote, whole.

use std::{fmt, path::PathBuf, time::Duration};

use kube::{
    Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
    core::Request,
};
use serde_json::Value;

use crate::exit::Exit;

/// Where our resources are at an API server.
const GROUP: &str = "/apis/kubervisor.k8s.io/v1alpha1";
/// How long a person waits for a connection, and then for more of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the cluster did not answer as asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// No way to the cluster is written anywhere.
    #[error(
        "no cluster to ask: {0}; name a kubeconfig with --kubeconfig or KUBECONFIG, a context with --context"
    )]
    Kubeconfig(String),
    /// Nobody answers there.
    #[error("cannot reach the API server {server}: {why}; is it up, and is it the one you mean (--context)?")]
    Unreachable {
        /// Its address.
        server: String,
        /// What went wrong.
        why: String,
    },
    /// It does not believe who asks.
    #[error(
        "the API server {server} does not accept your credentials: {why}; log in again, or name another --context"
    )]
    Unauthorized {
        /// Its address.
        server: String,
        /// Its words.
        why: String,
    },
    /// It believes, and refuses.
    #[error("you may not read {what}: {why}; ask for a role that has get and list on it")]
    Forbidden {
        /// What was asked for.
        what: String,
        /// Its words.
        why: String,
    },
    /// Our definition is not installed.
    #[error(
        "the API server {server} knows no KubervisorServices; install their definition: \
         kubervisor crd | kubectl apply --server-side -f -"
    )]
    NoDefinition {
        /// Its address.
        server: String,
    },
    /// There is none of that name.
    #[error("no {kind} {name} in namespace {namespace}; is it in another one? {hint}")]
    Missing {
        /// Of what kind.
        kind: &'static str,
        /// Which.
        name: String,
        /// Where it was looked for.
        namespace: String,
        /// How to look for it elsewhere.
        hint: &'static str,
    },
    /// Anything else that it said.
    #[error("the API server {server} did not answer for {what}: {why}; try again")]
    Refused {
        /// Its address.
        server: String,
        /// What was asked for.
        what: String,
        /// Its words.
        why: String,
    },
}

impl Trouble {
    /// A word for each kind.
    pub(super) const fn category(&self) -> &'static str {
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

impl From<Trouble> for Exit {
    fn from(trouble: Trouble) -> Self {
        Self::Failed(trouble.into())
    }
}

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'a> {
    /// In one namespace.
    Namespace(&'a str),
    /// Everywhere.
    All,
}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::All => f.write_str("any namespace"),
        }
    }
}

/// A connection, and the namespace of its context.
pub(super) struct Cluster {
    client: Client,
    server: String,
    namespace: String,
}

impl Cluster {
    /// By the kubeconfig named, else as kubectl finds one; in a pod by its own account.
    pub(super) async fn connect(file: Option<PathBuf>, context: Option<String>) -> Result<Self, Trouble> {
        let mut config = configuration(file, context).await?;
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = Some(PATIENCE);
        // A person waits: what fails is said at once.
        config.default_retry = false;
        let (server, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| Trouble::Kubeconfig(chain(&error)))?;
        Ok(Self { client, server, namespace })
    }

    /// The namespace of the context.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// All KubervisorServices there.
    pub(super) async fn services(&self, scope: Scope<'_>) -> Result<Vec<Value>, Trouble> {
        let path = match scope {
            Scope::Namespace(name) => format!("{GROUP}/namespaces/{name}/kubervisorservices"),
            Scope::All => format!("{GROUP}/kubervisorservices"),
        };
        let what = format!("kubervisorservices in {scope}");
        self.list(&path, &ListParams::default(), &what).await
    }

    /// The KubervisorService of that name.
    pub(super) async fn service(&self, namespace: &str, name: &str) -> Result<Value, Trouble> {
        let path = format!("{GROUP}/namespaces/{namespace}/kubervisorservices");
        let what = format!("kubervisorservice {name} in namespace {namespace}");
        let hint = "kubectl kubervisor -A lists them all";
        let found = self.get(&path, name, &what).await?;
        found.ok_or_else(|| missing("KubervisorService", namespace, name, hint))
    }

    /// The pod, if there is one of that name.
    pub(super) async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Value>, Trouble> {
        let what = format!("pod {name} in namespace {namespace}");
        self.get(&format!("/api/v1/namespaces/{namespace}/pods"), name, &what).await
    }

    /// What was reported of the pods of that name, in no order.
    pub(super) async fn events(&self, namespace: &str, pod: &str) -> Result<Vec<Value>, Trouble> {
        let mine =
            ListParams::default().fields(&format!("involvedObject.kind=Pod,involvedObject.name={pod}"));
        let what = format!("events in namespace {namespace}");
        self.list(&format!("/api/v1/namespaces/{namespace}/events"), &mine, &what).await
    }

    async fn list(&self, path: &str, which: &ListParams, what: &str) -> Result<Vec<Value>, Trouble> {
        let request = Request::new(path).list(which).map_err(|error| self.refused(what, chain(&error)))?;
        match self.client.request::<Value>(request).await {
            Ok(mut list) => match list["items"].take() {
                Value::Array(items) => Ok(items.into_iter().map(tidy).collect()),
                _ => Err(self.refused(what, "the answer is no list".into())),
            },
            Err(error) => Err(self.trouble(error, what)),
        }
    }

    async fn get(&self, path: &str, name: &str, what: &str) -> Result<Option<Value>, Trouble> {
        let request = Request::new(path)
            .get(name, &Default::default())
            .map_err(|error| self.refused(what, chain(&error)))?;
        match self.client.request::<Value>(request).await {
            Ok(object) => Ok(Some(tidy(object))),
            // It names the object that is missing; for a kind that it does not know it names none.
            Err(kube::Error::Api(no))
                if no.code == 404 && no.details.as_ref().is_some_and(|d| d.name == name) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.trouble(error, what)),
        }
    }

    fn trouble(&self, error: kube::Error, what: &str) -> Trouble {
        let (server, what) = (self.server.clone(), what.to_owned());
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Trouble::Unauthorized { server, why: status.message.clone() },
                403 => Trouble::Forbidden { what, why: status.message.clone() },
                404 => Trouble::NoDefinition { server },
                _ => Trouble::Refused { server, what, why: status.message.clone() },
            },
            kube::Error::SerdeError(error) => Trouble::Refused { server, what, why: error.to_string() },
            other => Trouble::Unreachable { server, why: chain(&other) },
        }
    }

    fn refused(&self, what: &str, why: String) -> Trouble {
        Trouble::Refused { server: self.server.clone(), what: what.to_owned(), why }
    }
}

/// There is no such thing in that namespace.
pub(super) fn missing(kind: &'static str, namespace: &str, name: &str, hint: &'static str) -> Trouble {
    Trouble::Missing { kind, name: name.to_owned(), namespace: namespace.to_owned(), hint }
}

async fn configuration(file: Option<PathBuf>, context: Option<String>) -> Result<Config, Trouble> {
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    let written = match file {
        Some(path) => Kubeconfig::read_from(path).map_err(|error| Trouble::Kubeconfig(chain(&error)))?,
        None if options.context.is_none() => {
            return Config::infer().await.map_err(|error| Trouble::Kubeconfig(chain(&error)));
        }
        None => Kubeconfig::read().map_err(|error| Trouble::Kubeconfig(chain(&error)))?,
    };
    let read = Config::from_custom_kubeconfig(written, &options).await;
    read.map_err(|error| Trouble::Kubeconfig(chain(&error)))
}

/// As kubectl prints an object: without the managers of its fields.
fn tidy(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// An error with its causes, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !said.contains(&words) {
            said = format!("{said}: {words}");
        }
        next = cause.source();
    }
    said
}
