//! How a follower hands keepalives to the leader: one connection, a bounded number of calls in
//! flight, a second's patience. The client gets the leader's answer; a ping that the leader does not
//! answer is kept, so that its pod loses nothing.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore};

use super::desk::{Desk, KeptPing};
use crate::{
    adapters::wire::{
        Answer, Refusal, RefusalKind,
        client::{ClientError, Connection},
    },
    config::MasterTarget,
};

/// How long the leader has for one forwarded keepalive, connecting included.
const DEADLINE: Duration = Duration::from_secs(1);

/// How many forwarded keepalives wait for the leader at a time.
const IN_FLIGHT: usize = 512;

/// The way to one leader; clones share the connection.
#[derive(Clone)]
pub(crate) struct Forwarder(Arc<Way>);

struct Way {
    leader: MasterTarget,
    from: Option<Ipv4Addr>,
    desk: Weak<Desk>,
    connection: Mutex<Option<Arc<Connection>>>,
    in_flight: Semaphore,
}

impl Forwarder {
    pub(crate) fn new(leader: MasterTarget, from: Option<Ipv4Addr>, desk: Weak<Desk>) -> Self {
        let way =
            Way { leader, from, desk, connection: Mutex::default(), in_flight: Semaphore::new(IN_FLIGHT) };
        Self(Arc::new(way))
    }

    /// Sends one keepalive on; its answer is the leader's, or "kept".
    pub(crate) fn forward(&self, ping: KeptPing) -> Answer<Result<(), Refusal>> {
        let way = Arc::clone(&self.0);
        // On a task of its own: a client that hangs up must not take its keepalive with it.
        let sent = tokio::spawn(async move { way.send_or_keep(ping).await });
        Answer::Later(Box::pin(async move { sent.await.unwrap_or(Ok(())) }))
    }
}

impl Way {
    async fn send_or_keep(&self, ping: KeptPing) -> Result<(), Refusal> {
        match tokio::time::timeout(DEADLINE, self.send(&ping.raw)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ClientError::Refused(refusal))) if is_of_the_keepalive(refusal.kind) => Err(refusal),
            Ok(Err(_)) | Err(_) => self.desk.upgrade().map_or(Ok(()), |desk| desk.keep(ping)),
        }
    }

    async fn send(&self, raw: &Bytes) -> Result<(), ClientError> {
        let _place = self.in_flight.acquire().await.map_err(|_| ClientError::Closed)?;
        let text =
            std::str::from_utf8(raw).map_err(|_| ClientError::Answer("a keepalive that is no UTF-8"))?;
        let connection = self.connection().await?;
        connection.forward(text, DEADLINE).await
    }

    async fn connection(&self) -> Result<Arc<Connection>, ClientError> {
        let mut slot = self.connection.lock().await;
        if let Some(open) = slot.as_ref().filter(|open| !open.is_closed()) {
            return Ok(Arc::clone(open));
        }
        let fresh = Arc::new(Connection::connect(&self.leader, self.from, DEADLINE).await?);
        *slot = Some(Arc::clone(&fresh));
        Ok(fresh)
    }
}

/// Whether a refusal is about the keepalive, and so the client's; the rest (the leader has just changed, or has
/// not heard of us yet) is between masters and passes.
fn is_of_the_keepalive(kind: RefusalKind) -> bool {
    !matches!(kind, RefusalKind::Unavailable | RefusalKind::Forbidden)
}
