//! Where a detector's numbers come from: address, headers, TLS and credentials of an HTTP service.
//!
//! Credentials are references: they are read for each request, so that a rotated one takes effect at once. A manifest
//! can name Secrets and ConfigMaps of its own namespace only; files are for the operator's own list of sources.

use std::{fmt, path::PathBuf};

/// An HTTP service that is asked for numbers or pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricSource {
    /// `host:port`, or a URL of `http` or `https` with an optional path and query.
    pub url: String,
    /// Added to every request.
    pub headers: Vec<SourceHeader>,
    /// Trust and identity; the system's authorities when empty.
    pub tls: SourceTls,
    /// Credentials, if the server requires any.
    pub auth: Option<SourceAuth>,
}

/// A request header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceHeader {
    /// Its name, such as `X-Scope-OrgID`.
    pub name: String,
    /// Its value.
    pub value: SourceText,
}

/// A text of the manifest, or one from a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceText {
    /// As written.
    Plain(String),
    /// Read for each request.
    From(Credential),
}

/// TLS settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourceTls {
    /// PEM certificates of the only authorities to trust.
    pub ca: Option<Credential>,
    /// PEM certificate chain and private key of this client.
    pub identity: Option<(Credential, Credential)>,
    /// The name that the server's certificate must have, in place of the URL's host.
    pub server_name: Option<String>,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAuth {
    /// A bearer token.
    Bearer(Credential),
    /// `user:password` in one text.
    Basic(Credential),
    /// User and password apart, as in a Secret of type `kubernetes.io/basic-auth`.
    BasicPair(Credential, Credential),
    /// OAuth 2.0 client credentials (RFC 6749, 4.4).
    OAuth2 {
        /// Where tokens are issued.
        token_url: String,
        /// The client's name.
        client_id: String,
        /// The client's secret.
        client_secret: Credential,
        /// Requested scopes.
        scopes: Vec<String>,
    },
    /// AWS Signature Version 4.
    SigV4 {
        /// The region, such as `eu-west-1`.
        region: String,
        /// The service's signing name, such as `aps`.
        service: String,
        /// Access key id.
        access_key_id: Credential,
        /// Secret access key.
        secret_access_key: Credential,
    },
}

/// A reference to a secret text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Credential {
    /// A key of a Secret in the resource's namespace.
    Secret {
        /// The Secret.
        name: String,
        /// The key in its data.
        key: String,
    },
    /// A key of a ConfigMap in the resource's namespace.
    ConfigMap {
        /// The ConfigMap.
        name: String,
        /// The key in its data.
        key: String,
    },
    /// A file of this process.
    File(PathBuf),
    /// An environment variable of this process.
    Variable(String),
}

/// Its place, without the key.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret { name, .. } => write!(f, "Secret {name}"),
            Self::ConfigMap { name, .. } => write!(f, "ConfigMap {name}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Variable(name) => write!(f, "the variable {name}"),
        }
    }
}

impl MetricSource {
    /// A service without credentials.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }
}
