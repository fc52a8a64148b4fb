//! One connection to one endpoint. With several endpoints a session uses one and takes the next when it fails,
//! because a balancer would keep sending a part of the requests to an endpoint that is down.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::Uri;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, KvClient, TlsOptions};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    adapters::{addresses, store::StoreError},
    config::EtcdConfig,
};

/// Limit of an answer in bytes: a page of records.
const ANSWER_LIMIT: usize = 256 << 20;

/// Texts of the transport for a connection that the server closed; which one depends on the moment.
const HUNG_UP: [&str; 4] = ["connection closed", "broken pipe", "connection reset", "stream closed"];

/// How to reach one endpoint.
pub(super) struct EtcdEndpoint {
    pub(super) url: String,
    timeout: Duration,
    credentials: Arc<EtcdCredentials>,
    /// Sessions that failed.
    failures: AtomicUsize,
}

/// Password and certificates, read anew for each connection: a refused token or a rotated file takes effect with the
/// next one. While a file cannot be read its last content is used.
struct EtcdCredentials {
    config: EtcdConfig,
    last: Mutex<EtcdMaterial>,
}

#[derive(Clone, Default)]
struct EtcdMaterial {
    login: Option<(String, SecretString)>,
    tls: Option<TlsOptions>,
}

impl EtcdCredentials {
    fn read(&self) -> EtcdMaterial {
        let mut last = self.last.lock();
        match material(&self.config) {
            Ok(fresh) => last.clone_from(&fresh),
            Err(error) => tracing::warn!(%error, "the last content is used"),
        }
        last.clone()
    }
}

impl EtcdEndpoint {
    /// Connects, and logs in where a user is set.
    ///
    /// The first attempt is at the name, where each address has its share of the time for a connection. An address
    /// that accepts connections and does not answer fails the session only; so after a failure a name with several
    /// addresses is tried address by address, the first one last.
    pub(super) async fn connect(&self) -> Result<Client, etcd_client::Error> {
        let EtcdMaterial { login, tls } = self.credentials.read();
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.timeout)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &login {
            options = options.with_user(user, password.expose_secret());
        }
        let next = self.next().await;
        if let Some(tls) = tls.filter(|_| self.url.starts_with("https://")) {
            options = options.with_tls(match &next {
                Some((_, host)) => tls.domain_name(host),
                None => tls,
            });
        }
        let url = next.map_or_else(|| self.url.clone(), |(url, _)| url);
        Client::connect([url], Some(options)).await
    }

    /// A session with this endpoint failed: the next one tries another of its addresses.
    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// The URL of the address whose turn it is, and the name; `None`: the name itself.
    async fn next(&self) -> Option<(String, String)> {
        let failures = self.failures.load(Ordering::Relaxed);
        let uri: Uri = self.url.parse().ok().filter(|_| failures > 0)?;
        let (scheme, host, port) = (uri.scheme_str()?, uri.host()?, uri.port_u16()?);
        let address = turn(failures, &addresses::resolve(host, port).await.ok()?)?;
        Some((format!("{scheme}://{address}"), host.to_owned()))
    }

    /// Adds a hint to a TLS connection that the server closes without an alert: with TLS 1.3 it checks a client
    /// certificate only after the client's side of the handshake is complete.
    pub(super) fn hint(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Unavailable(reason)
                if self.url.starts_with("https://") && HUNG_UP.iter().any(|sign| reason.contains(sign)) =>
            {
                StoreError::Unavailable(format!(
                    "{reason}; if it wants a client certificate, check KUBERVISOR_ETCD_CERT_FILE and _KEY_FILE"
                ))
            }
            other => other,
        }
    }
}

/// What to try after `failures`: `None` is the name itself. A name with one address has no other turn.
fn turn(failures: usize, addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let turn = failures % (addresses.len() + 1);
    addresses.iter().rev().nth(turn.checked_sub(1)?).filter(|_| addresses.len() > 1).copied()
}

