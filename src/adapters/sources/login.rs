//! Credentials of a request: bearer, basic, OAuth 2.0 client credentials, and AWS Signature Version 4.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign as sign_request,
    },
    sign::v4,
};
use oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, Scope, TokenResponse as _, TokenUrl,
    basic::BasicClient,
};
use reqwest::{
    Client, Request,
    header::{AUTHORIZATION, HOST, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::{SourceClient, SourceError, header};
use crate::{
    adapters::http_client,
    decide::detect::metric_source::{Credential, MetricSource, SourceAuth},
    exit::chain,
};

/// How long before its end a token is replaced, and the life of one without `expires_in`.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);
const TOKEN_LIFE: Duration = Duration::from_secs(300);

/// A login that failed before the request.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The credential for basic authentication has no colon.
    #[error("{0} does not hold user:password")]
    SplitSecret(Credential),
    /// The token endpoint gave no token.
    #[error("no OAuth 2.0 token from {url}: {why}")]
    Token {
        /// The token endpoint.
        url: String,
        /// Its answer.
        why: String,
    },
    /// The request cannot be signed.
    #[error("the request cannot be signed: {0}")]
    Sign(String),
}

/// An access token of OAuth 2.0.
pub(super) struct Token {
    text: SecretString,
    until: Instant,
}

impl SourceClient {
    /// Adds the source's credentials to the request.
    pub(super) async fn log_in(
        &self,
        source: &MetricSource,
        client: &Client,
        request: &mut Request,
    ) -> Result<(), SourceError> {
        let value = match &source.auth {
            None => return Ok(()),
            Some(SourceAuth::SigV4 { region, service, access_key_id, secret_access_key }) => {
                let key = Credentials::new(
                    self.secrets.read(access_key_id).await?.expose_secret().trim(),
                    self.secrets.read(secret_access_key).await?.expose_secret().trim(),
                    None,
                    None,
                    "kubervisor",
                );
                let now = SystemTime::UNIX_EPOCH
                    + Duration::from_millis(self.clock.wall().unix_millis().unsigned_abs());
                return sign(request, key, region, service, now);
            }
            Some(SourceAuth::Bearer(token)) => bearer(self.secrets.read(token).await?.expose_secret())?,
            Some(SourceAuth::Basic(pair)) => {
                let text = self.secrets.read(pair).await?;
                let (user, password) =
                    line(&text).split_once(':').ok_or_else(|| LoginError::SplitSecret(pair.clone()))?;
                basic(user, password)?
            }
            Some(SourceAuth::BasicPair(user, password)) => {
                basic(line(&self.secrets.read(user).await?), line(&self.secrets.read(password).await?))?
            }
            Some(auth @ SourceAuth::OAuth2 { .. }) => {
                bearer(self.token(auth, client).await?.expose_secret())?
            }
        };
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }

    /// A token that is still good, or a new one.
    async fn token(&self, auth: &SourceAuth, client: &Client) -> Result<SecretString, SourceError> {
        let SourceAuth::OAuth2 { token_url, client_id, client_secret, scopes } = auth else {
            return Ok(SecretString::from(""));
        };
        let place = (token_url.clone(), client_id.clone());
        if let Some(token) = self.tokens.lock().get(&place).filter(|token| token.until > Instant::now()) {
            return Ok(token.text.clone());
        }
        let failed = |why: String| LoginError::Token { url: token_url.clone(), why };
        let secret = self.secrets.read(client_secret).await?;
        let url = TokenUrl::new(token_url.clone()).map_err(|error| failed(error.to_string()))?;
        let oauth = BasicClient::new(ClientId::new(client_id.clone()))
            .set_client_secret(ClientSecret::new(line(&secret).to_owned()))
            .set_auth_type(AuthType::BasicAuth)
            .set_token_uri(url);
        let scopes = scopes.iter().cloned().map(Scope::new);
        let client = client.clone();
        let exchange = move |request: HttpRequest| exchange(client.clone(), request);
        let answer = oauth.exchange_client_credentials().add_scopes(scopes).request_async(&exchange).await;
        let answer = answer.map_err(|error| failed(chain(&error)))?;
        let life = answer.expires_in().unwrap_or(TOKEN_LIFE).saturating_sub(TOKEN_MARGIN);
        let text = SecretString::from(answer.access_token().secret().as_str());
        let token = Token { text: text.clone(), until: Instant::now() + life.min(TOKEN_LIFE * 12) };
        self.tokens.lock().insert(place, token);
        Ok(text)
    }

    /// After a refusal the next request gets a new token.
    pub(super) fn forget_token(&self, source: &MetricSource) {
        if let Some(SourceAuth::OAuth2 { token_url, client_id, .. }) = &source.auth {
            self.tokens.lock().remove(&(token_url.clone(), client_id.clone()));
        }
    }
}

/// Sends a request of the OAuth 2.0 crate.
async fn exchange(client: Client, request: HttpRequest) -> Result<HttpResponse, SourceError> {
    let request = Request::try_from(request).map_err(http_client::HttpClientError::SetUp)?;
    let answer = http_client::send(&client, request).await?;
    let mut response = HttpResponse::new(answer.body);
    *response.status_mut() = answer.status;
    // The crate refuses an answer whose type is not JSON; the content decides here.
    response
        .headers_mut()
        .insert(reqwest::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn line(text: &SecretString) -> &str {
    text.expose_secret().trim_end_matches(['\r', '\n'])
}

fn bearer(token: &str) -> Result<HeaderValue, SourceError> {
    sensitive(&format!("Bearer {}", token.trim()))
}

fn basic(user: &str, password: &str) -> Result<HeaderValue, SourceError> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    sensitive(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
}

fn sensitive(value: &str) -> Result<HeaderValue, SourceError> {
    let mut value = header("Authorization", value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Signs the request at `now`.
fn sign(
    request: &mut Request,
    key: Credentials,
    region: &str,
    service: &str,
    now: SystemTime,
) -> Result<(), SourceError> {
    let failed = |error: &dyn fmt::Display| LoginError::Sign(error.to_string());
    let identity = key.into();
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| failed(&error))?
        .into();
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
    let signable = SignableRequest::new(
        request.method().as_str(),
        request.url().as_str(),
        host.iter().map(|host| ("host", host.as_str())),
        SignableBody::Bytes(body),
    );
    let signed = sign_request(signable.map_err(|error| failed(&error))?, &parameters);
    let (instructions, _) = signed.map_err(|error| failed(&error))?.into_parts();
    for (name, value) in instructions.headers() {
        let field = HeaderName::try_from(name).map_err(|error| failed(&error))?;
        request.headers_mut().insert(field, header(name, value)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use reqwest::{Method, Url};

    use super::*;

    /// The case "get-vanilla" of the test suite that AWS publishes for Signature Version 4.
    #[test]
    fn a_signature_is_that_of_the_published_test_vector() {
        let url = Url::parse("https://example.amazonaws.com/").unwrap();
        let mut request = Request::new(Method::GET, url);
        let key =
            Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None, None, "test");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        sign(&mut request, key, "us-east-1", "service", now).unwrap();
        assert_eq!(request.headers()["x-amz-date"], "20150830T123600Z");
        assert_eq!(
            request.headers()[AUTHORIZATION],
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }

    #[test]
    fn a_credential_with_a_line_break_inside_is_refused() {
        assert!(matches!(bearer("a\nb"), Err(SourceError::Header(_))));
        assert_eq!(bearer("a\n").unwrap(), "Bearer a");
    }
}
