//! A kube client over the simulated network: one connection for each request.

use std::io;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Request, body::Incoming};
use hyper_util::rt::TokioIo;
use kube::client::Body;

use crate::api_server::PORT;

/// A client of the API server on the host `server`.
pub fn client(server: &'static str) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| async move {
        send(server, request).await.map_err(|error| -> tower::BoxError { error.into() })
    });
    kube::Client::new(service, "default")
}

async fn send(server: &str, request: Request<Body>) -> io::Result<hyper::Response<Incoming>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let stream = turmoil::net::TcpStream::connect((server, PORT)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let mut request = Request::from_parts(parts, http_body_util::Full::<Bytes>::new(body));
    request.headers_mut().insert("host", hyper::header::HeaderValue::from_static("api"));
    sender.send_request(request).await.map_err(io::Error::other)
}
