//! A pod's own metadata, asked of the Kubernetes API: what the variables leave open.
//!
//! The connection is verified with the cluster's CA. A pod that has just started may not have its
//! address in the API yet, so we ask again until it does, within one deadline.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Config};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::PodFacts;

/// For all of it: connecting, asking, asking again.
const DEADLINE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);

/// Why the metadata could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PodMetadataError {
    /// The service account or the CA cannot be used.
    #[error("cannot use this pod's service account: {0}")]
    ReadServiceAccount(#[source] kube::config::InClusterError),
    /// No client can be made from them.
    #[error("cannot make a client for the Kubernetes API: {0}")]
    BuildClient(#[source] kube::Error),
    /// The API says no, and will say so again.
    #[error(
        "the Kubernetes API refuses pod {namespace}/{name} ({reason}); allow this service account to get pods there, \
         set NAMESPACE if the pod lives elsewhere, or set KONTROL_ID, KONTROL_IP, KONTROL_LABELS and KONTROL_ANNOTATIONS"
    )]
    Refused {
        /// Where it was looked for.
        namespace: String,
        /// Which pod.
        name: String,
        /// What the API said.
        reason: String,
    },
    /// No answer with an address in it before the deadline.
    #[error("no address of pod {namespace}/{name} from the Kubernetes API within {} s: {last}", DEADLINE.as_secs())]
    TimedOut {
        /// Where it was looked for.
        namespace: String,
        /// Which pod.
        name: String,
        /// What the last attempt came to.
        last: String,
    },
}

/// Asks for the pod `namespace/name` until it has an address.
///
/// # Errors
/// When the API refuses, cannot be reached, or the deadline passes.
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
