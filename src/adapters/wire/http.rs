//! The HTTP/1.1 dialect (the older one), by hyper, with the same limits as ZeroRPC.

use std::{io, net::SocketAddr, sync::Arc};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Request, StatusCode,
    body::{Body, Incoming},
    header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, ORIGIN, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Refusal, RefusalKind,
    connection::{ConnectionEnd, ServerState},
    metrics::{DialectLabel, MethodLabel},
};

mod timeouts;

use timeouts::{RequestProgress, TimedStream, TimeoutKind};

/// Bytes of a request's head, at most.
const MAX_HEAD: usize = 16 << 10;

/// Bytes of a body up to which it does not count towards `Limits::held`.
const SMALL_BODY: usize = 16 << 10;

/// Serves HTTP on `io` until one end closes, a limit is reached or `stop` fires.
pub(super) async fn serve(
    io: TcpStream,
    peer: SocketAddr,
    shared: Arc<ServerState>,
    stop: CancellationToken,
) -> ConnectionEnd {
    let progress = RequestProgress::default();
    let watched = progress.clone();
    let io = TimedStream::new(io, progress.clone(), shared.limits.handshake, shared.limits.idle);
    let limits = shared.limits.clone();
    let service = service_fn(move |request| {
        let (shared, progress) = (Arc::clone(&shared), progress.clone());
        async move {
            let reply = answer(request, peer, &shared, &progress).await;
            progress.answered();
            reply
        }
    });
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD).pipeline_flush(true);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
    if let Some(ended) = stop.run_until_cancelled(connection.as_mut()).await {
        return connection_end(&ended, &watched);
    }
    connection.as_mut().graceful_shutdown();
    timeout(limits.drain, connection)
        .await
        .map_or(ConnectionEnd::Shutdown, |ended| connection_end(&ended, &watched))
}

/// hyper reports a timeout while idle as success and wraps the others, so the stream's own state comes first.
fn connection_end(ended: &hyper::Result<()>, progress: &RequestProgress) -> ConnectionEnd {
    match (progress.timed_out(), ended) {
        (Some(TimeoutKind::Idle), _) => ConnectionEnd::Idle,
        (Some(TimeoutKind::Slow), _) => ConnectionEnd::Slow,
        (None, Ok(())) => ConnectionEnd::PeerClosed,
        (None, Err(_)) => ConnectionEnd::Http,
    }
}

/// What is served.
#[derive(Clone, Copy)]
enum Route {
    Ping,
    Forward,
    Script,
    Challenge,
    State,
    Down,
}

/// Each route's path, its name in the metrics, and the methods that it takes.
const ROUTES: [(Route, &str, MethodLabel, &str); 6] = [
    (Route::Ping, "/ping", MethodLabel::Ping, "PUT"),
    (Route::Forward, "/forward", MethodLabel::Forward, "PUT"),
    (Route::Script, "/script", MethodLabel::Invoke, "PUT"),
    (Route::Challenge, "/challenge", MethodLabel::Challenge, "POST"),
    (Route::State, "/state", MethodLabel::State, "GET, HEAD"),
    (Route::Down, "/down", MethodLabel::Down, "POST"),
];

/// Answers one request; an error (an incomplete body) closes the connection.
async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    shared: &ServerState,
    progress: &RequestProgress,
) -> Result<Response, io::Error> {
    let path = request.uri().path();
    let Some((route, _, method, allowed)) = ROUTES.into_iter().find(|(_, known, ..)| *known == path) else {
        shared.metrics.request(DialectLabel::Http, MethodLabel::Unknown);
        shared.metrics.refuse("unknown_path");
        let message = "nothing here; PUT /ping, PUT /script, GET /state, POST /challenge, POST /down";
        return Ok(closing(problem(StatusCode::NOT_FOUND, "not_served", message)));
    };
    shared.metrics.request(DialectLabel::Http, method);
    if allowed.split(", ").all(|allowed| allowed != request.method().as_str()) {
        shared.metrics.refuse("method_not_allowed");
        let message = format!("this path takes {allowed}");
        let mut reply = problem(StatusCode::METHOD_NOT_ALLOWED, "not_served", &message);
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return Ok(closing(reply));
    }
    let (head, body) = request.into_parts();
    let result = match receive(body, shared, progress).await? {
        Ok(raw) => dispatch(route, peer, &head.headers, raw, shared).await,
        Err(refusal) => {
            // The rest of the body is unread, so the connection cannot be used again.
            return Ok(closing(refused(&shared.count(refusal), StatusCode::PAYLOAD_TOO_LARGE)));
        }
    };
    Ok(result.unwrap_or_else(|refusal| refused(&shared.count(refusal), StatusCode::TOO_MANY_REQUESTS)))
}

