//! Clients with certificate authorities, an identity or a server name of their own.

use std::net::SocketAddr;

use reqwest::{
    Certificate, Client, Identity,
    dns::{Addrs, Name, Resolve, Resolving},
};

use super::{SourceError, address};
use crate::adapters::http_client::{self, HttpClientError};

/// PEM texts.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Material {
    pub(super) ca: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

/// A client and the material that it was made of.
pub(super) struct KeptClient {
    pub(super) client: Client,
    pub(super) material: Material,
}

impl KeptClient {
    pub(super) fn new(
        material: Material,
        server_name: Option<&str>,
        address: &str,
    ) -> Result<Self, SourceError> {
        let mut builder = http_client::builder();
        if let Some(ca) = &material.ca {
            let found = Certificate::from_pem_bundle(ca.as_bytes());
            let trusted = found.map_err(|error| unusable("the CA certificate", &error))?;
            if trusted.is_empty() {
                let why = "it holds no PEM certificate".to_owned();
                return Err(SourceError::Tls { what: "the CA certificate", why });
            }
            builder = builder.tls_certs_only(trusted);
        }
        if let (Some(certificate), Some(key)) = (&material.certificate, &material.key) {
            let identity = Identity::from_pem(format!("{certificate}\n{key}").as_bytes());
            builder = builder
                .identity(identity.map_err(|error| unusable("the client certificate or its key", &error))?);
        }
        if server_name.is_some() {
            let host = address::base(address)?.host_str().unwrap_or_default().to_owned();
            builder = builder.dns_resolver(FixedHost(host.trim_matches(['[', ']']).to_owned()));
        }
        let client = builder.build().map_err(HttpClientError::SetUp)?;
        Ok(Self { client, material })
    }
}

fn unusable(what: &'static str, error: &reqwest::Error) -> SourceError {
    let source = std::error::Error::source(error).map(ToString::to_string);
    SourceError::Tls { what, why: source.unwrap_or_else(|| error.to_string()) }
}

/// Resolves every name to the addresses of this host: the URL has the certificate's name in its place.
struct FixedHost(String);

impl Resolve for FixedHost {
    fn resolve(&self, _name: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}
