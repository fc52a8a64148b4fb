//! Who reads `--view-addr`: a bearer token in the request's header, as a proxy sets it, or in a session begun by a form.
//!
//! The session is a random number in a cookie that scripts cannot read and other sites cannot send; the token stays here.
//! A token's rights are asked for again after [`FRESH`], so that a token that was taken back opens nothing for longer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use axum::{
    Form,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use minijinja::context;
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    View,
    audience::Audience,
    handlers::{self, VERSION},
};
use crate::{
    adapters::kubernetes::reviews::{ReviewError, Reviewer},
    exit::chain,
};

/// The prefix makes browsers refuse it without TLS or with a wider path or domain.
const COOKIE: &str = "__Host-kubervisor-view";
/// How long the result of a review counts.
const FRESH: Duration = Duration::from_secs(60);
/// How long a session lasts, if its token does.
const SESSION: Duration = Duration::from_secs(8 * 3600);
/// Sessions and reviewed tokens that are kept; the oldest go first.
const KEPT: usize = 1000;
/// Tokens under review at a time; the others wait.
const REVIEWS: usize = 4;
/// Namespaces of one reader under review at a time.
const NAMESPACES: usize = 8;
/// Longer texts are no tokens.
const LONGEST_TOKEN: usize = 16 * 1024;

/// Sessions and reviewed tokens of one process.
pub(super) struct Login {
    reviewer: Reviewer,
    view: Arc<View>,
    sessions: Mutex<BTreeMap<String, LoginSession>>,
    /// By token.
    reviewed: Mutex<BTreeMap<String, Reviewed>>,
    reviews: Semaphore,
}

struct Reviewed {
    at: Instant,
    /// `None`: the token is not valid.
    audience: Option<Arc<Audience>>,
}

struct LoginSession {
    token: SecretString,
    begun: Instant,
}

/// The form's field.
#[derive(Deserialize)]
pub(super) struct LoginForm {
    token: String,
}

impl Login {
    pub(super) fn new(view: Arc<View>, reviewer: Reviewer) -> Self {
        Self {
            reviewer,
            view,
            sessions: Mutex::default(),
            reviewed: Mutex::default(),
            reviews: Semaphore::new(REVIEWS),
        }
    }

    /// The token of a request.
    fn token(&self, headers: &HeaderMap) -> Option<SecretString> {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.split_once(' '));
        if let Some((_, token)) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
            return Some(SecretString::from(token.trim()));
        }
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
        let mut pairs =
            cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, id) = pairs.find(|(name, _)| *name == COOKIE)?;
        let mut sessions = self.sessions.lock();
        sessions.retain(|_, session| session.begun.elapsed() < SESSION);
        sessions.get(id).map(|session| session.token.clone())
    }

    /// What the token's user sees; `None` for a token that is not valid.
    async fn audience(&self, token: &SecretString) -> Result<Option<Arc<Audience>>, ReviewError> {
        let text = token.expose_secret();
        if text.is_empty() || text.len() > LONGEST_TOKEN {
            return Ok(None);
        }
        let known = || {
            let reviewed = self.reviewed.lock();
            reviewed.get(text).filter(|known| known.at.elapsed() < FRESH).map(|known| known.audience.clone())
        };
        if let Some(known) = known() {
            return Ok(known);
        }
        // Never closed.
        let _turn = self.reviews.acquire().await.ok();
        if let Some(known) = known() {
            return Ok(known);
        }
        let audience = self.review(text).await?.map(Arc::new);
        let mut reviewed = self.reviewed.lock();
        reviewed.retain(|_, known| known.at.elapsed() < FRESH);
        make_room(&mut reviewed, |known| known.at);
        reviewed.insert(text.to_owned(), Reviewed { at: Instant::now(), audience: audience.clone() });
        Ok(audience)
    }

    async fn review(&self, token: &str) -> Result<Option<Audience>, ReviewError> {
        let Some(user) = self.reviewer.user(token).await? else { return Ok(None) };
        if self.reviewer.may_get(&user, None).await? {
            return Ok(Some(Audience::Everything));
        }
        let namespaces: BTreeSet<String> =
            self.view.views.fleets().iter().map(|fleet| fleet.namespace.clone()).collect();
        let user = &user;
        let asked = stream::iter(namespaces).map(|namespace| async move {
            let allowed = self.reviewer.may_get(user, Some(&namespace)).await?;
            Ok(allowed.then_some(namespace))
        });
        let allowed: Vec<Option<String>> = asked.buffer_unordered(NAMESPACES).try_collect().await?;
        Ok(Some(Audience::Namespaces(allowed.into_iter().flatten().collect())))
    }

    /// Begins a session; its id, 256 random bits.
    fn begin(&self, token: SecretString) -> Result<String, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut sessions = self.sessions.lock();
        make_room(&mut sessions, |session| session.begun);
        sessions.insert(id.clone(), LoginSession { token, begun: Instant::now() });
        Ok(id)
    }
}

/// Removes the oldest until there is room for one more.
fn make_room<T>(kept: &mut BTreeMap<String, T>, age: impl Fn(&T) -> Instant) {
    while kept.len() >= KEPT {
        let oldest = kept.iter().min_by_key(|(_, value)| age(value)).map(|(key, _)| key.clone());
        let Some(oldest) = oldest else { return };
        kept.remove(&oldest);
    }
}

/// Lets through who has a valid token, with what it may see; shows the form to the others.
pub(super) async fn authorised(
    State(login): State<Arc<Login>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(token) = login.token(request.headers()) else {
        return form(
            StatusCode::UNAUTHORIZED,
            "This view shows the services of the namespaces that you may read.",
        );
    };
    match login.audience(&token).await {
        Ok(Some(audience)) => {
            request.extensions_mut().insert(audience);
            next.run(request).await
        }
        Ok(None) => form(StatusCode::UNAUTHORIZED, "The API server does not accept this token (any more)."),
        Err(error) => unavailable(&error),
    }
}

/// `POST /view/login`.
pub(super) async fn log_in(
    State(login): State<Arc<Login>>,
    headers: HeaderMap,
    Form(LoginForm { token }): Form<LoginForm>,
) -> Response {
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return form(StatusCode::FORBIDDEN, "The form was sent by another site.");
    }
    let token = SecretString::from(token.trim());
    match login.audience(&token).await {
        Ok(Some(_)) => {}
        Ok(None) => return form(StatusCode::UNAUTHORIZED, "The API server does not accept this token."),
        Err(error) => return unavailable(&error),
    }
    match login.begin(token) {
        Ok(id) => {
            let age = SESSION.as_secs();
            let cookie = format!("{COOKIE}={id}; Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Strict");
            ([(header::SET_COOKIE, cookie)], Redirect::to("/view")).into_response()
        }
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("no randomness: {error}\n")).into_response()
        }
    }
}

fn form(status: StatusCode, text: &str) -> Response {
    let body = handlers::page(
        "message.html",
        context! { title => "Who are you?", text => text, form => true, version => VERSION },
    );
    (status, body).into_response()
}

fn unavailable(error: &ReviewError) -> Response {
    let text = chain(error);
    tracing::warn!("the view cannot check a token: {text}");
    let body = handlers::page(
        "message.html",
        context! { title => "Not possible now", text => text, form => false, version => VERSION },
    );
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], body).into_response()
}
