//! Forwards keepalives of a follower to the leader: one connection, a bounded number of calls in flight, 1 s for each.
//!
//! The client gets the leader's answer. A ping that the leader does not answer is kept, so that no keepalive is lost.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore};

use super::pending::PendingPing;
use crate::{
    adapters::wire::{
        Answer, Refusal, RefusalKind,
        client::{ClientError, Connection},
    },
    config::MasterTarget,
};

/// For one forwarded keepalive, connecting included.
const DEADLINE: Duration = Duration::from_secs(1);

/// The most forwarded keepalives that wait for the leader at a time.
const IN_FLIGHT: usize = 512;

/// Keeps a keepalive that the leader did not answer.
type Keep = Box<dyn Fn(PendingPing) -> Result<(), Refusal> + Send + Sync>;

/// Forwards to one leader; clones share the connection.
#[derive(Clone)]
pub(crate) struct Forwarder(Arc<LeaderConnection>);

struct LeaderConnection {
    leader: MasterTarget,
    from: Option<Ipv4Addr>,
    keep: Keep,
    connection: Mutex<Option<Arc<Connection>>>,
    in_flight: Semaphore,
}

impl Forwarder {
    /// `from` is the local address of the connection; `keep` takes what the leader does not answer.
    pub(crate) fn new(
        leader: MasterTarget,
        from: Option<Ipv4Addr>,
        keep: impl Fn(PendingPing) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> Self {
        let (connection, in_flight) = (Mutex::default(), Semaphore::new(IN_FLIGHT));
        Self(Arc::new(LeaderConnection { leader, from, keep: Box::new(keep), connection, in_flight }))
    }

    /// Forwards one keepalive; the answer is the leader's, or `Ok` when the keepalive is kept.
    pub(crate) fn forward(&self, ping: PendingPing) -> Answer<Result<(), Refusal>> {
        let leader = Arc::clone(&self.0);
        // On a task of its own: a client that hangs up does not cancel its keepalive.
        let sent = tokio::spawn(async move { leader.send_or_keep(ping).await });
        Answer::Later(Box::pin(async move { sent.await.unwrap_or(Ok(())) }))
    }

    /// Forwards without waiting for the answers.
    pub(crate) fn forward_all(&self, pings: Vec<PendingPing>) {
        for ping in pings {
            // Each runs on a task of its own.
            drop(self.forward(ping));
        }
    }
}

impl LeaderConnection {
    async fn send_or_keep(&self, ping: PendingPing) -> Result<(), Refusal> {
        match tokio::time::timeout(DEADLINE, self.send(&ping.raw)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ClientError::Refused(refusal))) if concerns_keepalive(refusal.kind) => Err(refusal),
            Ok(Err(_)) | Err(_) => (self.keep)(ping),
        }
    }

    async fn send(&self, raw: &Bytes) -> Result<(), ClientError> {
        let _permit = self.in_flight.acquire().await.map_err(|_| ClientError::Closed)?;
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

/// Whether the client gets the refusal. The others are between masters and pass: the leader has changed, or does not
/// list this member yet.
fn concerns_keepalive(kind: RefusalKind) -> bool {
    !matches!(kind, RefusalKind::Unavailable | RefusalKind::Forbidden)
}
