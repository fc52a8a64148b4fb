//! One question over HTTP to somebody who may be broken or malicious.
//!
//! The answer is cut off at a size while it comes in, so that it never fills the memory. A redirect is
//! never followed: whoever can answer could otherwise send us, and our credentials, to any address that
//! we can reach. How long it may take is the caller's to say, around everything.

use reqwest::{Client, RequestBuilder, StatusCode, header::LOCATION, redirect::Policy};

/// Bytes of an answer.
pub const MAX_ANSWER: usize = 16 << 20;

/// Asks; clones share their connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client,
}

/// An answer, complete.
#[derive(Debug)]
pub struct HttpAnswer {
    /// Any status but a redirect.
    pub status: StatusCode,
    /// At most [`MAX_ANSWER`] bytes.
    pub body: Vec<u8>,
}

/// No complete answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// Nothing can be asked at all.
    #[error("cannot set up an HTTP client")]
    SetUp(#[source] reqwest::Error),
    /// Nobody there, or somebody whose certificate is not trusted.
    #[error("cannot connect")]
    Connect(#[source] reqwest::Error),
    /// It came to nothing after the connection stood.
    #[error("the answer broke off")]
    Exchange(#[source] reqwest::Error),
    /// It sends us elsewhere.
    #[error("answered with {status}, a redirect to {to:?}, which is never followed: write the final address")]
    Redirected {
        /// Its status.
        status: StatusCode,
        /// Where to, as it says.
        to: String,
    },
    /// More than fits.
    #[error("the answer is larger than {MAX_ANSWER} bytes: ask for less")]
    TooLarge,
}

impl HttpClientError {
    /// A word for metrics.
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
        // An error only says that the provider is set already.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let builder = || Client::builder().no_proxy().redirect(Policy::none());
        // A system without any authority can still ask over plain HTTP.
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

/// Sends the question and reads all of the answer.
pub(super) async fn send(request: RequestBuilder) -> Result<HttpAnswer, HttpClientError> {
    let mut response = request.send().await.map_err(|error| {
        if error.is_connect() { HttpClientError::Connect(error) } else { HttpClientError::Exchange(error) }
    })?;
    let status = response.status();
    if status.is_redirection() {
        let to =
            response.headers().get(LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
        return Err(HttpClientError::Redirected { status, to: brief(&to.unwrap_or_default()) });
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

/// What a stranger wrote, cut to a length that fits a message, on one line.
pub(super) fn brief(text: &str) -> String {
    let line: String = text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().to_owned()
}
