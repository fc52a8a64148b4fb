//! Requests as bytes: a browser's, with the headers that a test wants.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// An answer.
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) head: String,
    pub(super) body: String,
}

/// A connection on which `GET path` was sent, with the given header lines.
pub(super) async fn sent(to: SocketAddr, path: &str, headers: &str) -> TcpStream {
    let mut stream = timeout(PATIENCE, TcpStream::connect(to)).await.unwrap().unwrap();
    let request = format!("GET {path} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The answer to `GET path` with the given header lines.
pub(super) async fn ask(to: SocketAddr, path: &str, headers: &str) -> Answer {
    let mut stream = sent(to, path, headers).await;
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { code, head: head.to_lowercase(), body: body.to_owned() }
}

/// A page as a browser on this machine asks for it.
pub(super) async fn page(to: SocketAddr, path: &str) -> Answer {
    ask(to, path, "host: localhost\r\n").await
}

/// Reads until `wanted` has come; `None` when the time is over or the stream has ended.
pub(super) async fn read_until(stream: &mut TcpStream, wanted: &str, within: Duration) -> Option<String> {
    let mut text = String::new();
    let reading = async {
        let mut part = [0; 4096];
        while !text.contains(wanted) {
            let read = stream.read(&mut part).await.ok().filter(|read| *read > 0)?;
            text.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        Some(())
    };
    timeout(within, reading).await.ok().flatten()?;
    Some(text)
}
