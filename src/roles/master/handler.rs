//! Handles the keepalive port of a master, an agent, or both in one process.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{context::Shared, ingest::Ingest};
use crate::adapters::{
    commands::CommandQueue,
    store::RecordKey,
    wire::{Answer, Handler, Refusal, RefusalKind},
};

/// Serves keepalives with a master, commands with an agent, and refuses the rest; `POST /down` cancels `stop`.
pub struct PortHandler {
    /// The ingest, and the callback's state as committed by any leader.
    master: Option<(Arc<Ingest>, watch::Receiver<Option<Bytes>>)>,
    commands: Option<Arc<CommandQueue>>,
    stop: CancellationToken,
}

impl PortHandler {
    pub(super) fn of_master(
        shared: &Shared,
        commands: Option<Arc<CommandQueue>>,
        stop: CancellationToken,
    ) -> Self {
        let master = (Arc::clone(&shared.ingest), shared.store.follow(RecordKey::State));
        Self { master: Some(master), commands, stop }
    }

    /// Without a master: keepalives are refused.
    pub fn of_agent(commands: Arc<CommandQueue>, stop: CancellationToken) -> Self {
        Self { master: None, commands: Some(commands), stop }
    }

    fn ingest(&self) -> Result<&Arc<Ingest>, Refusal> {
        self.master.as_ref().map(|(ingest, _)| ingest).ok_or_else(no_master)
    }
}

fn no_master() -> Refusal {
    RefusalKind::NotServed.because("this is an agent and takes no keepalives: send them to a master")
}

impl Handler for PortHandler {
    fn ping(&self, peer: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>> {
        self.ingest().map_or_else(|refusal| Answer::Now(Err(refusal)), |ingest| ingest.ping(peer, raw))
    }

    fn forwarded(&self, peer: SocketAddr, raw: &[u8]) -> Answer<Result<(), Refusal>> {
        self.ingest().map_or_else(|refusal| Answer::Now(Err(refusal)), |ingest| ingest.forwarded(peer, raw))
    }

    fn invoke(&self, peer: SocketAddr, raw: Bytes) -> BoxFuture<'static, Result<Option<String>, Refusal>> {
        match &self.commands {
            Some(commands) => commands.invoke(peer, raw),
            None => Box::pin(async { Ok(None) }),
        }
    }

    fn challenge(&self, peer: SocketAddr) -> Result<String, Refusal> {
        let none = || RefusalKind::NotServed.because("this is a master only: no command runs here");
        self.commands.as_ref().ok_or_else(none)?.challenge(peer)
    }

    fn state(&self) -> BoxFuture<'static, Result<Option<Bytes>, Refusal>> {
        let state = self.master.as_ref().map(|(_, state)| state.borrow().clone()).ok_or_else(no_master);
        Box::pin(async { state })
    }

    fn down(&self) -> Result<(), Refusal> {
        self.stop.cancel();
        Ok(())
    }
}
