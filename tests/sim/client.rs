//! A kube client over the simulated network: one connection for each request.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tower::BoxError;

use crate::{api_server::PORT, mutant::Mutation};

/// The body of an answer.
pub type Answer = BoxBody<Bytes, hyper::Error>;

/// A client of the API server on the host `server`; `mutation` changes what passes through it.
pub fn client(server: &'static str, mutation: Option<Arc<Mutation>>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let mutation = mutation.clone();
        async move {
            let (parts, body) = request.into_parts();
            let request = Request::from_parts(parts, body.collect().await?.to_bytes());
            let Some(mutation) = mutation else {
                return Ok(send(server, request).await?.map(Incoming::boxed));
            };
            mutation.pass(server, request).await
        }
    });
    kube::Client::new(service, "default")
}

/// Sends one request.
pub async fn send(server: &str, request: Request<Bytes>) -> Result<Response<Incoming>, BoxError> {
    let stream = turmoil::net::TcpStream::connect((server, PORT)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = request.map(Full::<Bytes>::new);
    request.headers_mut().insert("host", hyper::header::HeaderValue::from_static("api"));
    Ok(sender.send_request(request).await?)
}

/// A body that is there already.
pub fn whole(bytes: Bytes) -> Answer {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}
