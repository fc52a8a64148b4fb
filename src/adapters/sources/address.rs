//! The URL of a request.

use reqwest::Url;

use super::SourceError;
use crate::decide::detect::metric_source::MetricSource;

/// The URL of `path` below the source's address, whose own path and query are kept; and the value of the `Host` header,
/// where the URL has the certificate's name as its host.
pub(super) fn of(source: &MetricSource, path: &str) -> Result<(Url, Option<String>), SourceError> {
    let mut url = base(&source.url)?;
    if !path.is_empty() {
        let joined = format!("{}/{}", url.path().trim_end_matches('/'), path.trim_start_matches('/'));
        let (path, query) = joined.split_once('?').unwrap_or((&joined, ""));
        url.set_path(path);
        if !query.is_empty() {
            let own = url.query().map(|own| format!("{own}&{query}"));
            url.set_query(Some(&own.unwrap_or_else(|| query.to_owned())));
        }
    }
    let Some(name) = &source.tls.server_name else { return Ok((url, None)) };
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    url.set_host(Some(name)).map_err(|_| SourceError::Address(name.clone()))?;
    Ok((url, Some(host)))
}

/// The address as a URL; `http` where it has no scheme.
pub(super) fn base(address: &str) -> Result<Url, SourceError> {
    let has_scheme = address.starts_with("http://") || address.starts_with("https://");
    let written = if has_scheme { address.to_owned() } else { format!("http://{address}") };
    Url::parse(&written).map_err(|_| SourceError::Address(address.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::detect::metric_source::SourceTls;

    #[test]
    fn path_and_query_of_the_address_are_kept() {
        let cases = [
            ("prom:9090", "api/v1/query", "http://prom:9090/api/v1/query"),
            ("https://host/prometheus/", "api/v1/query", "https://host/prometheus/api/v1/query"),
            ("http://host/select/0/prometheus?a=b", "api", "http://host/select/0/prometheus/api?a=b"),
            ("http://host/x?a=b", "y?c=d", "http://host/x/y?a=b&c=d"),
            ("[fd00::9]:9090", "api", "http://[fd00::9]:9090/api"),
            ("detector:8080/pods?of=shop", "", "http://detector:8080/pods?of=shop"),
        ];
        for (address, path, expected) in cases {
            assert_eq!(of(&MetricSource::at(address), path).unwrap().0.as_str(), expected);
        }
        assert!(of(&MetricSource::at("http://"), "x").is_err());
    }

    #[test]
    fn with_a_server_name_the_host_header_stays_that_of_the_address() {
        let tls = SourceTls { server_name: Some("inner".into()), ..SourceTls::default() };
        let (url, host) =
            of(&MetricSource { tls, ..MetricSource::at("https://10.0.0.1:9090/p") }, "q").unwrap();
        assert_eq!((url.as_str(), host.as_deref()), ("https://inner:9090/p/q", Some("10.0.0.1:9090")));
    }
}
