//! Reads a pod's own metadata from the Kubernetes API, for what the variables do not set.
//!
//! A pod that has just started may not have its address in the API yet, so the read is repeated until it has, within
//! `DEADLINE`. The connection is verified with the cluster's CA.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Config};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::PodFacts;

/// For connecting and all attempts.
const DEADLINE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);

/// Why the metadata could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PodMetadataError {
    /// The service account or the CA is missing or invalid.
    #[error("cannot use this pod's service account: {0}")]
    ReadServiceAccount(#[source] kube::config::InClusterError),
    /// The TLS or client settings are invalid.
    #[error("cannot make a client for the Kubernetes API: {0}")]
    BuildClient(#[source] kube::Error),
    /// The API refused (401, 403, 404); a retry would not help.
    #[error(
        "the Kubernetes API refuses pod {namespace}/{name} ({reason}); allow this service account to get pods there, \
         set NAMESPACE if the pod lives elsewhere, or set KONTROL_ID, KONTROL_IP, KONTROL_LABELS and KONTROL_ANNOTATIONS"
    )]
    Refused {
        /// The namespace that was read.
        namespace: String,
        /// The pod's name.
        name: String,
        /// The message of the API server.
        reason: String,
    },
    /// No response with an address before the deadline.
    #[error("no address of pod {namespace}/{name} from the Kubernetes API within {} s: {last}", DEADLINE.as_secs())]
    TimedOut {
        /// The namespace that was read.
        namespace: String,
        /// The pod's name.
        name: String,
        /// The result of the last attempt.
        last: String,
    },
}

/// Reads the pod `namespace/name` every 500 ms until it has an address.
///
/// # Errors
/// When the API refuses, or no address is known after 20 s.
pub async fn fetch(namespace: &str, name: &str) -> Result<PodFacts, PodMetadataError> {
    let config = Config::incluster().map_err(PodMetadataError::ReadServiceAccount)?;
    let client = Client::try_from(config).map_err(PodMetadataError::BuildClient)?;
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let deadline = Instant::now() + DEADLINE;
    let mut last = "no answer".to_owned();
    while Instant::now() < deadline {
        match timeout_at(deadline, pods.get(name)).await {
            Ok(Ok(pod)) => {
                let facts = facts(pod);
                if !facts.addresses.is_empty() {
                    return Ok(facts);
                }
                "the pod has no address yet".clone_into(&mut last);
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403 | 404) => {
                let (namespace, name) = (namespace.to_owned(), name.to_owned());
                return Err(PodMetadataError::Refused { namespace, name, reason: status.message.clone() });
            }
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => break,
        }
        sleep(PAUSE).await;
    }
    Err(PodMetadataError::TimedOut { namespace: namespace.to_owned(), name: name.to_owned(), last })
}

fn facts(pod: Pod) -> PodFacts {
    let status = pod.status.unwrap_or_default();
    let mut addresses: Vec<String> = status.pod_ips.into_iter().flatten().map(|ip| ip.ip).collect();
    if addresses.is_empty() {
        addresses.extend(status.pod_ip);
    }
    PodFacts {
        name: pod.metadata.name.unwrap_or_default(),
        addresses,
        labels: pod.metadata.labels.unwrap_or_default(),
        annotations: pod.metadata.annotations.unwrap_or_default(),
    }
}
