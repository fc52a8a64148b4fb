//! Runs the callback when its schedule is due: one run at a time, on a snapshot, with its own state.
//!
//! A run's state is committed under the term before its verdicts reach the gate. Without a callback the schedule runs
//! too, because the page `/ensemble` shows the digest.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{commit::commit, context::Shared};
use crate::{
    adapters::{
        callback::{CallbackAnswer, CallbackInput, CallbackOutcome},
        store::{Batch, RecordKey, StoreError, Term},
    },
    core_task::blocking,
    decide::alarm_reason::AlarmReason,
    decide::{
        damper::{Cause, RunOutcome, Schedule, Start},
        digest::Digest,
        ensemble::Snapshot,
    },
};

type RunningCallback = Pin<Box<dyn Future<Output = CallbackOutcome> + Send>>;

/// The callback of one term.
pub(crate) struct CallbackLoop {
    pub(crate) shared: Arc<Shared>,
    pub(crate) term: Term,
    pub(crate) stop: CancellationToken,
    /// The last successful run's output, as committed.
    pub(crate) state: Option<Bytes>,
}

struct CallbackProgress {
    schedule: Schedule,
    running: Option<RunningCallback>,
    /// The digest of the last successful run.
    succeeded: Option<Digest>,
    /// The digest of the current run.
    current: Option<Digest>,
}

/// The ensemble as a run gets it.
struct RunInput {
    snapshot: Arc<Snapshot>,
    digest: Digest,
    /// `$FLEET_FILE`, if a callback is to run.
    fleet: Option<Bytes>,
}

impl CallbackLoop {
    /// Runs until the term ends; a run under way is ended then, and its result is dropped.
    pub(crate) async fn run(mut self, start: Start) {
        let mut revisions = self.shared.ingest.revisions();
        let schedule = Schedule::new(self.shared.damper);
        let mut progress = CallbackProgress { schedule, running: None, succeeded: None, current: None };
        progress.schedule.started(self.shared.clock.now(), start);
        revisions.mark_unchanged();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = revisions.changed() => {
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
            let failed = running.await.result.is_err();
            tracing::info!(failed, "the callback's run ended early with the term");
        }
    }

    async fn begin(&self, progress: &mut CallbackProgress) -> Result<(), StoreError> {
        let Some(cause) = progress.schedule.due(self.shared.clock.now()) else { return Ok(()) };
        let ours = self.term;
        let done = progress.succeeded.filter(|_| cause == Cause::Change);
        let Some(RunInput { snapshot, digest, fleet }) = self.join(done).await else {
            return Err(StoreError::LeadershipLost(ours));
        };
        self.shared.publish_digest(digest, snapshot.len());
        if done == Some(digest) {
            progress.schedule.skip();
            return Ok(());
        }
        // A started process cannot be fenced, so the lease is checked on the clock first: this process may have been frozen.
        if !self.shared.store.may_act(ours) {
            return Err(StoreError::LeadershipLost(ours));
        }
        progress.schedule.begin();
        progress.current = Some(digest);
        let (Some(runner), Some(fleet)) = (self.shared.callback.clone(), fleet) else {
            progress.succeeded = Some(digest);
            progress.schedule.finished(self.shared.clock.now(), RunOutcome { ok: true, again: None });
            return Ok(());
        };
        let input = CallbackInput {
            pods: Bytes::from_owner(snapshot.pods().clone()),
            digest: digest.to_string(),
            state: self.state.clone(),
            fleet,
        };
        tracing::debug!(?cause, %digest, pods = snapshot.len(), "the callback runs");
        let stop = self.stop.clone();
        progress.running = Some(Box::pin(async move { runner.run(input, stop).await }));
        Ok(())
    }

    /// The input of a run whose digest is not `done`, on a blocking thread, because joining and hashing 50 000 pods takes
    /// tens of milliseconds, and `$FLEET_FILE` as much; `None` while this master does not lead.
    async fn join(&self, done: Option<Digest>) -> Option<RunInput> {
        let shared = Arc::clone(&self.shared);
        let joined = blocking(move || {
            let snapshot = shared.ingest.with_ensemble(|ensemble, _| ensemble.snapshot())?;
            let digest = snapshot.digest();
            let runs = done != Some(digest) && shared.callback.is_some();
            let fleet = runs.then(|| Bytes::from(shared.gate.fleet_file(&shared.reader)));
            Some(RunInput { snapshot, digest, fleet })
        });
        joined.await.flatten()
    }

    async fn finish(
        &mut self,
        outcome: CallbackOutcome,
        progress: &mut CallbackProgress,
    ) -> Result<(), StoreError> {
        let result = match outcome.result {
            Ok(answer) => self.accept(answer).await?,
            Err(error) => {
                self.shared.alarms.raise(AlarmReason::CallbackFailed, error.to_string());
                RunOutcome { ok: false, again: None }
            }
        };
        if result.ok {
            self.shared.alarms.clear(AlarmReason::CallbackFailed);
            progress.succeeded = progress.current;
        }
        progress.schedule.finished(self.shared.clock.now(), result);
        Ok(())
    }

    /// Commits the state, then gives the verdicts to the gate.
    async fn accept(&mut self, answer: CallbackAnswer) -> Result<RunOutcome, StoreError> {
        if let Some(state) = answer.state.filter(|state| self.state.as_ref() != Some(state)) {
            let batch = Batch { put: vec![(RecordKey::State, state.clone())], delete: Vec::new() };
            match commit(&self.shared, self.term, batch, &self.stop).await {
                Ok(()) => self.state = Some(state),
                Err(error @ StoreError::TooLarge { .. }) => {
                    self.shared.alarms.raise(AlarmReason::CallbackFailed, error.to_string());
                    return Ok(RunOutcome { ok: false, again: None });
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(traffic) = &answer.traffic {
            self.shared.gate.callback_said(traffic);
        }
        Ok(RunOutcome { ok: true, again: answer.again })
    }
}

/// Waits for the run under way to end; forever when there is none.
async fn ended(running: &mut Option<RunningCallback>) -> CallbackOutcome {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}
