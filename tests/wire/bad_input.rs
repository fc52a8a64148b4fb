//! Malicious peers: each is dropped or refused, counted, and other peers are still served.

use std::time::Duration;

use kubervisor::adapters::wire::Limits;
use rmpv::Value;

use crate::house::{House, call, client_hello, message, ping};

/// Sends `bytes` after the handshake: the server closes the connection, counts the reason and serves others.
async fn is_dropped(bytes: &[u8], reason: &str) {
    let house = House::open();
    let mut raw = house.greeted().await;
    raw.send(bytes).await;
    raw.closed().await;
    house.reaches(&format!(r#"wire_closed_total{{kind="{reason}"}}"#), 1).await;
    house.still_serves().await;
}

/// Sends `bytes` as the first of a connection.
async fn is_refused_at_once(bytes: &[u8], reason: &str) {
    let house = House::open();
    let mut raw = house.raw().await;
    raw.send(bytes).await;
    raw.closed().await;
    house.reaches(&format!(r#"wire_closed_total{{kind="{reason}"}}"#), 1).await;
    house.still_serves().await;
}

#[tokio::test]
async fn a_first_byte_of_no_dialect_is_dropped() {
    is_refused_at_once(b"\x16\x03\x01", "dialect").await;
    is_refused_at_once(b"\0", "dialect").await;
}

#[tokio::test]
async fn a_malformed_greeting_is_dropped() {
    is_refused_at_once(b"\xff\0\0\0\0\0\0\0\x01\x00", "greeting").await;
    is_refused_at_once(b"\xff\0\0\0\0\0\0\0\x01\x7f\x01", "greeting").await;
    let mut curve = client_hello();
    curve[12..17].copy_from_slice(b"CURVE");
    is_refused_at_once(&curve, "greeting").await;
}

#[tokio::test]
async fn a_malformed_ready_is_dropped() {
    let greeting = &client_hello()[..64];
    for bad in [
        &b"\x04\x06\x05HELLO"[..],
        b"\x04\x07\x05READY\xff",
        b"\x04\x06\x05READY",
        b"\x00\x01x",
        b"\x06\0\0\0\0\0\x10\0\0",
    ] {
        is_refused_at_once(&[greeting, bad].concat(), "ready").await;
    }
}

#[tokio::test]
async fn a_frame_of_two_to_the_sixty_bytes_is_dropped_by_its_head() {
    is_dropped(b"\x02\x10\0\0\0\0\0\0\0", "too_much").await;
    is_dropped(b"\x01\0\x02\x10\0\0\0\0\0\0\0", "too_much").await;
}

#[tokio::test]
async fn endless_more_frames_are_dropped() {
    is_dropped(&b"\x01\x00".repeat(100_000), "too_much").await;
}

#[tokio::test]
async fn flags_that_do_not_exist_are_dropped() {
    is_dropped(b"\xf0\0", "frame").await;
}

#[tokio::test]
async fn a_message_of_two_mebibytes_is_dropped_before_it_is_read() {
    let raw = "x".repeat(2 << 20);
    is_dropped(&ping(&raw), "too_much").await;
}

#[tokio::test]
async fn a_msgpack_depth_bomb_is_dropped() {
    let mut payload = b"\x93\x81\xaamessage_id\xa2id\xa4ping".to_vec();
    payload.extend(vec![0x91; 500_000]);
    is_dropped(&message(&payload), "event").await;
}

#[tokio::test]
async fn a_message_that_is_no_event_is_dropped() {
    for payload in [&b""[..], b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x93\x80\xa4ping\x90", b"hello"] {
        is_dropped(&message(payload), "event").await;
    }
}

#[tokio::test]
async fn a_wrong_method_is_a_name_error_and_bad_json_is_none() {
    let house = House::open();
    let mut raw = house.greeted().await;
    raw.send(&call("rm", vec![])).await;
    let answer = raw.read_some().await;
    assert!(answer.windows(9).any(|bytes| bytes == b"NameError"), "{answer:?}");
    for args in [vec!["{".into()], vec![Value::from(7)], vec![Value::Map(vec![])]] {
        raw.send(&call("ping", args)).await;
        let answer = raw.read_some().await;
        assert!(answer.ends_with(b"\xa2OK\x91\xc0"), "{answer:?}");
    }
    assert_eq!(house.metric(r#"wire_refused_total{kind="malformed"}"#), 3);
    assert_eq!(house.metric(r#"wire_refused_total{kind="unknown_method"}"#), 1);
    raw.send(&ping("{}")).await;
    assert!(raw.read_some().await.ends_with(b"\xa2OK\x91\xc0"), "the connection stays usable");
}

#[tokio::test]
async fn malformed_http_is_refused() {
    for bad in [
        &b"NONSENSE\r\n\r\n"[..],
        b"PUT /ping HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"PUT /ping HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let house = House::open();
        let mut raw = house.raw().await;
        raw.send(bad).await;
        raw.closed().await;
        assert!(house.handler.pings.lock().unwrap().is_empty());
        house.still_serves().await;
    }
    let house = House::open();
    let mut raw = house.raw().await;
    raw.send(b"PUT /ping HTTP/1.1\r\n").await;
    raw.send("X: y\r\n".repeat(20_000).as_bytes()).await;
    let said = String::from_utf8(raw.closed().await).unwrap();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    house.still_serves().await;
}

fn hasty() -> Limits {
    Limits { handshake: Duration::from_millis(200), idle: Duration::from_millis(400), ..Limits::default() }
}

/// Sends single bytes, each before a read could time out, until the server closes.
async fn drip(house: &House, bytes: &[u8]) {
    let mut raw = house.raw().await;
    let (mut read, mut write) = raw.0.split();
    let dripping = async {
        for byte in bytes {
            if tokio::io::AsyncWriteExt::write_all(&mut write, &[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut sink = Vec::new();
    tokio::select! {
        () = dripping => {}
        _ = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut sink) => {}
        () = tokio::time::sleep(crate::house::CAP) => panic!("the server waits for a slow peer for ever"),
    }
}

#[tokio::test]
async fn a_slow_loris_is_dropped_on_both_dialects() {
    let house = House::with(hasty());
    // No byte at all.
    let mut silent = house.raw().await;
    silent.closed().await;
    drip(&house, &client_hello()).await;
    drip(
        &house,
        b"PUT /ping HTTP/1.1\r\nHost: x\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n\r\n",
    )
    .await;
    let head = b"PUT /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n";
    let mut raw = house.raw().await;
    raw.send(head).await;
    raw.closed().await;
    house.reaches(r#"wire_closed_total{kind="slow"}"#, 4).await;
    house.still_serves().await;
}

#[tokio::test]
async fn a_slow_second_request_is_dropped_too() {
    let house = House::with(Limits { idle: Duration::from_secs(60), ..hasty() });
    let mut raw = house.raw().await;
    raw.send(b"PUT /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").await;
    assert!(raw.read_some().await.starts_with(b"HTTP/1.1 200"));
    raw.send(b"PUT /ping HT").await;
    raw.closed().await;
    house.reaches(r#"wire_closed_total{kind="slow"}"#, 1).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_on_both_dialects() {
    let house = House::with(hasty());
    let mut rpc = house.greeted().await;
    rpc.send(&ping("{}")).await;
    rpc.closed().await;
    let mut http = house.raw().await;
    http.send(b"PUT /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").await;
    http.closed().await;
    assert_eq!(house.handler.pings.lock().unwrap().len(), 2);
    house.reaches(r#"wire_closed_total{kind="idle"}"#, 2).await;
}
