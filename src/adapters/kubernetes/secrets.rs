//! Keys of Secrets in a Kubernetes namespace.
//!
//! Each read is one GET of one Secret: a rotated one holds with the next question, and the right to list
//! or watch Secrets, which would show all of them, is not needed.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use secrecy::SecretString;

use crate::adapters::secrets::{SecretError, Secrets};
use crate::decide::detect::SecretKey;

/// For one GET. A breaker's own timeout ends its question anyway; this one tells who was too slow.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The Secrets of one namespace: a resource may name those beside it and no others.
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

    /// As people write it.
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
        // What it holds is told to nobody, so the source, which shows it, is left out.
        text.map(SecretString::from)
            .map_err(|_| SecretError::NotText { name: self.written(key), key: key.key.clone() })
    }
}
