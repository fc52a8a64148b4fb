//! Notifications: a decision about a pod is told to the pod itself, so that it closes connections that are open.
//!
//! Sent only to the address of the very pod, as the API server has it at that moment: same UID, not of the host's
//! network, no address of the host, loopback or link. No name is resolved, no redirect followed, no proxy used, no
//! answer read, and nothing is sent that would be worth stealing. Never in the way of a decision: what does not fit is
//! dropped and counted, and a newer decision about a pod ends the attempts of the older one.

mod target;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use hmac::{Hmac, KeyInit as _, Mac as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use reqwest::{Client as HttpClient, header::CONTENT_TYPE, redirect};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use sha2::Sha256;
use tokio::{sync::Semaphore, task::AbortHandle, time::timeout};

pub use self::target::TargetRefusal;
use super::{kubernetes::secrets::KubernetesSecrets, secrets::Secrets as _};
use crate::{api::notify::NotifyRule, decide::fleet::Uid, exit::chain, metrics::LabelledCounter};

/// Pods that are notified at a time, those that wait included.
const PENDING: usize = 4096;
/// Requests at a time.
const CONCURRENT: usize = 32;
/// Waits before the attempts.
const ATTEMPTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(2)];
/// For one attempt: the API server's answer, and the pod's.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The field with the signature: `sha256=` and the HMAC of the body in hexadecimal digits.
const SIGNATURE: &str = "Kubervisor-Signature";

/// What a pod is told; the body of the request.
#[derive(Clone, Debug, Serialize)]
pub struct Notification {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID: one of the same name that gets it by mistake must ignore it.
    pub uid: String,
    /// `yes`, `no` or `pause`.
    pub traffic: &'static str,
    /// Breaker, rule, value and threshold.
    pub reason: String,
    /// When the pod comes back at the earliest, RFC 3339; none: not known.
    pub until: Option<String>,
    /// The decision: the ledger's write.
    pub id: String,
    /// Rises with every decision about the pod: a receiver drops a lower one.
    pub serial: i64,
}

/// How a notification ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotifyError {
    /// The pod may not be told.
    #[error("{0}")]
    Target(#[from] TargetRefusal),
    /// The API server did not show the pod.
    #[error("the API server did not show the pod: {0}")]
    Read(String),
    /// The key of the signature cannot be read.
    #[error("the key of the signature cannot be read: {0}")]
    Key(String),
    /// No answer, or not in time.
    #[error("the pod did not answer: {0}")]
    Exchange(String),
    /// Another status than 2xx; a redirect is one, too.
    #[error("the pod answered with {0}")]
    Status(u16),
}

impl NotifyError {
    /// The metric's label.
    const fn category(&self) -> &'static str {
        match self {
            Self::Target(_) => "target",
            Self::Read(_) => "unknown_pod",
            Self::Key(_) => "key",
            Self::Exchange(_) => "exchange",
            Self::Status(_) => "status",
        }
    }

    /// Another attempt may end otherwise.
    const fn passes(&self) -> bool {
        !matches!(self, Self::Target(_))
    }
}

/// Whether a pod may have an address of 127.0.0.0/8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loopback {
    /// It is this machine's own, and no pod's.
    Refused,
    /// Tests have their pods there.
    Allowed,
}

/// `kubervisor_notifications_total`, by outcome.
#[derive(Clone, Debug)]
pub struct NotifyMetrics {
    notifications: LabelledCounter,
}

impl NotifyMetrics {
    /// Registers the counter.
    pub fn register(registry: &mut Registry) -> Self {
        let help = "Notifications of pods about decisions, by what became of them";
        Self { notifications: LabelledCounter::register(registry, "notifications", help, "outcome") }
    }
}

/// Sends notifications; clones share everything.
#[derive(Clone)]
pub struct Notifier {
    shared: Arc<NotifierShared>,
}

struct NotifierShared {
    client: Client,
    http: HttpClient,
    loopback: Loopback,
    metrics: NotifyMetrics,
    permits: Semaphore,
    /// The newest notification of each pod that is under way.
    pending: Mutex<HashMap<Uid, (i64, AbortHandle)>>,
}

