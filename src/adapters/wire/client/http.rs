//! The HTTP client: one request at a time on a kept-alive connection.

use std::error::Error;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    header::{CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, sync::Mutex};
use tokio_util::task::AbortOnDropHandle;

use super::{CallOutcome, ClientCall, ClientError, MAX_ANSWER, reported};
use crate::config::MasterTarget;

#[derive(Debug)]
pub(super) struct Http {
    sender: Mutex<SendRequest<Full<Bytes>>>,
    driver: AbortOnDropHandle<()>,
    host: HeaderValue,
}

#[derive(Deserialize)]
struct HttpErrorBody {
    error: String,
    kind: Option<String>,
}

impl Http {
    pub(super) async fn start(stream: TcpStream, target: &MasterTarget) -> Result<Self, ClientError> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        let host = HeaderValue::from_str(&format!("{}:{}", target.host, target.port))
            .map_err(|_| ClientError::Answer("the target's name cannot be sent as a Host header"))?;
        Ok(Self { sender: Mutex::new(sender), driver: AbortOnDropHandle::new(driver), host })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.driver.is_finished()
    }

    pub(super) async fn call(&self, call: ClientCall, raw: &str) -> Result<CallOutcome, ClientError> {
        let ClientCall(_, _, method, path) = call;
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(raw.as_bytes())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| ClientError::Answer("an invalid path"))?;
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut sender = self.sender.lock().await;
        sender.ready().await?;
        outcome(sender.send_request(request).await?).await
    }
}

async fn outcome(response: Response<Incoming>) -> Result<CallOutcome, ClientError> {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(body_error)?.to_bytes();
    if !status.is_success() {
        return Err(status_error(status, &body));
    }
    Ok(match String::from_utf8_lossy(&body).into_owned() {
        text if text.is_empty() => CallOutcome::Nothing,
        text => CallOutcome::Text(text),
    })
}

fn body_error(error: Box<dyn Error + Send + Sync>) -> ClientError {
    match error.downcast::<hyper::Error>() {
        Ok(error) => ClientError::Http(*error),
        Err(_) => ClientError::Answer("longer than 17 MiB"),
    }
}

fn status_error(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<HttpErrorBody>(body) {
        Ok(HttpErrorBody { error, kind: Some(kind) }) => reported(kind, error),
        Ok(HttpErrorBody { error, kind: None }) => reported(status.as_str().into(), error),
        Err(_) => {
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
            reported(status.as_str().into(), text)
        }
    }
}
