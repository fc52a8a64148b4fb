//! Keys of the Secrets in one namespace.
//!
//! Each read is one GET of one Secret, so that a rotated value is used by the next query and no right to list or watch
//! Secrets is needed.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use secrecy::SecretString;

use crate::adapters::secrets::{SecretError, Secrets};
use crate::decide::detect::SecretKey;

/// For one GET; below a query's timeout, so that the error names the Secret.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The Secrets of one namespace: a resource may name only those of its own.
#[derive(Clone)]
pub struct KubernetesSecrets {
    secrets: Api<Secret>,
    namespace: String,
}

impl KubernetesSecrets {
    /// Reads with the rights of `client`.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { secrets: Api::namespaced(client, namespace), namespace: namespace.to_owned() }
    }

    fn read_error(
        &self,
        key: &SecretKey,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> SecretError {
        SecretError::Read { name: self.written(key), source: source.into() }
    }

    /// `namespace/name`, for messages.
    fn written(&self, key: &SecretKey) -> String {
        format!("{}/{}", self.namespace, key.name)
    }
}

#[async_trait]
impl Secrets for KubernetesSecrets {
    async fn read(&self, key: &SecretKey) -> Result<SecretString, SecretError> {
        let missing = || SecretError::Missing { name: self.written(key), key: key.key.clone() };
        let asked = tokio::time::timeout(TIMEOUT, self.secrets.get_opt(&key.name)).await;
        let found = match asked {
            Err(_) => return Err(self.read_error(key, format!("no answer within {} s", TIMEOUT.as_secs()))),
            Ok(Err(kube::Error::Api(refusal))) if refusal.code == 403 => {
                return Err(SecretError::Forbidden { name: self.written(key), source: refusal });
            }
            Ok(Err(error)) => return Err(self.read_error(key, error)),
            Ok(Ok(found)) => found.ok_or_else(missing)?,
        };
        let bytes = found.data.unwrap_or_default().remove(&key.key).ok_or_else(missing)?.0;
        let text = String::from_utf8(bytes);
        // The source would show the value, so it is dropped.
        text.map(SecretString::from)
            .map_err(|_| SecretError::NotText { name: self.written(key), key: key.key.clone() })
    }
}
