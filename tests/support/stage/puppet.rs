//! A pod that is played by the test itself.

use std::{net::Ipv4Addr, time::Duration};

use kubervisor::{
    adapters::wire::client::{ClientError, Connection},
    decide::key::Key,
};
use serde_json::{Value, json};

use super::{Node, Stage, TTL};

/// A pod without a process: it says what the test makes it say, from its own address.
pub struct Puppet {
    pub id: String,
    pub ip: Ipv4Addr,
    pub nonce: String,
    pub payload: Value,
    connection: Option<Connection>,
}

impl Puppet {
    pub fn new(stage: &Stage, host: u8) -> Self {
        Self {
            id: format!("pod-{host}"),
            ip: stage.ip(host),
            nonce: format!("{host:016x}"),
            payload: json!(""),
            connection: None,
        }
    }

    pub fn paying(mut self, payload: Value) -> Self {
        self.payload = payload;
        self
    }

    pub fn keepalive(&self) -> Value {
        json!({"app": "shop", "id": self.id, "ip": self.ip, "key": Key::of(self.ip), "nonce": self.nonce,
            "payload": self.payload, "role": "web"})
    }

    /// Says `text` to `master`, over one connection.
    pub async fn say(&mut self, master: &Node, text: &str) -> Result<(), ClientError> {
        let patience = Duration::from_secs(5);
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            self.connection = Some(Connection::connect(&master.target(), Some(self.ip), patience).await?);
        }
        self.connection.as_ref().unwrap().ping(text, patience).await
    }

    pub async fn ping(&mut self, master: &Node) {
        let text = self.keepalive().to_string();
        self.say(master, &text).await.unwrap_or_else(|error| panic!("{} cannot ping: {error}", self.id));
    }

    pub async fn down(&mut self, master: &Node) {
        let mut last = self.keepalive();
        last["down"] = json!(true);
        self.say(master, &last.to_string()).await.unwrap();
    }
}

/// Runs `work` while the puppets ping `master` often enough to live.
pub async fn keeping_alive<T>(master: &Node, puppets: &mut [Puppet], work: impl Future<Output = T>) -> T {
    let pinging = async {
        loop {
            for puppet in puppets.iter_mut() {
                let text = puppet.keepalive().to_string();
                if puppet.say(master, &text).await.is_err() {
                    puppet.connection = None;
                }
            }
            tokio::time::sleep(Duration::from_secs_f64(TTL / 5.0)).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = pinging => unreachable!("it never ends"),
    }
}
