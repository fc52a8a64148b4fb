//! Sends keepalives to one master. Each master has a sender of its own, so that a dead one does not delay the others.
//!
//! A lost ping is repeated at once over a new connection, so that one lost packet does not expire the pod; further
//! attempts back off up to the ping interval.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use backon::ExponentialBackoff;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::composer::KeepaliveTexts;
use crate::{
    adapters::wire::{
        RefusalKind,
        client::{ClientError, Connection},
    },
    clock::backoff,
    config::MasterTarget,
};

/// The shortest delay between attempts after the first two.
const MIN_DELAY: Duration = Duration::from_millis(50);

/// Between two lines about the same refusal.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct KeepaliveSender {
    target: MasterTarget,
    from: Ipv4Addr,
    interval: Duration,
    deadline: Duration,
    texts: watch::Receiver<KeepaliveTexts>,
    connection: Option<Connection>,
    /// The address of the last connection that lost a ping: tried after the master's others.
    failed: Option<SocketAddrV4>,
    /// Delays between attempts; `None` while the master answers.
    backoff: Option<ExponentialBackoff>,
    /// The last refusal that was logged, and when.
    refusal: Option<(String, Instant)>,
}

impl KeepaliveSender {
    pub(super) fn new(
        target: MasterTarget,
        from: Ipv4Addr,
        (interval, deadline): (Duration, Duration),
        texts: watch::Receiver<KeepaliveTexts>,
    ) -> Self {
        Self {
            target,
            from,
            interval,
            deadline,
            texts,
            connection: None,
            failed: None,
            backoff: None,
            refusal: None,
        }
    }

    /// Pings until `stop`, then sends `down`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let began = Instant::now();
            let text = self.texts.borrow_and_update().alive.clone();
            let outcome = match self.connect(&stop).await {
                Ok(true) => self.ping(&text, began + self.deadline).await,
                Ok(false) => break,
                Err(error) => Err(error),
            };
            let next = self.next_ping(outcome, began);
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep_until(next) => {}
                Ok(()) = self.texts.changed() => {}
            }
        }
        self.send_down().await;
    }

    /// Opens a connection unless there is one; `false` when `stop` came first. A ping under way is not interrupted,
    /// because `down` must not overtake it.
    async fn connect(&mut self, stop: &CancellationToken) -> Result<bool, ClientError> {
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            let made =
                Connection::connect_elsewhere(&self.target, Some(self.from), self.deadline, self.failed);
            let Some(made) = stop.run_until_cancelled(made).await else { return Ok(false) };
            self.connection = Some(made?);
        }
        Ok(true)
    }

    async fn ping(&self, text: &str, until: Instant) -> Result<(), ClientError> {
        let Some(connection) = &self.connection else { return Err(ClientError::Closed) };
        connection.ping(text, until.saturating_duration_since(Instant::now())).await
    }

    /// Keeps what `outcome` shows of the master, and returns when to ping next.
    fn next_ping(&mut self, outcome: Result<(), ClientError>, began: Instant) -> Instant {
        let (master, regular) = (&self.target, began + self.interval);
        let error = match outcome {
            Ok(()) => {
                if self.backoff.take().is_some() || self.refusal.take().is_some() {
                    tracing::info!(%master, "the master takes our keepalives again");
                }
                return regular;
            }
            Err(error) => error,
        };
        if is_answer(&error) {
            // The master is up and refuses: the same ping again at once would be refused too.
            let text = error.to_string();
            let known = |(logged, at): &(String, Instant)| *logged == text && at.elapsed() < REFUSAL_INTERVAL;
            if !self.refusal.as_ref().is_some_and(known) {
                tracing::warn!(%master, "the master does not take our keepalives: {text}");
                self.refusal = Some((text, Instant::now()));
            }
            return regular;
        }
        self.failed = self.connection.take().map(|connection| connection.peer()).or(self.failed);
        match &mut self.backoff {
            None => {
                tracing::warn!(%master, "a keepalive was lost, trying again: {error}");
                self.backoff = Some(backoff(MIN_DELAY.min(self.interval), self.interval));
                Instant::now()
            }
            Some(delays) => {
                tracing::debug!(%master, "still no answer: {error}");
                regular.min(Instant::now() + delays.next().unwrap_or(self.interval))
            }
        }
    }

    /// Sends the last keepalive; once more over a new connection if the present one is broken, within two deadlines.
    async fn send_down(&mut self) {
        let text = self.texts.borrow().down.clone();
        for _attempt in 0..2 {
            let until = Instant::now() + self.deadline;
            let never = CancellationToken::new();
            let sent = async {
                self.connect(&never).await?;
                self.ping(&text, until).await
            };
            match timeout_at(until, sent).await.unwrap_or(Err(ClientError::Deadline)) {
                Ok(()) => return,
                Err(error) => tracing::debug!(master = %self.target, "`down` was not answered: {error}"),
            }
            // Without a connection before, a second attempt would fail in the same way.
            if self.connection.take().is_none() {
                break;
            }
        }
        tracing::warn!(master = %self.target, "the master did not take our `down`; it expires this pod after the TTL");
    }
}

fn is_answer(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(refusal) => refusal.kind != RefusalKind::Unavailable,
        ClientError::Remote { .. } => true,
        _ => false,
    }
}
