//! What a leader does in one term: takes over what is stored, then keeps the books, runs the
//! callback and lets the gate decide, until the term ends. Every write carries the term.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Shared, bookkeeper, breakers, callbacks::Callbacks};
use crate::{
    adapters::store::{Batch, RecordKey, Records, StoreError, Term},
    decide::{
        ensemble::{Ensemble, RestoreError},
        sequence::{Sequence, SequenceError},
    },
};

/// Between two tries at a store that does not answer.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Leads until `stop`, or until the store says that another term has begun.
pub(crate) async fn reign(shared: Arc<Shared>, term: Term, stop: CancellationToken) {
    let Some((records, ensemble)) = take_over(&shared, term, &stop).await else { return };
    let start = shared.kind_of_start();
    tracing::info!(term = term.0, ?start, "leading");
    shared.desk.lead(ensemble);
    let mut tasks = JoinSet::new();
    tasks.spawn(bookkeeper::keep_books(Arc::clone(&shared), term, stop.clone()));
    let callbacks = Callbacks {
        shared: Arc::clone(&shared),
        term,
        stop: stop.clone(),
        state: records.get(&RecordKey::State).cloned(),
    };
    tasks.spawn(callbacks.run(start));
    let windows = records.get(&RecordKey::Windows).cloned();
    tasks.spawn(breakers::run_breakers(Arc::clone(&shared), term, windows, stop.clone()));
    if let Some(gatekeeper) = shared.gatekeeping.gatekeeper().cloned() {
        let stop = stop.clone();
        tasks.spawn(async move { gatekeeper.reign(term, stop).await });
    }
    tokio::select! {
        () = stop.cancelled() => {}
        // A task ends by itself only when it was deposed.
        _ = tasks.join_next() => stop.cancel(),
    }
    while tasks.join_next().await.is_some() {}
    shared.desk.wait();
    tracing::info!(term = term.0, "leading no more");
}

/// Reads everything, however long the store takes; `None` when the reign ended first.
async fn take_over(shared: &Shared, term: Term, stop: &CancellationToken) -> Option<(Records, Ensemble)> {
    let mut waits = patience();
    loop {
        let loaded = tokio::select! {
            () = stop.cancelled() => return None,
            loaded = shared.store.load() => loaded,
        };
        let taken = loaded.map_err(anyhow::Error::new).and_then(|records| {
            let ensemble = restore(shared, &records)?;
            Ok((records, ensemble))
        });
        match taken {
            Ok(taken) => {
                shared.alarms.clear("store_unreadable");
                return Some(taken);
            }
            Err(error) => {
                shared.alarms.raise("store_unreadable", format!("term {} cannot begin: {error:#}", term.0))
            }
        }
        if !pause(&mut waits, stop).await {
            return None;
        }
    }
}

/// The ensemble as it was stored. A record that cannot be read stops the reign: leading without it
/// would give its number to another pod.
fn restore(shared: &Shared, records: &Records) -> Result<Ensemble, UnreadableStore> {
    let pods = records.iter().filter_map(|(record, bytes)| match record {
        RecordKey::Pod(key) => Some((*key, bytes)),
        _ => None,
    });
    let sequence = records.get(&RecordKey::Sequence).map(|bytes| Sequence::decode(bytes)).transpose()?;
    Ok(Ensemble::restore(shared.settings, shared.clock.now(), pods, sequence.unwrap_or_default())?)
}

/// Why a reign cannot begin on what is stored.
#[derive(Debug, thiserror::Error)]
enum UnreadableStore {
    #[error(transparent)]
    DecodeSequence(#[from] SequenceError),
    #[error(transparent)]
    RestoreEnsemble(#[from] RestoreError),
}

/// A fresh series of waits for a store that does not answer.
pub(super) fn patience() -> impl Iterator<Item = Duration> + Send {
    let (least, most) = BACKOFF;
    ExponentialBuilder::new()
        .with_min_delay(least)
        .with_max_delay(most)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Waits for the next of `waits`; `false` when the reign ended first.
pub(super) async fn pause(
    waits: &mut (impl Iterator<Item = Duration> + Send),
    stop: &CancellationToken,
) -> bool {
    let wait = waits.next().unwrap_or(BACKOFF.1);
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(wait) => true,
    }
}

/// Commits `batch` under `term` until it is written, refused, or the reign has ended.
///
/// # Errors
/// [`StoreError`] that no patience cures: deposed, too large. An end of the reign shows as deposed.
pub(super) async fn commit(
    shared: &Shared,
    term: Term,
    batch: Batch,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let mut waits = patience();
    loop {
        match shared.store.commit(term, batch.clone()).await {
            Ok(()) => {
                shared.alarms.clear("store_write");
                return Ok(());
            }
            Err(error @ (StoreError::Deposed { .. } | StoreError::TooLarge { .. })) => return Err(error),
            Err(error) => shared.alarms.raise("store_write", format!("changes wait in memory: {error}")),
        }
        if !pause(&mut waits, stop).await {
            return Err(StoreError::Deposed { ours: term });
        }
    }
}
