//! HTTP requests to services that may be broken or malicious.
//!
//! An answer over [`MAX_ANSWER`] bytes is refused while it arrives. Redirects are not followed: a service could
//! otherwise send us, with our credentials, to any address that we can reach. The caller sets the timeout.

use reqwest::{Client, RequestBuilder, StatusCode, header::LOCATION, redirect::Policy};

/// Bytes of an answer, at most.
pub const MAX_ANSWER: usize = 16 << 20;

/// The client; clones share its connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client,
}

/// A complete answer.
#[derive(Debug)]
pub struct HttpAnswer {
    /// Any status except a redirect.
    pub status: StatusCode,
    /// At most [`MAX_ANSWER`] bytes.
    pub body: Vec<u8>,
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
    /// More than [`MAX_ANSWER`] bytes.
    #[error("the answer is larger than {MAX_ANSWER} bytes: ask for less")]
    TooLarge,
}

impl HttpClientError {
    /// The metric's label.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::SetUp(_) => "set_up",
            Self::Connect(_) => "connect",
            Self::Exchange(_) => "exchange",
            Self::Redirected { .. } => "redirect",
            Self::TooLarge => "too_large",
        }
    }
}

impl HttpClient {
    /// Trusts the system's certificate authorities (`SSL_CERT_FILE`, `SSL_CERT_DIR`).
    ///
    /// # Errors
    /// [`HttpClientError::SetUp`].
    pub fn new() -> Result<Self, HttpClientError> {
        // An error means that a provider is installed already.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let builder = || Client::builder().no_proxy().redirect(Policy::none());
        // Without certificate authorities plain HTTP still works.
        let client = builder().build().or_else(|error| {
            tracing::warn!(%error, "no certificate authorities found: https services will not be trusted");
            builder().tls_certs_only([]).build()
        });
        Ok(Self { client: client.map_err(HttpClientError::SetUp)? })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

/// Sends a request and reads the whole answer.
pub(super) async fn send(request: RequestBuilder) -> Result<HttpAnswer, HttpClientError> {
    let mut response = request.send().await.map_err(|error| {
        if error.is_connect() { HttpClientError::Connect(error) } else { HttpClientError::Exchange(error) }
    })?;
    let status = response.status();
    if status.is_redirection() {
        let to =
            response.headers().get(LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
        return Err(HttpClientError::Redirected(status, brief(&to.unwrap_or_default())));
    }
    if response.content_length().is_some_and(|length| length > MAX_ANSWER as u64) {
        return Err(HttpClientError::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(HttpClientError::Exchange)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(HttpClientError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(HttpAnswer { status, body })
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