impl Notifier {
    /// Sends nothing yet.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(client: Client, metrics: NotifyMetrics, loopback: Loopback) -> Result<Self, reqwest::Error> {
        let http = HttpClient::builder().no_proxy().redirect(redirect::Policy::none());
        // A connection that is kept would be one more that stays open.
        let http = http.pool_max_idle_per_host(0).tls_certs_only([]).build()?;
        let permits = Semaphore::new(CONCURRENT);
        let pending = Mutex::default();
        let shared = NotifierShared { client, http, loopback, metrics, permits, pending };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Tells the pod in the background, and `done` of the end. A lower serial than one under way is dropped.
    pub fn notify(
        &self,
        notification: Notification,
        rule: NotifyRule,
        done: impl FnOnce(&Result<(), NotifyError>) + Send + 'static,
    ) {
        let (shared, uid) = (Arc::clone(&self.shared), Uid::from(notification.uid.as_str()));
        let serial = notification.serial;
        let mut pending = self.shared.pending.lock();
        let newer = pending.get(&uid).is_some_and(|(other, _)| *other > serial);
        if newer || pending.len() >= PENDING && !pending.contains_key(&uid) {
            drop(pending);
            return self.shared.count(if newer { "superseded" } else { "dropped" });
        }
        let task = tokio::spawn({
            let uid = uid.clone();
            async move {
                let ended = shared.deliver(&notification, &rule).await;
                shared.count(ended.as_ref().err().map_or("delivered", NotifyError::category));
                if let Err(error) = &ended {
                    tracing::debug!(pod = notification.pod, "not notified: {error}");
                }
                shared.forget(&uid, serial);
                // Last, so that whoever is told finds nothing under way any more.
                done(&ended);
            }
        });
        if let Some((_, older)) = pending.insert(uid, (serial, task.abort_handle()))
            && !older.is_finished()
        {
            older.abort();
            drop(pending);
            self.shared.count("superseded");
        }
    }
}

impl NotifierShared {
    fn count(&self, outcome: &'static str) {
        self.metrics.notifications.of(outcome).inc();
    }

    fn forget(&self, uid: &Uid, serial: i64) {
        let mut pending = self.pending.lock();
        if pending.get(uid).is_some_and(|(own, _)| *own == serial) {
            pending.remove(uid);
        }
    }

    async fn deliver(&self, notification: &Notification, rule: &NotifyRule) -> Result<(), NotifyError> {
        let mut last = NotifyError::Exchange("not tried".to_owned());
        for wait in ATTEMPTS {
            tokio::time::sleep(wait).await;
            let _permit = self.permits.acquire().await;
            let late = || Err(NotifyError::Exchange(format!("no answer within {} s", TIMEOUT.as_secs())));
            match timeout(TIMEOUT, self.attempt(notification, rule)).await.unwrap_or_else(|_| late()) {
                Ok(()) => return Ok(()),
                Err(error) if error.passes() => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    async fn attempt(&self, notification: &Notification, rule: &NotifyRule) -> Result<(), NotifyError> {
        let Notification { namespace, pod: name, uid, .. } = notification;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = pods.get_opt(name).await.map_err(|error| NotifyError::Read(chain(&error)))?;
        let pod = pod.ok_or(TargetRefusal::Gone)?;
        let target = target::of(&pod, uid, &rule.port, self.loopback == Loopback::Allowed)?;
        let body =
            serde_json::to_vec(notification).map_err(|error| NotifyError::Exchange(error.to_string()))?;
        let mut request = self.http.post(url(target, &rule.path)).header(CONTENT_TYPE, "application/json");
        if let Some(credential) = &rule.hmac {
            let secrets = KubernetesSecrets::new(self.client.clone(), namespace);
            let key = secrets.read(credential).await.map_err(|error| NotifyError::Key(chain(&error)))?;
            request = request.header(SIGNATURE, signature(key.expose_secret().as_bytes(), &body)?);
        }
        let answer = request.body(body).send().await;
        let status = answer.map_err(|error| NotifyError::Exchange(chain(&error)))?.status();
        if status.is_success() { Ok(()) } else { Err(NotifyError::Status(status.as_u16())) }
    }
}

/// The path begins with a slash, so that it cannot change host or port.
fn url(target: SocketAddr, path: &str) -> String {
    format!("http://{target}{path}")
}

/// The HMAC-SHA256 of the body, which has UID and decision.
fn signature(key: &[u8], body: &[u8]) -> Result<String, NotifyError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| NotifyError::Key(error.to_string()))?;
    mac.update(body);
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256={digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_openssl_computes() {
        // printf '{"a":1}' | openssl dgst -sha256 -hmac key
        let expected = "sha256=88a67f24bbcdaed0e6c997404bb79a743baf44c6bab2f4c27328e3009d22e342";
        assert_eq!(signature(b"key", br#"{"a":1}"#).unwrap(), expected);
    }

    #[test]
    fn a_path_cannot_change_the_host() {
        for path in ["/x", "/@evil", "//evil", "/\\evil", "/?a=b", "/:99"] {
            let url: reqwest::Url = url("10.1.2.3:80".parse().unwrap(), path).parse().unwrap();
            assert_eq!((url.host_str(), url.port_or_known_default()), (Some("10.1.2.3"), Some(80)), "{path}");
        }
    }
}
