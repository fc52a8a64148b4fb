//! The original on the other side: a Python zerorpc server as the master, a Python client that invokes.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{
    fixture::{CAP, Master, Recipe},
    interpreter::{python, script},
};

/// A master of the original's library; it writes down pings.
struct Original {
    lines: Lines<BufReader<ChildStdout>>,
    address: String,
    _process: Child,
}

impl Original {
    async fn start(version: u8) -> Option<Self> {
        let mut command = Command::new(python(version).await?);
        command.arg(script("server.py")).args(["127.0.0.1", "5"]).kill_on_drop(true);
        let mut _process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(_process.stdout.take().unwrap()).lines();
        let port = timeout(3 * CAP, lines.next_line()).await.unwrap().unwrap().expect("a port");
        Some(Self { lines, address: format!("127.0.0.1:{port}"), _process })
    }

    async fn ping(&mut self) -> Value {
        let line = timeout(CAP, self.lines.next_line()).await.expect("a ping in time").unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        serde_json::from_str(line["ping"].as_str().unwrap()).unwrap()
    }
}

async fn our_agent_has_a_master_of_the_original(version: u8) {
    let Some(mut master) = Original::start(version).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let payload = folder.path().join("p.json");
    std::fs::write(&payload, r#"{"state":"up"}"#).unwrap();
    let recipe = Recipe::of(&[master.address.clone()]).with("KONTROL_TTL", "1.5").watching(&payload);
    let mut agent = recipe.start();
    let first = master.ping().await;
    assert_eq!((first["id"].as_str(), first["app"].as_str()), (Some("web-1"), Some("shop")));
    assert_eq!(first["payload"]["state"], "up");
    assert_eq!(master.ping().await, first);
    std::fs::write(&payload, r#"{"state":"busy"}"#).unwrap();
    while master.ping().await["payload"]["state"] != "busy" {}
    agent.signal(Signal::SIGTERM);
    assert!(agent.ended().await.success());
    while master.ping().await["down"] != true {}
}

/// What the original's own master does in a callback: `invoke` on the agent.
async fn a_master_of_the_original_invokes_on_our_agent(version: u8) {
    let Some(python) = python(version).await else { return };
    let master = Master::open();
    let recipe = Recipe::of_master(&master).quiet().with("KONTROL_INVOKE", "open");
    let _agent = recipe.start_listening().await;
    let endpoint = format!("tcp://{}", recipe.endpoint());
    let invoke = async |raw: &str| -> Value {
        let mut command = Command::new(&python);
        command.arg(script("client.py")).args([&endpoint, "5", "invoke", raw]).kill_on_drop(true);
        let output = timeout(3 * CAP, command.output()).await.expect("the client ends in time").unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(invoke(r#"{"cmd":"echo a; echo b"}"#).await, "a\nb");
    assert_eq!(invoke(r#"{"cmd":"echo $INPUT","n":1}"#).await, r#"{"cmd":"echo $INPUT","n":1}"#);
    assert_eq!(invoke(r#"{"hello":1}"#).await, Value::Null);
    // Longer than two of the client's heartbeats would be, had it none from us.
    assert_eq!(invoke(r#"{"cmd":"sleep 12; echo late"}"#).await, "late");
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

with_both_pythons!(our_agent_has_a_master_of_the_original, a_master_of_the_original_invokes_on_our_agent);
