//! Where a key of a Secret is read. Kubernetes has Secrets; a fleet without it has none.

use async_trait::async_trait;
use secrecy::SecretString;

use crate::decide::detect::SecretKey;

/// A place that keeps secrets. It is asked anew each time, so that a rotated one holds at once.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The text under that key.
    ///
    /// # Errors
    /// [`SecretError`]; the question that needed it is then not asked.
    async fn read(&self, key: &SecretKey) -> Result<SecretString, SecretError>;
}

/// No text for that key.
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
    /// A key that holds something else than UTF-8.
    #[error("the key {key} of Secret {name} is no text")]
    NotText {
        /// The Secret.
        name: String,
        /// The key.
        key: String,
    },
    /// Kubernetes says no.
    #[error("may not get Secret {name}: allow this service account the verb get on secrets there")]
    Forbidden {
        /// The Secret.
        name: String,
        /// In its own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The place cannot be asked.
    #[error("cannot read Secret {name}")]
    Read {
        /// The Secret.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Nothing is kept here.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

#[async_trait]
impl Secrets for NoSecrets {
    async fn read(&self, key: &SecretKey) -> Result<SecretString, SecretError> {
        Err(SecretError::Missing { name: key.name.clone(), key: key.key.clone() })
    }
}
