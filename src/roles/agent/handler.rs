//! What a pure agent answers on its port: commands; it takes no keepalives and keeps no state.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::CommandDesk;
use crate::adapters::wire::{Answer, Handler, Refusal, RefusalKind};

/// The wire's handler of a pure agent.
#[derive(Clone)]
pub struct AgentHandler {
    desk: Arc<CommandDesk>,
    stop: CancellationToken,
}

impl AgentHandler {
    /// Commands go to `desk`; `POST /down` cancels `stop`.
    #[must_use]
    pub fn new(desk: Arc<CommandDesk>, stop: CancellationToken) -> Self {
        Self { desk, stop }
    }
}

fn no_master() -> Refusal {
    let message = "this is an agent and takes no keepalives: send them to a master".to_owned();
    Refusal { kind: RefusalKind::NotServed, message }
}

impl Handler for AgentHandler {
    fn ping(&self, _peer: SocketAddr, _raw: &[u8]) -> Answer<Result<(), Refusal>> {
        Answer::Now(Err(no_master()))
    }

    fn forwarded(&self, _peer: SocketAddr, _raw: &[u8]) -> Answer<Result<(), Refusal>> {
        Answer::Now(Err(no_master()))
    }

    fn invoke(&self, peer: SocketAddr, raw: Bytes) -> BoxFuture<'static, Result<Option<String>, Refusal>> {
        self.desk.invoke(peer, raw)
    }

    fn challenge(&self, peer: SocketAddr) -> Result<String, Refusal> {
        self.desk.challenge(peer)
    }

    fn state(&self) -> BoxFuture<'static, Result<Option<Bytes>, Refusal>> {
        Box::pin(async { Err(no_master()) })
    }

    fn down(&self) -> Result<(), Refusal> {
        self.stop.cancel();
        Ok(())
    }
}
