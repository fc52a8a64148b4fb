//! What a master answers on the keepalive port.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Shared, desk::Desk};
use crate::{
    adapters::{
        store::RecordKey,
        wire::{Answer, Handler, Refusal, RefusalKind},
    },
    roles::agent::CommandDesk,
};

/// The wire's handler of a master, alone or with an agent in the same process.
pub(crate) struct MasterHandler {
    desk: Arc<Desk>,
    /// The callback's state as committed, whoever leads.
    state: watch::Receiver<Option<Bytes>>,
    commands: Option<Arc<CommandDesk>>,
    stop: CancellationToken,
}

impl MasterHandler {
    pub(crate) fn new(shared: &Shared, commands: Option<Arc<CommandDesk>>, stop: CancellationToken) -> Self {
        Self { desk: Arc::clone(&shared.desk), state: shared.store.follow(RecordKey::State), commands, stop }
    }
}

impl Handler for MasterHandler {
    fn ping(&self, peer: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>> {
        self.desk.ping(peer, raw)
    }

    fn forwarded(&self, peer: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>> {
        Answer::Now(self.desk.forwarded(peer, raw))
    }

    fn invoke(&self, peer: SocketAddr, raw: Bytes) -> BoxFuture<'static, Result<Option<String>, Refusal>> {
        match &self.commands {
            Some(commands) => commands.invoke(peer, raw),
            None => Box::pin(async { Ok(None) }),
        }
    }

    fn challenge(&self, peer: SocketAddr) -> Result<String, Refusal> {
        let message = "this is a master only: no command runs here";
        let none = || Refusal { kind: RefusalKind::NotServed, message: message.to_owned() };
        self.commands.as_ref().ok_or_else(none)?.challenge(peer)
    }

    fn state(&self) -> BoxFuture<'static, Result<Option<Bytes>, Refusal>> {
        let state = self.state.borrow().clone();
        Box::pin(async move { Ok(state) })
    }

    fn down(&self) -> Result<(), Refusal> {
        self.stop.cancel();
        Ok(())
    }
}