/// Reads the body, within the limits of one message and of held bytes.
async fn receive(
    body: Incoming,
    shared: &ServerState,
    progress: &RequestProgress,
) -> Result<Result<Bytes, Refusal>, io::Error> {
    let limit = shared.limits.message;
    let announced =
        body.size_hint().exact().map_or(limit, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if announced > limit && !body.is_end_stream() {
        return Ok(Err(too_long(limit)));
    }
    let mut share = shared.held_bytes.open();
    if announced > SMALL_BODY && !share.set(announced) {
        return Ok(Err(RefusalKind::Unavailable.because("too many large requests at once; try again later")));
    }
    let collected = Limited::new(body, limit).collect().await;
    progress.received();
    match collected {
        Ok(collected) => Ok(Ok(collected.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(Err(too_long(limit))),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn too_long(limit: usize) -> Refusal {
    RefusalKind::TooMuch.because(format!("the body is longer than {limit} bytes; send less"))
}

async fn dispatch(
    route: Route,
    peer: SocketAddr,
    headers: &HeaderMap,
    raw: Bytes,
    shared: &ServerState,
) -> Result<Response, Refusal> {
    let handler = &shared.handler;
    match route {
        Route::Ping => finished(handler.ping(peer, &raw)).await.map(|()| Response::default()),
        Route::Forward => finished(handler.forwarded(peer, &raw)).await.map(|()| Response::default()),
        Route::Script => Ok(match handler.invoke(peer, raw).await? {
            Some(output) => typed("text/plain; charset=utf-8", output),
            None => StatusCode::NO_CONTENT.into_response(),
        }),
        Route::Challenge => Ok(typed("application/json", handler.challenge(peer)?)),
        Route::State => {
            let state = handler.state().await?.unwrap_or_else(|| Bytes::from_static(b"null"));
            Ok(typed("application/json", state))
        }
        Route::Down => {
            allow_down(peer, headers)?;
            handler.down().map(|()| Response::default())
        }
    }
}

/// `/down` is for local programs: over loopback and without `Origin`, which browsers send.
fn allow_down(peer: SocketAddr, headers: &HeaderMap) -> Result<(), Refusal> {
    if peer.ip().to_canonical().is_loopback() && !headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let message = "POST /down is for programs on the same machine, over the loopback interface";
    Err(RefusalKind::Forbidden.because(message))
}

async fn finished<T>(answer: Answer<T>) -> T {
    match answer {
        Answer::Now(value) => value,
        Answer::Later(work) => work.await,
    }
}

fn refused(refusal: &Refusal, too_much: StatusCode) -> Response {
    let status = match refusal.kind {
        RefusalKind::Malformed => StatusCode::BAD_REQUEST,
        RefusalKind::Forbidden => StatusCode::FORBIDDEN,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::TooMuch => too_much,
        RefusalKind::NotServed => StatusCode::NOT_FOUND,
        RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut reply = problem(status, refusal.kind.label(), &refusal.message);
    if refusal.kind == RefusalKind::Unavailable {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    reply
}

fn problem(code: StatusCode, kind: &str, message: &str) -> Response {
    let body = serde_json::json!({ "error": message, "kind": kind });
    (code, typed("application/json", body.to_string())).into_response()
}

fn typed(content_type: &'static str, body: impl IntoResponse) -> Response {
    ([(CONTENT_TYPE, content_type)], body).into_response()
}

/// What is left of the request is not read.
fn closing(reply: Response) -> Response {
    ([(CONNECTION, "close")], reply).into_response()
}
