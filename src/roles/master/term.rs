//! One term of leadership: restores what is stored, then persists changes, runs the callback and the gate until the
//! term ends. Every write carries the term.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    breakers,
    callback_loop::CallbackLoop,
    commit::{backoff, pause},
    context::Shared,
    persistence,
};
use crate::{
    adapters::store::{RecordKey, Records, Term},
    core_task,
    decide::alarm_reason::AlarmReason,
    decide::{
        ensemble::{Ensemble, EnsembleRestoreError},
        sequence::{Sequence, SequenceError},
    },
};

/// Leads until `stop`, or until the store shows that another term has begun.
///
/// # Panics
/// When a task of the term has, after the others have ended.
pub(crate) async fn run_term(shared: Arc<Shared>, term: Term, stop: CancellationToken) {
    let Some((records, ensemble)) = load_and_restore(&shared, term, &stop).await else { return };
    let start = shared.start_kind();
    tracing::info!(term = term.0, ?start, "leading");
    shared.ingest.lead(ensemble);
    let mut tasks = JoinSet::new();
    tasks.spawn(persistence::persist_changes(Arc::clone(&shared), term, stop.clone()));
    tasks.spawn(persistence::stay_awake(Arc::clone(&shared), stop.clone()));
    let callbacks = CallbackLoop {
        shared: Arc::clone(&shared),
        term,
        stop: stop.clone(),
        state: records.get(&RecordKey::State).cloned(),
    };
    tasks.spawn(callbacks.run(start));
    let windows = records.get(&RecordKey::Windows).cloned();
    tasks.spawn(breakers::run_breakers(Arc::clone(&shared), term, windows, stop.clone()));
    if let Some(roster_gate) = shared.gate.roster_gate.clone() {
        let stop = stop.clone();
        tasks.spawn(async move { roster_gate.run(term, stop).await });
    }
    let mut panicked = None;
    tokio::select! {
        () = stop.cancelled() => {}
        // A task ends by itself only when leadership is lost.
        ended = tasks.join_next() => panicked = ended.and_then(Result::err),
    }
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        panicked = panicked.or(ended.err());
    }
    shared.ingest.hold();
    tracing::info!(term = term.0, "leading no more");
    if let Some(error) = panicked {
        core_task::resume(error);
    }
}

/// Loads all records, retried while the store does not answer; `None` when the term ended first.
async fn load_and_restore(
    shared: &Shared,
    term: Term,
    stop: &CancellationToken,
) -> Option<(Records, Ensemble)> {
    let mut delays = backoff();
    loop {
        let loaded = stop.run_until_cancelled(shared.store.load()).await?;
        let restored = loaded.map_err(anyhow::Error::new).and_then(|records| {
            let ensemble = restore(shared, &records)?;
            Ok((records, ensemble))
        });
        match restored {
            Ok(restored) => {
                shared.alarms.clear(AlarmReason::StoreUnreadable);
                return Some(restored);
            }
            Err(error) => shared
                .alarms
                .raise(AlarmReason::StoreUnreadable, format!("term {} cannot begin: {error:#}", term.0)),
        }
        if !pause(&mut delays, stop).await {
            return None;
        }
    }
}

/// The ensemble as stored. One unreadable record stops the term: leading without it would give its sequence number to
/// another pod.
fn restore(shared: &Shared, records: &Records) -> Result<Ensemble, RestoreTermError> {
    let pods = records.iter().filter_map(|(record, bytes)| match record {
        RecordKey::Pod(key) => Some((*key, bytes)),
        _ => None,
    });
    let sequence = records.get(&RecordKey::Sequence).map(|bytes| Sequence::decode(bytes)).transpose()?;
    Ok(Ensemble::restore(shared.settings, shared.clock.now(), pods, sequence.unwrap_or_default())?)
}

#[derive(Debug, thiserror::Error)]
enum RestoreTermError {
    #[error(transparent)]
    DecodeSequence(#[from] SequenceError),
    #[error(transparent)]
    RestoreEnsemble(#[from] EnsembleRestoreError),
}
