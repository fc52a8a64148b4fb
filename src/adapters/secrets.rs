//! Reads credentials: keys of Secrets and ConfigMaps, which only Kubernetes has, and files.

use async_trait::async_trait;
use secrecy::SecretString;

use crate::decide::detect::metric_source::Credential;

/// A source of credentials. Nothing is cached, so that a rotated one takes effect at once.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Reads the text.
    ///
    /// # Errors
    /// [`SecretError`]; the query that needs it is then not sent.
    async fn read(&self, credential: &Credential) -> Result<SecretString, SecretError>;
}

/// A credential that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No such object, or no such key in it.
    #[error("{what} has no key {key}, or does not exist")]
    Missing {
        /// Kind, namespace and name.
        what: String,
        /// The key.
        key: String,
    },
    /// The value is not UTF-8.
    #[error("the key {key} of {what} is no text")]
    NotText {
        /// Kind, namespace and name.
        what: String,
        /// The key.
        key: String,
    },
    /// Not permitted by RBAC.
    #[error("may not get {what}: allow this service account the verb get on {resource} there")]
    Forbidden {
        /// Kind, namespace and name.
        what: String,
        /// `secrets` or `configmaps`.
        resource: &'static str,
        /// The API server's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Any other failure.
    #[error("cannot read {0}")]
    Read(String, #[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Files, and no Secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files;

#[async_trait]
impl Secrets for Files {
    async fn read(&self, credential: &Credential) -> Result<SecretString, SecretError> {
        let read = match credential {
            Credential::File(path) => tokio::fs::read_to_string(path).await.map_err(Into::into),
            Credential::Variable(name) => std::env::var(name).map_err(Into::into),
            Credential::Secret { key, .. } | Credential::ConfigMap { key, .. } => {
                return Err(SecretError::Missing { what: credential.to_string(), key: key.clone() });
            }
        };
        read.map(Into::into).map_err(|error| SecretError::Read(credential.to_string(), error))
    }
}
