//! Runs the callback when its schedule says so: one at a time, on a snapshot, with its own state.
//!
//! The order is fixed: the state is committed under the term before its verdicts reach the gate.
//! Without a callback the schedule still runs: the digest is computed when the damper fires, for
//! those who read `/ensemble`.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{Shared, gate, reign};
use crate::{
    adapters::{
        callback::{CallbackAnswer, CallbackInput, CallbackOutcome},
        store::{Batch, RecordKey, StoreError, Term},
    },
    decide::{
        damper::{Cause, Outcome, Schedule, Start},
        digest::Digest,
        ensemble::Snapshot,
    },
};

type Running = Pin<Box<dyn Future<Output = CallbackOutcome> + Send>>;

/// The callback of one reign.
pub(crate) struct Callbacks {
    pub(crate) shared: Arc<Shared>,
    pub(crate) term: Term,
    pub(crate) stop: CancellationToken,
    /// What the last successful run printed, as committed.
    pub(crate) state: Option<Bytes>,
}

/// Where the loop stands.
struct Progress {
    schedule: Schedule,
    running: Option<Running>,
    /// The digest that the last successful run saw.
    seen: Option<Digest>,
    /// The digest that the current run sees.
    shown: Option<Digest>,
}

impl Callbacks {
    /// Runs until the reign ends; a run under way is ended then, and its result counts for nothing.
    pub(crate) async fn run(mut self, start: Start) {
        let mut visible = self.shared.desk.visible();
        let schedule = Schedule::new(self.shared.damper);
        let mut progress = Progress { schedule, running: None, seen: None, shown: None };
        progress.schedule.started(self.shared.clock.now(), start);
        visible.mark_unchanged();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = visible.changed() => {
                    if changed.is_err() { break }
                    progress.schedule.changed(self.shared.clock.now());
                }
                outcome = ended(&mut progress.running) => {
                    progress.running = None;
                    if self.finish(outcome, &mut progress).await.is_err() { break }
                }
                () = self.shared.clock.sleep_until(progress.schedule.next_wakeup()) => {
                    if self.begin(&mut progress).await.is_err() { break }
                }
            }
        }
        if let Some(running) = progress.running {
            // The token is cancelled: this ends within the runner's grace.
            let outcome = running.await;
            tracing::info!(
                failed = outcome.result.is_err(),
                "the callback's run was cut short with the reign"
            );
        }
    }

    async fn begin(&self, progress: &mut Progress) -> Result<(), StoreError> {
        let Some(cause) = progress.schedule.due(self.shared.clock.now()) else { return Ok(()) };
        let ours = self.term;
        let Some((snapshot, digest)) = self.snapshot().await else {
            return Err(StoreError::Deposed { ours });
        };
        self.shared.show_digest(digest, snapshot.len());
        if cause == Cause::Change && progress.seen == Some(digest) {
            progress.schedule.skip();
            return Ok(());
        }
        // A started process cannot be fenced: whoever was frozen and wakes up asks its clock first.
        if !self.shared.store.may_act(ours) {
            return Err(StoreError::Deposed { ours });
        }
        progress.schedule.begin();
        progress.shown = Some(digest);
        let Some(runner) = self.shared.callback.clone() else {
            progress.seen = Some(digest);
            progress.schedule.finished(self.shared.clock.now(), Outcome { ok: true, again: None });
            return Ok(());
        };
        let input = CallbackInput {
            pods: Bytes::from_owner(snapshot.pods().clone()),
            digest: digest.to_string(),
            state: self.state.clone(),
            fleet: self.fleet().await,
        };
        tracing::debug!(?cause, %digest, pods = snapshot.len(), "the callback runs");
        let stop = self.stop.clone();
        progress.running = Some(Box::pin(async move { runner.run(input, stop).await }));
        Ok(())
    }

    /// What is known of every pod beyond its keepalive: as much work as the join.
    async fn fleet(&self) -> Bytes {
        let shared = Arc::clone(&self.shared);
        let written = tokio::task::spawn_blocking(move || gate::fleet_file(&shared)).await;
        written.map_or(Bytes::from_static(b"[]"), Bytes::from)
    }

    /// The join and its digest are work for a blocking thread: tens of milliseconds at 50 000 pods.
    async fn snapshot(&self) -> Option<(Arc<Snapshot>, Digest)> {
        let desk = Arc::clone(&self.shared.desk);
        let joined = tokio::task::spawn_blocking(move || {
            let snapshot = desk.with_ensemble(|ensemble, _| ensemble.snapshot())?;
            let digest = snapshot.digest();
            Some((snapshot, digest))
        });
        joined.await.ok().flatten()
    }

    async fn finish(&mut self, outcome: CallbackOutcome, progress: &mut Progress) -> Result<(), StoreError> {
        let result = match outcome.result {
            Ok(answer) => self.accept(answer).await?,
            Err(error) => {
                self.shared.alarms.raise("callback_failed", error.to_string());
                Outcome { ok: false, again: None }
            }
        };
        if result.ok {
            self.shared.alarms.clear("callback_failed");
            progress.seen = progress.shown;
        }
        progress.schedule.finished(self.shared.clock.now(), result);
        Ok(())
    }

    /// Commits the state, then hands the verdicts to the gate.
    async fn accept(&mut self, answer: CallbackAnswer) -> Result<Outcome, StoreError> {
        if let Some(state) = answer.state.filter(|state| self.state.as_ref() != Some(state)) {
            let batch = Batch { put: vec![(RecordKey::State, state.clone())], delete: Vec::new() };
            match reign::commit(&self.shared, self.term, batch, &self.stop).await {
                Ok(()) => self.state = Some(state),
                Err(error @ StoreError::TooLarge { .. }) => {
                    self.shared.alarms.raise("callback_failed", error.to_string());
                    return Ok(Outcome { ok: false, again: None });
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(traffic) = &answer.traffic {
            self.shared.gatekeeping.callback_said(traffic);
        }
        Ok(Outcome { ok: true, again: answer.again })
    }
}

/// The end of the run under way; never, when none is.
async fn ended(running: &mut Option<Running>) -> CallbackOutcome {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}
