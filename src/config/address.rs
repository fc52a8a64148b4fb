//! Addresses as settings name them: `host[:port]` with an optional scheme, and `IP:PORT` to serve on.

use std::net::SocketAddr;

use hyper::http::uri::Authority;

use super::{Dialect, MasterTarget};

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `host[:port]`.
    #[error("{0:?} is not host[:port]")]
    Malformed(String),
    /// An IPv6 literal.
    #[error("{0:?} is an IPv6 address, which is not supported; write a name or an IPv4 address")]
    Ipv6(String),
    /// An unknown scheme.
    #[error("{0:?}: this scheme is not spoken; write host[:port] for ZeroRPC or http://host[:port]")]
    Scheme(String),
}

/// Splits `host[:port]`.
///
/// # Errors
/// When it is neither, or an IPv6 address.
pub fn host_and_port(text: &str) -> Result<(String, Option<u16>), AddressError> {
    let malformed = || AddressError::Malformed(text.to_owned());
    if text.starts_with('[') || text.matches(':').count() > 1 {
        return Err(AddressError::Ipv6(text.to_owned()));
    }
    let authority: Authority = text.parse().map_err(|_| malformed())?;
    let port = match text.split_once(':') {
        Some((_, port)) => Some(port.parse().ok().filter(|&port| port > 0).ok_or_else(malformed)?),
        None => None,
    };
    if authority.host().is_empty() || text.contains(['@', '%']) {
        return Err(malformed());
    }
    Ok((authority.host().to_owned(), port))
}

/// An address to serve on: `IP:PORT`, or `:PORT` for all addresses.
pub fn serving(text: &str) -> Option<SocketAddr> {
    if text.starts_with(':') { format!("0.0.0.0{text}").parse().ok() } else { text.parse().ok() }
}

/// As [`serving`]; `Some(None)` for `off`.
pub fn serving_or_off(text: &str) -> Option<Option<SocketAddr>> {
    if text == "off" { Some(None) } else { serving(text).map(Some) }
}

/// A master as an annotation names it: `host[:port]` or `http://host[:port]`.
///
/// # Errors
/// When it is neither.
pub fn master(text: &str, default_port: u16) -> Result<MasterTarget, AddressError> {
    let (dialect, rest) = match text.split_once("://") {
        None => (Dialect::ZeroRpc, text),
        Some(("tcp", rest)) => (Dialect::ZeroRpc, rest),
        Some(("http", rest)) => (Dialect::Http, rest.strip_suffix('/').unwrap_or(rest)),
        Some(_) => return Err(AddressError::Scheme(text.to_owned())),
    };
    let (host, port) = host_and_port(rest)?;
    Ok(MasterTarget { host, port: port.unwrap_or(default_port), dialect })
}

/// An etcd endpoint as a URL: `host`, `host:port` or `http(s)://host[:port]`; `scheme` where none is written.
///
/// # Errors
/// When it is none of these.
pub(super) fn etcd(text: &str, scheme: &str) -> Result<String, AddressError> {
    let (scheme, rest) = match text.split_once("://") {
        None => (scheme, text),
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest.strip_suffix('/').unwrap_or(rest)),
        Some(_) => return Err(AddressError::Malformed(text.to_owned())),
    };
    let (host, port) = host_and_port(rest)?;
    Ok(format!("{scheme}://{host}:{}", port.unwrap_or(2379)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_are_named_by_host_and_port_with_the_older_dialect_as_http() {
        let target = |host: &str, port, dialect| Ok(MasterTarget { host: host.to_owned(), port, dialect });
        assert_eq!(master("monitor.test.svc", 8000), target("monitor.test.svc", 8000, Dialect::ZeroRpc));
        assert_eq!(master("10.0.0.1:9", 8000), target("10.0.0.1", 9, Dialect::ZeroRpc));
        assert_eq!(master("tcp://10.0.0.1:9", 8000), target("10.0.0.1", 9, Dialect::ZeroRpc));
        assert_eq!(master("http://monitor/", 8000), target("monitor", 8000, Dialect::Http));
        assert_eq!(master("http://monitor:80", 8000), target("monitor", 80, Dialect::Http));
    }

    #[test]
    fn what_names_no_host_is_refused() {
        for text in ["", ":80", "a:", "a:0", "a:65536", "a:x", "a b", "user@a", "http://a/path", "http://"] {
            assert!(matches!(master(text, 8000), Err(AddressError::Malformed(_))), "{text}");
        }
        for text in ["::1", "[::1]:80", "fe80::1"] {
            assert!(matches!(master(text, 8000), Err(AddressError::Ipv6(_))), "{text}");
        }
        assert!(matches!(master("https://a", 8000), Err(AddressError::Scheme(_))));
    }

    #[test]
    fn etcd_endpoints_become_urls() {
        assert_eq!(etcd("a", "http").unwrap(), "http://a:2379");
        assert_eq!(etcd("a:1", "https").unwrap(), "https://a:1");
        assert_eq!(etcd("https://a/", "http").unwrap(), "https://a:2379");
        assert!(etcd("ftp://a", "http").is_err());
    }
}
