//! Persists changes of the ensemble in batches, and expires silent pods.
//!
//! A new sequence number is durable before any snapshot shows it. An unchanged heartbeat writes nothing.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{
    commit::{backoff, commit, pause},
    context::Shared,
};
use crate::{
    adapters::store::{Batch, RecordKey, StoreError, Term},
    decide::alarm_reason::AlarmReason,
    decide::ensemble::{Ensemble, RecordChanges},
};

/// Time for which changed payloads are gathered into one batch. A callback that they start begins before it is over, and
/// its start does not share the processor with the write.
const GATHER: Duration = Duration::from_millis(10);

/// Runs until `stop`, or until leadership is lost.
pub(crate) async fn persist_changes(shared: Arc<Shared>, term: Term, stop: CancellationToken) {
    loop {
        let Some(expiry) = shared.ingest.with_ensemble(|ensemble, _| ensemble.next_wakeup()) else { return };
        tokio::select! {
            () = stop.cancelled() => return persist_last_changes(&shared, term).await,
            () = shared.ingest.dirty.notified() => {}
            () = shared.ingest.changed.notified() => tokio::select! {
                () = stop.cancelled() => {}
                () = shared.ingest.dirty.notified() => {}
                () = tokio::time::sleep(GATHER) => {}
            },
            () = shared.clock.sleep_until(expiry) => {}
        }
        let expired = shared.ingest.with_ensemble(Ensemble::expire).unwrap_or_default();
        shared.metrics.expired.inc_by(expired.len() as u64);
        while let Some(changes) = take_changes(&shared) {
            if !persist(&shared, term, changes, &stop).await {
                return;
            }
        }
    }
}

/// Touches the ensemble so often that a longer time without a touch is a pause of this process
/// ([`Ensemble::awake`], which each access calls); runs as [`persist_changes`].
pub(crate) async fn stay_awake(shared: Arc<Shared>, stop: CancellationToken) {
    let every = shared.settings.awake_every();
    while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
        if shared.ingest.with_ensemble(|_, _| ()).is_none() {
            return;
        }
    }
}

/// Writes what is left at the end of a term, once. Without the lease this is the next leader's.
async fn persist_last_changes(shared: &Shared, term: Term) {
    while shared.store.may_act(term)
        && let Some(changes) = take_changes(shared)
    {
        let ticket = changes.ticket;
        if let Err(error) = shared.store.commit(term, batch(changes)).await {
            tracing::warn!(%error, "the last changes of this term are not stored");
            shared.ingest.end_batch(ticket, false);
            return;
        }
        shared.ingest.end_batch(ticket, true);
    }
}

fn take_changes(shared: &Shared) -> Option<RecordChanges> {
    shared.ingest.with_ensemble(|ensemble, _| ensemble.take_changes()).flatten()
}

/// `false` when the term is over.
async fn persist(shared: &Shared, term: Term, changes: RecordChanges, stop: &CancellationToken) -> bool {
    let ticket = changes.ticket;
    let written = commit(shared, term, batch(changes), stop).await;
    shared.ingest.end_batch(ticket, written.is_ok());
    match written {
        Ok(()) => true,
        Err(StoreError::TooLarge { .. }) => {
            // Not expected, because the limit of a keepalive is below that of a record; the pause prevents a busy loop.
            shared.alarms.raise(AlarmReason::StoreWrite, "a pod's record is larger than the store takes");
            pause(&mut backoff(), stop).await
        }
        Err(error) => {
            tracing::warn!(%error, "changes are no longer stored in this term");
            false
        }
    }
}

fn batch(changes: RecordChanges) -> Batch {
    let mut batch = Batch::default();
    batch.put.push((RecordKey::Sequence, Bytes::from(changes.sequence.encode())));
    batch.put.extend(changes.put.into_iter().map(|(key, record)| (RecordKey::Pod(key), Bytes::from(record))));
    batch.delete.extend(changes.delete.into_iter().map(RecordKey::Pod));
    batch
}
