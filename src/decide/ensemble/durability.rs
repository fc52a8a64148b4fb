//! What must reach the store: only changes, in batches, one batch at a time.
//!
//! A pod's new seq is confirmed before it stands in any snapshot. Whatever a failed batch held
//! goes back to the front of the queue, in its newest form. Plain heartbeats never come here.

use std::collections::{HashSet, VecDeque};

use crate::decide::{key::Key, sequence::Sequence};

/// The most records in one batch: etcd takes 128 operations in a transaction.
pub const BATCH_RECORDS: usize = 100;

/// A batch is closed when it holds this many bytes: etcd takes requests of 1.5 MiB.
pub const BATCH_BYTES: usize = 256 << 10;

/// Names one batch that is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// Records that must be written together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChanges {
    /// Give it back with [`Ensemble::confirm`](super::Ensemble::confirm) or [`Ensemble::fail`](super::Ensemble::fail).
    pub ticket: Ticket,
    /// Pods to write, in their stored form.
    pub put: Vec<(Key, Vec<u8>)>,
    /// Pods to remove; one that is not there is fine.
    pub delete: Vec<Key>,
    /// The sequence to store in the same transaction.
    pub sequence: Sequence,
}

/// A batch on its way: which pods, and the seq that each had.
#[derive(Debug)]
pub(super) struct InFlight {
    ticket: Ticket,
    pub(super) put: Vec<(Key, u64)>,
    delete: Vec<Key>,
}

/// Keys whose records differ from the store's.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<Key>,
    queued: HashSet<Key>,
    in_flight: Option<InFlight>,
    tickets: u64,
}

impl Pending {
    /// The record of `key` must be written or removed.
    pub(super) fn push(&mut self, key: Key) {
        if self.queued.insert(key) {
            self.queue.push_back(key);
        }
    }

    /// Whatever is not known to be stored, on its way or not.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let on_its_way = self.in_flight.iter().flat_map(|batch| batch.put.iter().map(|(key, _)| *key));
        on_its_way.chain(self.queue.iter().copied())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_some() || self.queue.is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<Key> {
        let key = self.queue.pop_front()?;
        self.queued.remove(&key);
        Some(key)
    }

    pub(super) fn depart(&mut self, put: Vec<(Key, u64)>, delete: Vec<Key>) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.in_flight = Some(InFlight { ticket, put, delete });
        ticket
    }

    /// The batch of `ticket`, if it is the one on its way.
    pub(super) fn arrive(&mut self, ticket: Ticket) -> Option<InFlight> {
        self.in_flight.take_if(|batch| batch.ticket == ticket)
    }

    /// Its records go to the front of the queue again.
    pub(super) fn put_back(&mut self, batch: InFlight) {
        let keys = batch.put.into_iter().map(|(key, _)| key).chain(batch.delete);
        for key in keys.collect::<Vec<_>>().into_iter().rev() {
            if self.queued.insert(key) {
                self.queue.push_front(key);
            }
        }
    }
}
