//! Unmodified Python clients and servers, both versions.

use std::{path::PathBuf, process::Stdio, time::Duration};

use kubervisor::{
    adapters::wire::{
        Limits, RefusalKind,
        client::{ClientError, Connection},
    },
    config::{Dialect, MasterTarget},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{
    house::{CAP, House},
    interpreter::{python, script},
};

struct Client {
    python: PathBuf,
    endpoint: String,
}

impl Client {
    async fn run(&self, heartbeat: &str, args: &[&str]) -> Value {
        let mut command = Command::new(&self.python);
        command.arg(script("client.py")).args([&self.endpoint, heartbeat]).args(args).kill_on_drop(true);
        let output = timeout(3 * CAP, command.output()).await.expect("the client ends in time").unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("the client said: {stdout}{stderr}"))
    }
}

async fn client(version: u8, house: &House) -> Option<Client> {
    Some(Client { python: python(version).await?, endpoint: house.endpoint() })
}

async fn a_client_is_served(version: u8) {
    let house = House::open();
    let Some(client) = client(version, &house).await else { return };
    assert_eq!(client.run("5", &["ping", r#"{"a":1}"#]).await, Value::Null);
    assert_eq!(*house.handler.pings.lock().unwrap(), [r#"{"a":1}"#]);
    assert_eq!(client.run("5", &["ping", "{"]).await, Value::Null, "malformed is None too");
    assert_eq!(client.run("5", &["ping", r#"{"later":1}"#]).await, Value::Null);
    assert_eq!(client.run("5", &["invoke", r#"{"cmd":"echo"}"#]).await, "echo");
    assert_eq!(client.run("5", &["invoke", "{}"]).await, Value::Null);
    let large = client.run("5", &["invoke", r#"{"print":300000}"#]).await;
    assert_eq!(large.as_str().map(str::len), Some(300_000));
    assert_eq!(
        client.run("5", &["invoke", r#"{"forbidden":1}"#]).await,
        json!({ "remote": "forbidden", "message": "commands are off" })
    );
    assert_eq!(client.run("5", &["nonsense"]).await, json!({ "remote": "NameError", "message": "nonsense" }));
    assert_eq!(client.run("5", &["ping"]).await["remote"], "TypeError");
}

async fn builtins_answer(version: u8) {
    let house = House::open();
    let Some(client) = client(version, &house).await else { return };
    assert_eq!(client.run("5", &["_zerorpc_ping"]).await, json!(["pong", "kubervisor"]));
    assert_eq!(client.run("5", &["_zerorpc_name"]).await, "kubervisor");
    let methods = client.run("5", &["_zerorpc_list"]).await;
    assert_eq!(methods[0], "ping");
    let inspected = client.run("5", &["_zerorpc_inspect"]).await;
    assert_eq!(inspected["name"], "kubervisor");
    assert_eq!(inspected["methods"]["invoke"]["args"], json!([{ "name": "raw" }]));
}

async fn many_pings_at_once_are_all_answered(version: u8) {
    let house = House::open();
    let Some(client) = client(version, &house).await else { return };
    assert_eq!(client.run("5", &["--pings", "500"]).await, 500);
    assert_eq!(house.handler.pings.lock().unwrap().len(), 500);
}

/// A client with heartbeats of 1 s waits 6 s for its command.
async fn a_long_command_keeps_its_client(version: u8) {
    let house = House::with(Limits { heartbeat: Duration::from_millis(500), ..Limits::default() });
    let Some(client) = client(version, &house).await else { return };
    assert_eq!(client.run("1", &["invoke", r#"{"sleep":6000,"cmd":"done"}"#]).await, "done");
}

/// Without our heartbeats it would not.
async fn without_heartbeats_a_client_is_lost(version: u8) {
    let house = House::with(Limits { heartbeat: Duration::from_secs(3600), ..Limits::default() });
    let Some(client) = client(version, &house).await else { return };
    assert_eq!(client.run("1", &["invoke", r#"{"sleep":10000}"#]).await, json!({ "lost": true }));
}

struct Original {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    target: MasterTarget,
}

impl Original {
    async fn start(version: u8, heartbeat: &str) -> Option<Self> {
        let mut command = Command::new(python(version).await?);
        command.arg(script("server.py")).args(["127.0.0.1", heartbeat]).kill_on_drop(true);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = timeout(3 * CAP, lines.next_line()).await.unwrap().unwrap().expect("a port");
        let (host, port) = ("127.0.0.1".into(), port.parse().unwrap());
        let target = MasterTarget { host, port, dialect: Dialect::ZeroRpc };
        Some(Self { _process: process, lines, target })
    }
}

async fn our_client_is_served(version: u8) {
    let Some(mut original) = Original::start(version, "5").await else { return };
    let connection = Connection::connect(&original.target, None, CAP).await.unwrap();
    connection.ping(r#"{"a":1}"#, CAP).await.unwrap();
    assert_eq!(original.lines.next_line().await.unwrap().unwrap(), r#"{"ping": "{\"a\":1}"}"#);
    assert_eq!(connection.invoke(r#"{"cmd":"x"}"#, CAP).await.unwrap().as_deref(), Some("x"));
    assert_eq!(connection.invoke("{}", CAP).await.unwrap(), None);
    let failed = connection.invoke(r#"{"fail":"why"}"#, CAP).await;
    let Err(ClientError::Remote { name, message }) = failed else { panic!("{failed:?}") };
    assert_eq!((name.as_str(), message.as_str()), ("ValueError", "why"));
    let forward = connection.forward("{}", CAP).await;
    assert!(
        matches!(forward, Err(ClientError::Remote { ref name, .. }) if name == "NameError"),
        "{forward:?}"
    );
    let pings = (0..200).map(|n| {
        let connection = &connection;
        async move { connection.ping(&n.to_string(), CAP).await }
    });
    assert!(futures::future::join_all(pings).await.into_iter().all(|answer| answer.is_ok()));
}

/// The original's server drops a client that is silent for two heartbeats.
async fn our_client_is_not_lost_in_a_long_command(version: u8) {
    let Some(original) = Original::start(version, "1").await else { return };
    let heartbeat = Duration::from_millis(500);
    let connection =
        Connection::connect_with_heartbeat(&original.target, None, CAP, heartbeat).await.unwrap();
    let answer = connection.invoke(r#"{"sleep":6,"cmd":"done"}"#, CAP).await.unwrap();
    assert_eq!(answer.as_deref(), Some("done"));
}

async fn a_deadline_ends_a_call_and_not_its_connection(version: u8) {
    let Some(original) = Original::start(version, "5").await else { return };
    let connection = Connection::connect(&original.target, None, CAP).await.unwrap();
    let late = connection.invoke(r#"{"sleep":60}"#, Duration::from_millis(100)).await;
    assert!(matches!(late, Err(ClientError::Deadline)), "{late:?}");
    connection.ping("{}", CAP).await.unwrap();
    assert!(RefusalKind::from_label("ValueError").is_none());
}

macro_rules! with_both_pythons {
    ($($test:ident),* $(,)?) => {
        mod python_2 {
            $(#[tokio::test] async fn $test() { super::$test(2).await; })*
        }
        mod python_3 {
            $(#[tokio::test] async fn $test() { super::$test(3).await; })*
        }
    };
}

with_both_pythons!(
    a_client_is_served,
    builtins_answer,
    many_pings_at_once_are_all_answered,
    a_long_command_keeps_its_client,
    without_heartbeats_a_client_is_lost,
    our_client_is_served,
    our_client_is_not_lost_in_a_long_command,
    a_deadline_ends_a_call_and_not_its_connection,
);
