//! Tells one master, again and again, that we are alive. Each master has a pinger of its own: a dead one delays nobody.
//!
//! A ping that is lost is said again at once over a new connection, so that one lost packet never costs
//! a pod its place; after that attempts get slower, but never slower than the pings themselves.

use std::{net::Ipv4Addr, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::speech::Utterance;
use crate::{
    adapters::wire::{
        RefusalKind,
        client::{ClientError, Connection},
    },
    config::MasterTarget,
};

/// The shortest pause between attempts after the first two.
const SHORTEST: Duration = Duration::from_millis(50);

pub(super) struct Pinger {
    target: MasterTarget,
    from: Ipv4Addr,
    every: Duration,
    deadline: Duration,
    said: watch::Receiver<Utterance>,
    connection: Option<Connection>,
    /// Pauses between attempts; `None` while the master answers.
    backoff: Option<ExponentialBackoff>,
    refusal: Option<String>,
}

impl Pinger {
    pub(super) fn new(
        target: MasterTarget,
        from: Ipv4Addr,
        (every, deadline): (Duration, Duration),
        said: watch::Receiver<Utterance>,
    ) -> Self {
        Self { target, from, every, deadline, said, connection: None, backoff: None, refusal: None }
    }

    /// Pings until `stop`, then says `down`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let began = Instant::now();
            let text = self.said.borrow_and_update().alive.clone();
            let outcome = match self.connect(&stop).await {
                Ok(true) => self.ping(&text, began + self.deadline).await,
                Ok(false) => break,
                Err(error) => Err(error),
            };
            let next = self.judge(outcome, began);
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep_until(next) => {}
                Ok(()) = self.said.changed() => {}
            }
        }
        self.say_down().await;
    }

    /// Makes sure that there is a connection; false when told to stop meanwhile. (A ping that is under
    /// way is not interrupted: `down` must not overtake it.)
    async fn connect(&mut self, stop: &CancellationToken) -> Result<bool, ClientError> {
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            self.connection = tokio::select! {
                () = stop.cancelled() => return Ok(false),
                made = Connection::connect(&self.target, Some(self.from), self.deadline) => Some(made?),
            };
        }
        Ok(true)
    }

    async fn ping(&self, text: &str, until: Instant) -> Result<(), ClientError> {
        let Some(connection) = &self.connection else { return Err(ClientError::Closed) };
        connection.ping(text, until.saturating_duration_since(Instant::now())).await
    }

    /// What the outcome means for us; returns when to ping next.
    fn judge(&mut self, outcome: Result<(), ClientError>, began: Instant) -> Instant {
        let (master, regular) = (&self.target, began + self.every);
        let error = match outcome {
            Ok(()) => {
                if self.backoff.take().is_some() || self.refusal.take().is_some() {
                    tracing::info!(%master, "the master takes our keepalives again");
                }
                return regular;
            }
            Err(error) => error,
        };
        if is_an_answer(&error) {
            // It is there and has its reasons: saying the same again at once would not help.
            let text = error.to_string();
            if self.refusal.as_ref() != Some(&text) {
                tracing::warn!(%master, "the master does not take our keepalives: {text}");
                self.refusal = Some(text);
            }
            return regular;
        }
        self.connection = None;
        match &mut self.backoff {
            None => {
                tracing::warn!(%master, "a keepalive was lost, trying again: {error}");
                self.backoff = Some(pauses(self.every));
                Instant::now()
            }
            Some(pauses) => {
                tracing::debug!(%master, "still no answer: {error}");
                regular.min(Instant::now() + pauses.next().unwrap_or(self.every))
            }
        }
    }

    /// The last keepalive: once more over a new connection if the one that we have is broken, within two deadlines.
    async fn say_down(&mut self) {
        let text = self.said.borrow().down.clone();
        for _attempt in 0..2 {
            let until = Instant::now() + self.deadline;
            let never = CancellationToken::new();
            let said = async {
                self.connect(&never).await?;
                self.ping(&text, until).await
            };
            match timeout_at(until, said).await.unwrap_or(Err(ClientError::Deadline)) {
                Ok(()) => return,
                Err(error) => tracing::debug!(master = %self.target, "could not say that we go: {error}"),
            }
            // Without a connection before, a second attempt would not fare better.
            if self.connection.take().is_none() {
                break;
            }
        }
        tracing::warn!(master = %self.target, "the master was not told that we go; it will see at our TTL");
    }
}

fn is_an_answer(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(refusal) => refusal.kind != RefusalKind::Unavailable,
        ClientError::Remote { .. } => true,
        _ => false,
    }
}

fn pauses(longest: Duration) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(SHORTEST.min(longest))
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
        .build()
}
