//! Keeps the books: what changed goes to the store in batches, what fell silent expires.
//!
//! A new sequence number is durable before any snapshot shows it; a plain heartbeat never gets here.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{Shared, reign};
use crate::{
    adapters::store::{Batch, RecordKey, StoreError, Term},
    decide::ensemble::{Changes, Ensemble},
};

/// Runs until `stop`, or until it is deposed.
pub(crate) async fn keep_books(shared: Arc<Shared>, term: Term, stop: CancellationToken) {
    loop {
        let Some(expiry) = shared.desk.with_ensemble(|ensemble, _| ensemble.next_wakeup()) else { return };
        tokio::select! {
            () = stop.cancelled() => return close_books(&shared, term).await,
            () = shared.desk.stirred() => {}
            () = shared.clock.sleep_until(expiry) => {}
        }
        let expired = shared.desk.with_ensemble(Ensemble::expire).unwrap_or_default();
        shared.metrics.expired.inc_by(expired.len() as u64);
        while let Some(changes) = shared.desk.with_ensemble(|ensemble, _| ensemble.take_changes()).flatten() {
            if !persist(&shared, term, changes, &stop).await {
                return;
            }
        }
    }
}

/// The last entries of a reign that ends in order; one that has lost its lease leaves them to the next.
async fn close_books(shared: &Shared, term: Term) {
    while shared.store.may_act(term)
        && let Some(changes) = shared.desk.with_ensemble(|ensemble, _| ensemble.take_changes()).flatten()
    {
        let ticket = changes.ticket;
        if let Err(error) = shared.store.commit(term, batch(changes)).await {
            tracing::warn!(%error, "the last changes of this reign are not stored");
            shared.desk.with_ensemble(|ensemble, _| ensemble.fail(ticket));
            return;
        }
        shared.desk.with_ensemble(|ensemble, _| ensemble.confirm(ticket));
    }
}

/// `false` when the reign is over.
async fn persist(shared: &Shared, term: Term, changes: Changes, stop: &CancellationToken) -> bool {
    let ticket = changes.ticket;
    let written = reign::commit(shared, term, batch(changes), stop).await;
    let confirmed = written.is_ok();
    shared.desk.with_ensemble(
        |ensemble, _| if confirmed { ensemble.confirm(ticket) } else { ensemble.fail(ticket) },
    );
    match written {
        Ok(()) => true,
        Err(StoreError::TooLarge { .. }) => {
            // Cannot be: a keepalive has a smaller limit than a record. Never spin on it.
            shared.alarms.raise("store_write", "a pod's record is larger than the store takes");
            reign::pause(&mut reign::patience(), stop).await
        }
        Err(error) => {
            tracing::warn!(%error, "the books are closed");
            false
        }
    }
}

fn batch(changes: Changes) -> Batch {
    let mut batch = Batch::default();
    batch.put.push((RecordKey::Sequence, Bytes::from(changes.sequence.encode())));
    batch.put.extend(changes.put.into_iter().map(|(key, record)| (RecordKey::Pod(key), Bytes::from(record))));
    batch.delete.extend(changes.delete.into_iter().map(RecordKey::Pod));
    batch
}
