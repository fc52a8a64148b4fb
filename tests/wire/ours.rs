//! Our client and our server, in both dialects, and the client's typed errors.

use std::time::Duration;

use kubervisor::{
    adapters::wire::{
        RefusalKind,
        client::{ClientError, Connection},
    },
    config::{Dialect, MasterTarget},
};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::house::{CAP, House};

fn target(port: u16, dialect: Dialect) -> MasterTarget {
    MasterTarget { host: "127.0.0.1".into(), port, dialect }
}

async fn connect(house: &House, dialect: Dialect) -> Connection {
    Connection::connect(&target(house.address.port(), dialect), None, CAP).await.unwrap()
}

fn refusal(result: Result<(), ClientError>) -> (RefusalKind, String) {
    match result {
        Err(ClientError::Refused(refusal)) => (refusal.kind, refusal.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_call_works_in_both_dialects() {
    for dialect in [Dialect::ZeroRpc, Dialect::Http] {
        let house = House::open();
        let connection = connect(&house, dialect).await;
        connection.ping(r#"{"a":1}"#, CAP).await.unwrap();
        connection.forward(r#"{"a":2}"#, CAP).await.unwrap();
        assert_eq!(*house.handler.pings.lock().unwrap(), [r#"{"a":1}"#]);
        assert_eq!(*house.handler.forwarded.lock().unwrap(), [r#"{"a":2}"#]);
        let output = connection.invoke(r#"{"cmd":"x"}"#, CAP).await.unwrap();
        assert_eq!(output.as_deref(), Some("x"));
        assert_eq!(connection.invoke("{}", CAP).await.unwrap(), None);
        assert_eq!(connection.challenge(CAP).await.unwrap(), r#"{"challenge":"abc"}"#);
        let conflict = refusal(connection.forward(r#"{"conflict":1}"#, CAP).await);
        assert_eq!(conflict, (RefusalKind::Conflict, "the key is taken".into()));
        let forbidden = connection.invoke(r#"{"forbidden":1}"#, CAP).await.map(drop);
        assert_eq!(refusal(forbidden), (RefusalKind::Forbidden, "commands are off".into()));
        assert!(!connection.is_closed());
    }
}

#[tokio::test]
async fn a_large_output_arrives_whole() {
    for dialect in [Dialect::ZeroRpc, Dialect::Http] {
        let house = House::open();
        let connection = connect(&house, dialect).await;
        let output = connection.invoke(r#"{"print":5000000}"#, CAP).await.unwrap().unwrap();
        assert_eq!(output.len(), 5_000_000);
    }
}

#[tokio::test]
async fn thousands_of_keepalives_are_forwarded_side_by_side_on_one_connection() {
    let house = House::open();
    let connection = connect(&house, Dialect::ZeroRpc).await;
    let calls = (0..5000).map(|n| {
        let connection = &connection;
        async move { connection.forward(&n.to_string(), CAP).await }
    });
    assert!(futures::future::join_all(calls).await.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(house.handler.forwarded.lock().unwrap().len(), 5000);
    assert_eq!(house.metric("wire_connections"), 1);
}

#[tokio::test]
async fn a_closed_port_is_a_connect_error_and_an_unknown_host_a_resolve_error() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let nobody = Connection::connect(&target(port, Dialect::ZeroRpc), None, CAP).await.unwrap_err();
    assert!(matches!(nobody, ClientError::Connect(..)), "{nobody}");
    let host = MasterTarget { host: "no-such-host.invalid".into(), port, dialect: Dialect::ZeroRpc };
    let unknown = Connection::connect(&host, None, CAP).await.unwrap_err();
    assert!(matches!(unknown, ClientError::Resolve(..)), "{unknown}");
}

#[tokio::test]
async fn a_local_address_of_another_host_is_ignored() {
    let house = House::open();
    let target = target(house.address.port(), Dialect::ZeroRpc);
    let connection = Connection::connect(&target, Some([192, 0, 2, 1].into()), CAP).await.unwrap();
    connection.ping("{}", CAP).await.unwrap();
    assert_eq!(house.handler.peers.lock().unwrap()[0].ip().to_string(), "127.0.0.1");
}

#[tokio::test]
async fn a_silent_server_ends_in_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let deadline = Duration::from_millis(100);
    let late = Connection::connect(&target(port, Dialect::ZeroRpc), None, deadline).await.unwrap_err();
    assert!(matches!(late, ClientError::Deadline));
    let http = Connection::connect(&target(port, Dialect::Http), None, deadline).await.unwrap();
    assert!(matches!(http.ping("{}", deadline).await.unwrap_err(), ClientError::Deadline));
}

#[tokio::test]
async fn another_protocol_is_a_protocol_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    });
    let error = Connection::connect(&target(port, Dialect::ZeroRpc), None, CAP).await.unwrap_err();
    assert!(matches!(error, ClientError::Zmtp(_)), "{error}");
    drop(served.await);
}

#[tokio::test]
async fn a_closed_connection_ends_the_calls_in_flight() {
    let house = House::open();
    let connection = connect(&house, Dialect::ZeroRpc).await;
    let waiting = connection.invoke(r#"{"sleep":60000}"#, CAP);
    let killed = async {
        house.reaches(r#"wire_requests_total{dialect="zerorpc",method="invoke"}"#, 1).await;
        house.shutdown.cancel();
    };
    let (answer, ()) = tokio::join!(waiting, killed);
    assert!(matches!(answer.unwrap_err(), ClientError::Closed));
    assert!(connection.is_closed());
    assert!(matches!(connection.ping("{}", CAP).await.unwrap_err(), ClientError::Closed));
}
