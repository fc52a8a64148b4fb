//! HTTP with curl, and refusals.

use std::{process::Stdio, time::Duration};

use kubervisor::adapters::wire::Limits;
use serde_json::Value;
use tokio::process::Command;

use crate::house::House;

/// Runs curl; returns status code and body.
async fn curl(house: &House, path: &str, args: &[&str]) -> (u16, String) {
    let url = format!("http://{}{path}", house.address);
    let mut command = Command::new("curl");
    command.args(["-s", "--max-time", "20", "-w", "\n%{http_code}"]).args(args).arg(url);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, code) = text.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), body.to_owned())
}

fn error(body: &str) -> String {
    serde_json::from_str::<Value>(body).unwrap()["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn curl_is_served_on_every_path() {
    let house = House::open();
    for content_type in ["application/json", "text/plain", "application/x-www-form-urlencoded"] {
        let header = format!("Content-Type: {content_type}");
        let answer = curl(&house, "/ping", &["-X", "PUT", "-H", &header, "-d", r#"{"a":1}"#]).await;
        assert_eq!(answer, (200, String::new()));
    }
    assert_eq!(*house.handler.pings.lock().unwrap(), [r#"{"a":1}"#; 3]);
    assert_eq!(curl(&house, "/state", &[]).await, (200, r#"{"a":1}"#.into()));
    let script = curl(&house, "/script", &["-X", "PUT", "-d", r#"{"cmd":"hello"}"#]).await;
    assert_eq!(script, (200, "hello".into()));
    assert_eq!(curl(&house, "/script", &["-X", "PUT", "-d", "{}"]).await, (204, String::new()));
    let challenge = curl(&house, "/challenge", &["-X", "POST"]).await;
    assert_eq!(challenge, (200, r#"{"challenge":"abc"}"#.into()));
    assert_eq!(curl(&house, "/down", &["-X", "POST"]).await, (200, String::new()));
    assert_eq!(*house.handler.downs.lock().unwrap(), 1);
    assert_eq!(house.metric(r#"wire_requests_total{dialect="http",method="ping"}"#), 3);
}

#[tokio::test]
async fn refusals_are_4xx_with_a_json_error() {
    let house = House::open();
    let (code, body) = curl(&house, "/ping", &["-X", "PUT", "-d", "{"]).await;
    assert_eq!((code, error(&body).as_str()), (400, "not JSON"));
    let (code, body) = curl(&house, "/ping", &["-X", "PUT", "-d", r#"{"conflict":1}"#]).await;
    assert_eq!((code, error(&body).as_str()), (409, "the key is taken"));
    let (code, body) = curl(&house, "/script", &["-X", "PUT", "-d", r#"{"forbidden":1}"#]).await;
    assert_eq!((code, error(&body).as_str()), (403, "commands are off"));
    let (code, body) = curl(&house, "/nowhere", &[]).await;
    assert_eq!(code, 404);
    assert!(error(&body).contains("PUT /ping"), "{body}");
    let (code, body) = curl(&house, "/ping", &[]).await;
    assert_eq!((code, error(&body).as_str()), (405, "this path takes PUT"));
    for kind in ["malformed", "conflict", "forbidden", "unknown_path", "method_not_allowed"] {
        assert_eq!(house.metric(&format!(r#"wire_refused_total{{kind="{kind}"}}"#)), 1, "{kind}");
    }
}

#[tokio::test]
async fn a_web_page_cannot_stop_us() {
    let house = House::open();
    let (code, _) = curl(&house, "/down", &["-X", "POST", "-H", "Origin: http://evil.example"]).await;
    assert_eq!(code, 403);
    assert_eq!(*house.handler.downs.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_body_of_two_mebibytes_is_refused_with_413() {
    let house = House::open();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![b'x'; 2 << 20]).unwrap();
    let data = format!("@{}", file.path().display());
    let announced = curl(&house, "/ping", &["-X", "PUT", "--data-binary", &data]).await;
    assert_eq!(announced.0, 413, "{}", announced.1);
    let chunked = ["-X", "PUT", "-H", "Transfer-Encoding: chunked", "--data-binary", &data];
    assert_eq!(curl(&house, "/ping", &chunked).await.0, 413);
    assert!(house.handler.pings.lock().unwrap().is_empty());
    house.still_serves().await;
}

#[tokio::test]
async fn a_connection_is_kept_for_many_requests() {
    let house = House::open();
    let mut raw = house.raw().await;
    for _ in 0..3 {
        raw.send(b"PUT /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").await;
        let answer = raw.read_some().await;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(house.metric("wire_connections"), 1);
}

#[tokio::test]
async fn a_long_script_is_not_idle_and_its_connection_lives_on() {
    let idle = Duration::from_millis(200);
    let house = House::with(Limits { idle, handshake: idle, ..Limits::default() });
    let mut raw = house.raw().await;
    let script = br#"{"sleep":1000,"cmd":"done"}"#;
    let head = format!("PUT /script HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", script.len());
    raw.send(head.as_bytes()).await;
    raw.send(script).await;
    let answer = raw.read_some().await;
    assert!(answer.ends_with(b"\r\n\r\ndone"), "{}", String::from_utf8_lossy(&answer));
    raw.send(b"PUT /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").await;
    assert!(raw.read_some().await.starts_with(b"HTTP/1.1 200 OK\r\n"));
}
