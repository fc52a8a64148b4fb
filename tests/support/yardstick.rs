//! What one durable store commit takes on this machine: the yardstick beside which figures are printed.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, none uses all")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use kubervisor::adapters::store::{Batch, RecordKey, Store, StoreError, Term};

/// The median time of one commit of 200 bytes, of `rounds`, one after the other.
pub async fn one_store_commit(store: &dyn Store, term: Term, rounds: usize) -> Result<Duration, StoreError> {
    let value = Bytes::from(vec![b'x'; 200]);
    let mut taken = Vec::with_capacity(rounds);
    for _ in 0..rounds.max(1) {
        let batch = Batch { put: vec![(RecordKey::Windows, value.clone())], delete: vec![] };
        let began = Instant::now();
        store.commit(term, batch).await?;
        taken.push(began.elapsed());
    }
    taken.sort_unstable();
    Ok(taken[taken.len() / 2])
}
