//! Limits of connections and memory, and fairness between peers.

use std::time::{Duration, Instant};

use kubervisor::{
    adapters::wire::{BindError, Limits, Server, WireMetrics, client::Connection},
    config::{Dialect, Listen, MasterTarget},
};
use prometheus_client::registry::Registry;
use tokio::time::timeout;

use crate::house::{CAP, House, call, client_hello, message, ping};

#[tokio::test]
async fn a_taken_port_is_a_clear_error() {
    let house = House::open();
    let listen = Listen {
        address: house.address,
        max_connections: 10,
        max_per_peer: 10,
        trusted: Vec::new(),
        idle: CAP,
    };
    let error: BindError =
        Server::bind(&listen, WireMetrics::register(&mut Registry::default())).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&house.address.to_string()) && text.contains("KONTROL_PORT"), "{text}");
}

#[tokio::test]
async fn too_many_connections_of_one_peer_are_refused_and_the_others_are_served() {
    let house = House::with(Limits { per_peer: 20, ..Limits::default() });
    let mut flood = Vec::new();
    for _ in 0..500 {
        flood.push(house.raw().await);
    }
    house.reaches(r#"wire_refused_total{kind="connections_of_peer"}"#, 480).await;
    let target =
        MasterTarget { host: "127.0.0.1".into(), port: house.address.port(), dialect: Dialect::ZeroRpc };
    let other = Connection::connect(&target, Some([127, 7, 7, 7].into()), CAP).await.unwrap();
    other.ping("{}", CAP).await.unwrap();
    assert_eq!(house.handler.peers.lock().unwrap()[0].ip().to_string(), "127.7.7.7");
    drop(flood);
    let gone = async {
        while house.metric("wire_connections") > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(CAP, gone).await.expect("closed connections are forgotten");
    house.still_serves().await;
}

#[tokio::test]
async fn a_trusted_peer_may_have_more_and_the_total_still_holds() {
    let trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let house = House::with(Limits { per_peer: 1, connections: 30, trusted, ..Limits::default() });
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(house.raw().await);
    }
    house.reaches(r#"wire_refused_total{kind="connections"}"#, 10).await;
    assert_eq!(house.metric("wire_connections"), 30);
}

#[tokio::test]
async fn unfinished_messages_share_one_bound_of_memory() {
    let house = House::with(Limits { held: 1 << 20, ..Limits::default() });
    let half = &message(&vec![b'x'; 700_000])[..600_000];
    let mut first = house.greeted().await;
    first.send(half).await;
    let mut second = house.greeted().await;
    second.send(half).await;
    house.reaches(r#"wire_closed_total{kind="no_memory"}"#, 1).await;
    house.still_serves().await;
}

#[tokio::test]
async fn a_connection_that_floods_yields_to_the_others() {
    let house = House::open();
    let flood = house.greeted().await;
    let (mut read, mut write) = flood.0.into_split();
    let drain =
        tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await.map(drop) });
    let flooding = tokio::spawn(async move {
        let pings = ping("{}").repeat(2000);
        while tokio::io::AsyncWriteExt::write_all(&mut write, &pings).await.is_ok() {}
    });
    house.reaches(r#"wire_requests_total{dialect="zerorpc",method="ping"}"#, 10_000).await;
    let began = Instant::now();
    for _ in 0..20 {
        house.still_serves().await;
    }
    assert!(began.elapsed() < CAP / 2, "20 connections took {:?}", began.elapsed());
    flooding.abort();
    drain.abort();
}

#[tokio::test]
async fn a_peer_that_never_reads_its_answers_is_not_read_any_more() {
    let house = House::with(Limits { idle: Duration::from_millis(500), ..Limits::default() });
    let mut deaf = house.greeted().await;
    let pings = ping("{}").repeat(2000);
    // The answers fill the sockets' buffers; then the server stops reading and at last closes the connection.
    let send = async { while tokio::io::AsyncWriteExt::write_all(&mut deaf.0, &pings).await.is_ok() {} };
    timeout(CAP, send).await.expect("the server closes the connection");
    house.reaches(r#"wire_closed_total{kind="idle"}"#, 1).await;
    house.still_serves().await;
}

#[tokio::test]
async fn calls_in_flight_are_bounded_and_all_answered_in_the_end() {
    let house = House::with(Limits { calls: 4, ..Limits::default() });
    let mut raw = house.greeted().await;
    let slow = call("invoke", vec![r#"{"sleep":30,"cmd":"done"}"#.into()]);
    raw.send(&slow.repeat(50)).await;
    let (mut answers, mut text) = (0, Vec::new());
    while answers < 50 {
        text.extend(raw.read_some().await);
        answers = text.windows(5).filter(|bytes| bytes == b"\xa4done").count();
    }
    raw.send(&ping("{}")).await;
    assert!(raw.read_some().await.ends_with(b"\xa2OK\x91\xc0"));
}

#[tokio::test]
async fn a_shutdown_answers_calls_in_flight_and_closes_everything() {
    let house = House::open();
    let mut calling = house.greeted().await;
    let mut idle = house.greeted().await;
    let mut half = house.raw().await;
    half.send(&client_hello()[..10]).await;
    let mut http = house.raw().await;
    let script = br#"{"sleep":300,"cmd":"done"}"#;
    let head = format!("PUT /script HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", script.len());
    http.send(&[head.as_bytes(), script].concat()).await;
    calling.send(&call("invoke", vec![r#"{"sleep":300,"cmd":"done"}"#.into()])).await;
    house.reaches(r#"wire_requests_total{dialect="zerorpc",method="invoke"}"#, 1).await;
    house.reaches(r#"wire_requests_total{dialect="http",method="invoke"}"#, 1).await;
    house.shutdown.cancel();
    assert!(calling.closed().await.ends_with(b"\x91\xa4done"));
    assert!(http.closed().await.ends_with(b"\r\n\r\ndone"));
    idle.closed().await;
    half.closed().await;
    timeout(CAP, house.served).await.expect("serve returns").unwrap();
    assert!(tokio::net::TcpStream::connect(house.address).await.is_err());
}
