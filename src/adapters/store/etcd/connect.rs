//! One connection to one endpoint. With several endpoints a session uses one and takes the next when it fails,
//! because a balancer would keep sending a part of the requests to an endpoint that is down.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use axum::http::Uri;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, KvClient, TlsOptions};
use secrecy::ExposeSecret;

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
    options: ConnectOptions,
    tls: Option<TlsOptions>,
    /// Sessions that failed.
    failures: AtomicUsize,
}

impl EtcdEndpoint {
    /// Connects, and logs in where a user is set.
    ///
    /// The first attempt is at the name, where each address has its share of the time for a connection. An address
    /// that accepts connections and does not answer fails the session only; so after a failure a name with several
    /// addresses is tried address by address, the first one last.
    pub(super) async fn connect(&self) -> Result<Client, etcd_client::Error> {
        let (url, options) = self.next().await.unwrap_or_else(|| (self.url.clone(), self.options.clone()));
        Client::connect([url], Some(options)).await
    }

    /// A session with this endpoint failed: the next one tries another of its addresses.
    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// The URL of the address whose turn it is; `None`: the name itself.
    async fn next(&self) -> Option<(String, ConnectOptions)> {
        let failures = self.failures.load(Ordering::Relaxed);
        let uri: Uri = self.url.parse().ok().filter(|_| failures > 0)?;
        let (scheme, host, port) = (uri.scheme_str()?, uri.host()?, uri.port_u16()?);
        let address = turn(failures, &addresses::resolve(host, port).await.ok()?)?;
        let options = match &self.tls {
            Some(tls) => self.options.clone().with_tls(tls.clone().domain_name(host)),
            None => self.options.clone(),
        };
        Some((format!("{scheme}://{address}"), options))
    }

    /// Adds a hint to a TLS connection that the server closes without an alert: with TLS 1.3 it checks a client
    /// certificate only after the client's side of the handshake is complete.
    pub(super) fn hint(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Unavailable { reason }
                if self.url.starts_with("https://") && HUNG_UP.iter().any(|sign| reason.contains(sign)) =>
            {
                StoreError::Unavailable {
                    reason: format!(
                        "{reason}; if it wants a client certificate, check KUBERVISOR_ETCD_CERT_FILE and _KEY_FILE"
                    ),
                }
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

/// The endpoints of `config`, with all files read.
pub(super) fn endpoints(config: &EtcdConfig, connect: Duration) -> Result<Vec<EtcdEndpoint>, StoreError> {
    let tls = tls(config)?;
    if config.endpoints.is_empty() {
        return Err(StoreError::Unusable {
            reason: "etcd: no endpoint is named; set KONTROL_ETCD to host[:port]".to_owned(),
        });
    }
    config.endpoints.iter().map(|url| endpoint(config, url, tls.as_ref(), connect)).collect()
}

fn endpoint(
    config: &EtcdConfig,
    url: &str,
    tls: Option<&TlsOptions>,
    connect: Duration,
) -> Result<EtcdEndpoint, StoreError> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(connect)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some((user, password)) = &config.login {
        options = options.with_user(user, password.expose_secret());
    }
    if url.starts_with("https://") {
        let tls = tls.ok_or_else(|| StoreError::Unusable {
            reason: format!(
                "etcd: {url} needs the CA that signed its certificate: set KUBERVISOR_ETCD_CA_FILE"
            ),
        })?;
        options = options.with_tls(tls.clone());
    } else if config.ca.is_some() || config.client.is_some() {
        return Err(StoreError::Unusable {
            reason: format!(
                "etcd: certificates are set, but {url} is not encrypted; write https:// or unset KUBERVISOR_ETCD_CA_FILE, _CERT_FILE and _KEY_FILE"
            ),
        });
    }
    Ok(EtcdEndpoint { url: url.to_owned(), options, tls: tls.cloned(), failures: AtomicUsize::new(0) })
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
    fs::read(path).map_err(|error| StoreError::Unusable {
        reason: format!("etcd: {variable}: {} cannot be read: {error}", path.display()),
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
        let options = ConnectOptions::new();
        EtcdEndpoint { url: url.to_owned(), options, tls: None, failures: AtomicUsize::new(0) }
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
        endpoint.hint(StoreError::Unavailable { reason: reason.to_owned() }).to_string()
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
