//! Stands between a report and Prometheus, and makes the faults that the real server cannot be told to make.

use std::{net::SocketAddrV4, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::stage::Stage;

/// What happens to a request.
pub(crate) enum Fault {
    /// This instead of an answer, head included.
    Says(String),
    /// Half of the body, and the connection ends.
    Half,
    /// The answer with a warning.
    Warns,
    /// No answer at all.
    Hangs,
}

type Choice = dyn FnMut(&str) -> Option<Fault> + Send;

pub(crate) struct Front {
    pub(crate) address: SocketAddrV4,
    /// The requests for a range so far, decoded as far as a test needs.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl Front {
    /// `choose` is asked for each request for a range, with the request's first line and body.
    pub(crate) async fn start(
        stage: &Stage,
        upstream: SocketAddrV4,
        choose: impl FnMut(&str) -> Option<Fault> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((stage.ip(201), 0)).await.unwrap();
        let address = SocketAddrV4::new(stage.ip(201), listener.local_addr().unwrap().port());
        let (asked, choose) = (Arc::default(), Arc::new(Mutex::new(choose)));
        let seen: Arc<Mutex<Vec<String>>> = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (choose, seen): (Arc<Mutex<Choice>>, _) = (Arc::clone(&choose) as _, Arc::clone(&seen));
                tokio::spawn(async move {
                    // A client that gave up.
                    let _gone = serve(client, upstream, &choose, &seen).await;
                });
            }
        });
        Self { address, asked }
    }
}

async fn serve(
    mut client: TcpStream,
    upstream: SocketAddrV4,
    choose: &Mutex<Choice>,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let request = read_request(&mut client).await?;
    seen.lock().push(request.clone());
    let fault = choose.lock()(&request);
    if let Some(Fault::Says(text)) = &fault {
        return answer(&mut client, text.as_bytes()).await;
    }
    if let Some(Fault::Hangs) = &fault {
        return std::future::pending().await;
    }
    let mut server = TcpStream::connect(upstream).await?;
    // HTTP/1.0: the body ends with the connection and has no chunks.
    let plain = request.replacen("HTTP/1.1", "HTTP/1.0", 1).replace("accept-encoding: gzip\r\n", "");
    server.write_all(plain.as_bytes()).await?;
    let mut whole = Vec::new();
    server.read_to_end(&mut whole).await?;
    let text = String::from_utf8(whole).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    let (length, body) = match fault {
        Some(Fault::Half) => (body.len(), body[..body.len() / 2].to_owned()),
        Some(Fault::Warns) => {
            let body = body.replacen("{", "{\"warnings\":[\"a store did not answer\"],", 1);
            (body.len(), body)
        }
        _ => (body.len(), body.to_owned()),
    };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    answer(&mut client, format!("{head}{body}").as_bytes()).await
}

async fn answer(client: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    client.write_all(bytes).await?;
    client.shutdown().await
}

/// Head and body.
async fn read_request(client: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length:").map(|length| length.trim().parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return Ok(text.into_owned());
            }
        }
        let mut part = [0; 8192];
        let size = client.read(&mut part).await?;
        if size == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&part[..size]);
    }
}
