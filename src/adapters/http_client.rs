//! HTTP requests to services that may be broken or malicious.
//!
//! An answer over [`MAX_ANSWER`] bytes is refused while it arrives. Redirects are not followed: a service could
//! otherwise send us, with our credentials, to any address that we can reach. The caller sets the timeout.

mod resolver;

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Client, ClientBuilder, Request, Response, StatusCode,
    header::{CONTENT_ENCODING, HeaderName, LOCATION, RETRY_AFTER},
    redirect::Policy,
};

use self::resolver::TurningResolver;

/// Bytes of an answer, at most.
pub const MAX_ANSWER: usize = 16 << 20;

/// For a connection; each address of the host gets its share.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A complete answer.
#[derive(Debug)]
pub struct HttpAnswer {
    /// Any status except a redirect.
    pub status: StatusCode,
    /// At most [`MAX_ANSWER`] bytes.
    pub body: Vec<u8>,
    /// The field `Retry-After`.
    pub retry_after: Option<String>,
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(super) struct OpenAnswer {
    /// Any status except a redirect.
    pub(super) status: StatusCode,
    /// The field `Retry-After`.
    pub(super) retry_after: Option<String>,
    response: Response,
}

/// No complete answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// The client could not be created.
    #[error("cannot set up an HTTP client")]
    SetUp(#[source] reqwest::Error),
    /// No connection, or a certificate that is not trusted.
    #[error("cannot connect")]
    Connect(#[source] reqwest::Error),
    /// The exchange failed after the connection was established.
    #[error("the answer broke off")]
    Exchange(#[source] reqwest::Error),
    /// A redirect to this `Location`.
    #[error("answered with {0}, a redirect to {1:?}, which is never followed: write the final address")]
    Redirected(StatusCode, String),
    /// A compression that nobody asked for and that is not known here.
    #[error("answered in the encoding {0:?}, which was not asked for: let it answer plainly or with gzip")]
    Encoded(String),
    /// More than [`MAX_ANSWER`] bytes.
    #[error("the answer is larger than {MAX_ANSWER} bytes: ask for less")]
    TooLarge,
}

impl HttpClientError {
    /// The metric's label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::SetUp(_) => "set_up",
            Self::Connect(_) => "connect",
            Self::Exchange(_) => "exchange",
            Self::Redirected { .. } => "redirect",
            Self::Encoded(_) => "format",
            Self::TooLarge => "too_large",
        }
    }
}

/// A client that trusts the system's certificate authorities (`SSL_CERT_FILE`, `SSL_CERT_DIR`).
pub(super) fn client() -> Result<Client, HttpClientError> {
    // Without certificate authorities plain HTTP still works.
    let client = builder().build().or_else(|error| {
        tracing::warn!(%error, "no certificate authorities found: https services will not be trusted");
        builder().tls_certs_only([]).build()
    });
    client.map_err(HttpClientError::SetUp)
}

/// What all clients have in common.
pub(super) fn builder() -> ClientBuilder {
    // An error means that a provider is installed already.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder().no_proxy().redirect(Policy::none());
    builder.connect_timeout(CONNECT_TIMEOUT).dns_resolver(TurningResolver::shared().clone())
}

/// Sends a request and reads the whole answer.
pub(super) async fn send(client: &Client, request: Request) -> Result<HttpAnswer, HttpClientError> {
    let exchange = TurningResolver::shared().exchange(request.url().host_str().unwrap_or_default());
    let answer = open(client, request).await?.whole().await?;
    exchange.answered();
    Ok(answer)
}

/// Sends a request and reads the head of the answer.
pub(super) async fn open(client: &Client, request: Request) -> Result<OpenAnswer, HttpClientError> {
    let response = client.execute(request).await.map_err(|error| {
        if error.is_connect() { HttpClientError::Connect(error) } else { HttpClientError::Exchange(error) }
    })?;
    let status = response.status();
    let field = |name: HeaderName| {
        response.headers().get(name).map(|value| brief(&String::from_utf8_lossy(value.as_bytes())))
    };
    if status.is_redirection() {
        return Err(HttpClientError::Redirected(status, field(LOCATION).unwrap_or_default()));
    }
    // Gzip is decoded by the client, which then removes this field.
    if let Some(encoding) = field(CONTENT_ENCODING).filter(|encoding| encoding != "identity") {
        return Err(HttpClientError::Encoded(encoding));
    }
    let retry_after = field(RETRY_AFTER);
    Ok(OpenAnswer { status, retry_after, response })
}

impl OpenAnswer {
    /// The next part of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, HttpClientError> {
        self.response.chunk().await.map_err(HttpClientError::Exchange)
    }

    /// Reads the body.
    pub(super) async fn whole(mut self) -> Result<HttpAnswer, HttpClientError> {
        if self.response.content_length().is_some_and(|length| length > MAX_ANSWER as u64) {
            return Err(HttpClientError::TooLarge);
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(HttpClientError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(HttpAnswer { status: self.status, body, retry_after: self.retry_after })
    }
}

/// Untrusted text for a message: at most 200 characters, on one line.
pub(super) fn brief(text: &str) -> String {
    let line: String = text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().to_owned()
}

/// The beginning of a body for a message.
pub(super) fn beginning(body: &[u8]) -> String {
    brief(&String::from_utf8_lossy(body.get(..800).unwrap_or(body)))
}
