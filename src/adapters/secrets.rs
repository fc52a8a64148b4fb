//! Reads keys of Secrets. Only Kubernetes has Secrets.

use async_trait::async_trait;
use secrecy::SecretString;

use crate::decide::detect::SecretKey;

/// A source of Secrets. Nothing is cached, so that a rotated Secret takes effect at once.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Reads the text of a key.
    ///
    /// # Errors
    /// [`SecretError`]; the query that needs it is then not sent.
    async fn read(&self, key: &SecretKey) -> Result<SecretString, SecretError>;
}

/// A key that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No such Secret, or no such key in it.
    #[error("Secret {name} has no key {key}, or does not exist")]
    Missing {
        /// The Secret.
        name: String,
        /// The key.
        key: String,
    },
    /// The value is not UTF-8.
    #[error("the key {key} of Secret {name} is no text")]
    NotText {
        /// The Secret.
        name: String,
        /// The key.
        key: String,
    },
    /// Not permitted by RBAC.
    #[error("may not get Secret {name}: allow this service account the verb get on secrets there")]
    Forbidden {
        /// The Secret.
        name: String,
        /// The API server's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Any other failure.
    #[error("cannot read Secret {name}")]
    Read {
        /// The Secret.
        name: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A source without Secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

#[async_trait]
impl Secrets for NoSecrets {
    async fn read(&self, key: &SecretKey) -> Result<SecretString, SecretError> {
        Err(SecretError::Missing { name: key.name.clone(), key: key.key.clone() })
    }
}