/// The endpoints of `config`, with all files read once.
pub(super) fn endpoints(config: &EtcdConfig, connect: Duration) -> Result<Vec<EtcdEndpoint>, StoreError> {
    let unusable = |reason: String| Err(StoreError::Unusable(reason));
    if config.endpoints.is_empty() {
        return unusable("etcd: no endpoint is named; set KONTROL_ETCD to host[:port]".to_owned());
    }
    for url in &config.endpoints {
        let encrypted = url.starts_with("https://");
        if encrypted && config.ca.is_none() {
            return unusable(format!(
                "etcd: {url} needs the CA that signed its certificate: set KUBERVISOR_ETCD_CA_FILE"
            ));
        }
        if !encrypted && (config.ca.is_some() || config.client.is_some()) {
            return unusable(format!(
                "etcd: certificates are set, but {url} is not encrypted; write https:// or unset KUBERVISOR_ETCD_CA_FILE, _CERT_FILE and _KEY_FILE"
            ));
        }
    }
    let last = Mutex::new(material(config)?);
    let credentials = Arc::new(EtcdCredentials { config: config.clone(), last });
    let endpoint = |url: &String| EtcdEndpoint {
        url: url.clone(),
        timeout: connect,
        credentials: Arc::clone(&credentials),
        failures: AtomicUsize::new(0),
    };
    Ok(config.endpoints.iter().map(endpoint).collect())
}

fn material(config: &EtcdConfig) -> Result<EtcdMaterial, StoreError> {
    let login = config.login.as_ref().map(|(user, file)| {
        let text = String::from_utf8_lossy(&read("KUBERVISOR_ETCD_PASSWORD_FILE", file)?).into_owned();
        Ok::<_, StoreError>((user.clone(), text.trim_end_matches(['\n', '\r']).into()))
    });
    Ok(EtcdMaterial { login: login.transpose()?, tls: tls(config)? })
}

fn tls(config: &EtcdConfig) -> Result<Option<TlsOptions>, StoreError> {
    let Some(ca) = &config.ca else { return Ok(None) };
    let mut tls =
        TlsOptions::new().ca_certificate(Certificate::from_pem(read("KUBERVISOR_ETCD_CA_FILE", ca)?));
    if let Some((certificate, key)) = &config.client {
        let certificate = read("KUBERVISOR_ETCD_CERT_FILE", certificate)?;
        tls = tls.identity(Identity::from_pem(certificate, read("KUBERVISOR_ETCD_KEY_FILE", key)?));
    }
    Ok(Some(tls))
}

fn read(variable: &str, path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|error| {
        StoreError::Unusable(format!("etcd: {variable}: {} cannot be read: {error}", path.display()))
    })
}

/// A client for reads, whose answers may be large.
pub(super) fn reader(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(ANSWER_LIMIT)
}

/// A client for the watch, whose answers may be large.
pub(super) fn watcher(client: &Client) -> etcd_client::WatchClient {
    client.watch_client().max_decoding_message_size(ANSWER_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(url: &str) -> EtcdEndpoint {
        EtcdEndpoint {
            url: url.to_owned(),
            timeout: Duration::from_secs(1),
            credentials: Arc::new(EtcdCredentials { config: EtcdConfig::default(), last: Mutex::default() }),
            failures: AtomicUsize::new(0),
        }
    }

    #[test]
    fn after_a_failure_each_address_of_a_name_has_its_turn_the_first_one_last() {
        let addresses: Vec<SocketAddr> =
            ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap()).into();
        let turns: Vec<_> = (0..4).map(|failures| turn(failures, &addresses)).collect();
        assert_eq!(turns, [None, Some(addresses[1]), Some(addresses[0]), None]);
    }

    #[tokio::test]
    async fn an_endpoint_with_one_address_is_always_tried_by_its_name() {
        let endpoint = plain("http://127.0.0.1:2379");
        for _ in 0..3 {
            assert!(endpoint.next().await.is_none());
            endpoint.failed();
        }
    }

    fn hinted(url: &str, reason: &str) -> String {
        let endpoint = plain(url);
        endpoint.hint(StoreError::Unavailable(reason.to_owned())).to_string()
    }

    #[test]
    fn however_a_tls_server_hangs_up_the_certificate_is_named() {
        for reason in [
            "transport error: connection closed",
            "connection error: stream closed because of a broken pipe",
            "connection error: connection reset",
        ] {
            assert!(hinted("https://a:2379", reason).contains("KUBERVISOR_ETCD_CERT_FILE"), "{reason}");
            assert!(!hinted("http://a:2379", reason).contains("CERT_FILE"), "{reason}");
        }
        assert!(!hinted("https://a:2379", "connection refused").contains("CERT_FILE"));
    }
}
