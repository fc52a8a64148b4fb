//! Keys of the Secrets and ConfigMaps in one namespace.
//!
//! Each read is one GET of one object, so that a rotated value is used by the next query and no right to list or watch
//! Secrets is needed.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use secrecy::SecretString;

use crate::{
    adapters::secrets::{Files, SecretError, Secrets},
    decide::detect::metric_source::Credential,
};

/// For one GET; below a query's timeout, so that the error names the object.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The Secrets and ConfigMaps of one namespace: a resource may name only those of its own.
#[derive(Clone)]
pub struct KubernetesSecrets {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    namespace: String,
}

impl KubernetesSecrets {
    /// Reads with the rights of `client`.
    pub fn new(client: Client, namespace: &str) -> Self {
        let secrets = Api::namespaced(client.clone(), namespace);
        Self { secrets, config_maps: Api::namespaced(client, namespace), namespace: namespace.to_owned() }
    }
}

#[async_trait]
impl Secrets for KubernetesSecrets {
    async fn read(&self, credential: &Credential) -> Result<SecretString, SecretError> {
        let namespace = &self.namespace;
        let (what, key, bytes) = match credential {
            Credential::Secret { name, key } => {
                let what = format!("Secret {namespace}/{name}");
                let found = get(&what, "secrets", self.secrets.get_opt(name)).await?;
                let mut data = found.and_then(|found| found.data).unwrap_or_default();
                (what, key, data.remove(key).map(|bytes| bytes.0))
            }
            Credential::ConfigMap { name, key } => {
                let what = format!("ConfigMap {namespace}/{name}");
                let found = get(&what, "configmaps", self.config_maps.get_opt(name)).await?;
                let mut data = found.and_then(|found| found.data).unwrap_or_default();
                (what, key, data.remove(key).map(String::into_bytes))
            }
            Credential::File(_) | Credential::Variable(_) => return Files.read(credential).await,
        };
        let key = || key.clone();
        let Some(bytes) = bytes else { return Err(SecretError::Missing { what, key: key() }) };
        // The source would show the value, so it is dropped.
        let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText { what, key: key() })?;
        Ok(SecretString::from(text))
    }
}

async fn get<T>(
    what: &str,
    resource: &'static str,
    request: impl Future<Output = kube::Result<Option<T>>>,
) -> Result<Option<T>, SecretError> {
    let what = what.to_owned();
    match tokio::time::timeout(TIMEOUT, request).await {
        Err(_) => {
            let source = format!("no answer within {} s", TIMEOUT.as_secs()).into();
            Err(SecretError::Read(what, source))
        }
        Ok(Err(kube::Error::Api(refusal))) if refusal.code == 403 => {
            Err(SecretError::Forbidden { what, resource, source: refusal })
        }
        Ok(Err(error)) => Err(SecretError::Read(what, error.into())),
        Ok(Ok(found)) => Ok(found),
    }
}
