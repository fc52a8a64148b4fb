//! Requests to the services that detectors ask: address, headers, TLS and credentials of a [`MetricSource`].
//!
//! Credentials are read for each request, so that a rotated one takes effect at once. A client with its own TLS material
//! is kept until that material changes. A service that answers 429 or 503 with `Retry-After` is not asked before that
//! time.

mod address;
mod login;
mod tls;

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use reqwest::{
    Client, Method, Request, StatusCode,
    header::{HeaderName, HeaderValue},
};
use secrecy::ExposeSecret;
use tokio::time::Instant;

pub use self::login::LoginError;
use self::{login::Token, tls::KeptClient};
use super::{
    http_client::{self, HttpAnswer, HttpClientError, OpenAnswer},
    secrets::{SecretError, Secrets},
};
use crate::{
    clock::Clock,
    decide::{
        detect::metric_source::{Credential, MetricSource, SourceText, SourceTls},
        time::Timestamp,
    },
};

/// The longest time that a service may ask us to stay away, in seconds.
const LONGEST_RETRY_AFTER: u64 = 300;

/// Bytes of the query from which a request is a POST.
const LONG_QUERY: usize = 2048;

/// A request that was not sent or has no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The credentials cannot be read.
    #[error(transparent)]
    ReadSecret(#[from] SecretError),
    /// No complete answer.
    #[error(transparent)]
    Inquire(#[from] HttpClientError),
    /// The address is no URL.
    #[error("the address {0:?} is no URL of http or https")]
    Address(String),
    /// A header's value has bytes that HTTP forbids, such as a line break.
    #[error("the value of the header {0} has a control character: is there a line break at its end?")]
    Header(String),
    /// The TLS material cannot be used.
    #[error("{what} is not usable: {why}")]
    Tls {
        /// Certificate authority, certificate or key.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// No login.
    #[error(transparent)]
    LogIn(#[from] LoginError),
    /// Authentication failed, with status 401 or 403.
    #[error("refused us with status {0}: check auth, and the headers that name a tenant")]
    Denied(u16),
    /// Asked for a pause, which is not over.
    #[error("asked to be left alone for {} s more (Retry-After)", .0.as_secs())]
    Resting(Duration),
}

impl SourceError {
    /// The metric's label.
    pub fn category(&self) -> &'static str {
        match self {
            Self::ReadSecret(_) | Self::Header(_) => "secret",
            Self::Inquire(error) => error.category(),
            Self::Address(_) | Self::Tls { .. } => "set_up",
            Self::LogIn(LoginError::SplitSecret(_)) => "secret",
            Self::LogIn(_) | Self::Denied(_) => "log_in",
            Self::Resting(_) => "resting",
        }
    }
}

/// Sends requests with the credentials of one namespace.
pub struct SourceClient {
    http: Client,
    clock: Clock,
    secrets: Arc<dyn Secrets>,
    /// Clients with TLS material of their own, by source.
    clients: Mutex<HashMap<(SourceTls, String), KeptClient>>,
    tokens: Mutex<HashMap<(String, String), Token>>,
    /// Until when a service asked not to be asked, by its address.
    resting: Mutex<HashMap<String, Instant>>,
}

impl SourceClient {
    /// With credentials from `secrets`.
    ///
    /// # Errors
    /// [`HttpClientError::SetUp`].
    pub fn new(secrets: Arc<dyn Secrets>, clock: Clock) -> Result<Self, HttpClientError> {
        Ok(Self::over(http_client::client()?, secrets, clock))
    }

    /// With other credentials, such as another namespace's, and the same connections.
    pub fn with_secrets(&self, secrets: Arc<dyn Secrets>) -> Self {
        Self::over(self.http.clone(), secrets, self.clock)
    }

    fn over(http: Client, secrets: Arc<dyn Secrets>, clock: Clock) -> Self {
        let (clients, tokens, resting) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { http, clock, secrets, clients, tokens, resting }
    }

    /// Asks `source` for `path` below its address. Long parameters are sent as the form of a POST.
    ///
    /// # Errors
    /// [`SourceError`] for anything except an answer whose status is no redirect and not 401 or 403.
    pub async fn ask(
        &self,
        source: &MetricSource,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<HttpAnswer, SourceError> {
        let (client, request) = self.request(source, path, parameters).await?;
        let answer = http_client::send(&client, request).await?;
        self.note(source, answer.status, answer.retry_after.as_deref())?;
        Ok(answer)
    }

    /// As [`ask`](Self::ask), for an answer that is read in parts.
    pub(super) async fn open(
        &self,
        source: &MetricSource,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<OpenAnswer, SourceError> {
        let (client, request) = self.request(source, path, parameters).await?;
        let answer = http_client::open(&client, request).await?;
        self.note(source, answer.status, answer.retry_after.as_deref())?;
        Ok(answer)
    }

    async fn request(
        &self,
        source: &MetricSource,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<(Client, Request), SourceError> {
        if let Some(until) = self.resting.lock().get(&source.url).copied()
            && let Some(left) = until.checked_duration_since(Instant::now())
        {
            return Err(SourceError::Resting(left));
        }
        let client = self.client(source).await?;
        let (url, host) = address::of(source, path)?;
        let long = parameters.iter().map(|(_, value)| value.len()).sum::<usize>() > LONG_QUERY;
        let request = match (parameters.is_empty(), long) {
            (true, _) => client.get(url),
            (false, false) => client.get(url).query(parameters),
            (false, true) => client.request(Method::POST, url).form(parameters),
        };
        let mut request = request.build().map_err(HttpClientError::SetUp)?;
        if let Some(host) = host {
            request.headers_mut().insert(reqwest::header::HOST, header("Host", &host)?);
        }
        self.add_headers(source, &mut request).await?;
        self.log_in(source, &client, &mut request).await?;
        Ok((client, request))
    }

    /// What a status means for the next request.
    fn note(
        &self,
        source: &MetricSource,
        status: StatusCode,
        retry_after: Option<&str>,
    ) -> Result<(), SourceError> {
        match status.as_u16() {
            status @ (401 | 403) => {
                self.forget_token(source);
                Err(SourceError::Denied(status))
            }
            429 | 503 => {
                self.rest(source, retry_after);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn rest(&self, source: &MetricSource, after: Option<&str>) {
        let Some(after) = after.and_then(|after| retry_after(after, self.clock.wall())) else { return };
        let until = Instant::now() + after.min(Duration::from_secs(LONGEST_RETRY_AFTER));
        let mut resting = self.resting.lock();
        resting.retain(|_, until| *until > Instant::now());
        resting.insert(source.url.clone(), until);
    }

    async fn add_headers(&self, source: &MetricSource, request: &mut Request) -> Result<(), SourceError> {
        for one in &source.headers {
            let value = match &one.value {
                SourceText::Plain(text) => text.clone(),
                SourceText::From(credential) => self
                    .secrets
                    .read(credential)
                    .await?
                    .expose_secret()
                    .trim_end_matches(['\r', '\n'])
                    .to_owned(),
            };
            let name = HeaderName::try_from(&one.name).map_err(|_| SourceError::Header(one.name.clone()))?;
            request.headers_mut().insert(name, header(&one.name, &value)?);
        }
        Ok(())
    }

    async fn read_bytes(&self, credential: Option<&Credential>) -> Result<Option<String>, SecretError> {
        let Some(credential) = credential else { return Ok(None) };
        Ok(Some(self.secrets.read(credential).await?.expose_secret().to_owned()))
    }

    async fn client(&self, source: &MetricSource) -> Result<Client, SourceError> {
        let tls = &source.tls;
        if *tls == SourceTls::default() {
            return Ok(self.http.clone());
        }
        let identity = tls.identity.as_ref();
        let material = tls::Material {
            ca: self.read_bytes(tls.ca.as_ref()).await?,
            certificate: self.read_bytes(identity.map(|(certificate, _)| certificate)).await?,
            key: self.read_bytes(identity.map(|(_, key)| key)).await?,
        };
        let place = (tls.clone(), source.url.clone());
        if let Some(kept) = self.clients.lock().get(&place).filter(|kept| kept.material == material) {
            return Ok(kept.client.clone());
        }
        let kept = KeptClient::new(material, tls.server_name.as_deref(), &source.url)?;
        let client = kept.client.clone();
        self.clients.lock().insert(place, kept);
        Ok(client)
    }
}

fn header(name: &str, value: &str) -> Result<HeaderValue, SourceError> {
    HeaderValue::try_from(value).map_err(|_| SourceError::Header(name.to_owned()))
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let seconds = value.parse().ok().map(Duration::from_secs);
    let until = || {
        let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
        Some(Timestamp::from_unix_millis(date.as_millisecond()).since(now)).filter(|left| !left.is_zero())
    };
    seconds.or_else(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let now = Timestamp::from_unix_millis(1_445_412_450_000); // 07:27:30
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:00:00 GMT", now), None, "it is past");
        assert_eq!(retry_after("soon", now), None);
    }
}
