//! Changes for the store, in batches, with at most one batch in flight.
//!
//! A new pod enters a snapshot only after its batch is confirmed. The keys of a failed batch return to the front of
//! the queue and are encoded again. Heartbeats are not written.

use std::collections::{HashSet, VecDeque};

use crate::decide::{key::Key, sequence::Sequence};

/// The most records in one batch: etcd allows 128 operations in a transaction.
pub const BATCH_RECORDS: usize = 100;

/// A batch is closed at this size in bytes: etcd allows requests of 1.5 MiB.
pub const BATCH_BYTES: usize = 256 << 10;

/// Identifies one batch in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// Records that must be written in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChanges {
    /// For [`Ensemble::confirm`](super::Ensemble::confirm) or [`Ensemble::fail`](super::Ensemble::fail).
    pub ticket: Ticket,
    /// Pods to write, in their stored form.
    pub put: Vec<(Key, Vec<u8>)>,
    /// Pods to remove; absent ones are no error.
    pub delete: Vec<Key>,
    /// The sequence to store in the same transaction.
    pub sequence: Sequence,
}

/// A batch in flight: its pods, each with the seq that is written.
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

    /// The keys of unconfirmed puts: in flight, then queued.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let in_flight = self.in_flight.iter().flat_map(|batch| batch.put.iter().map(|(key, _)| *key));
        in_flight.chain(self.queue.iter().copied())
    }

    /// Whether the record of `key` is queued, or in the batch in flight.
    pub(super) fn is_unconfirmed(&self, key: Key) -> bool {
        let in_flight =
            |batch: &InFlight| batch.put.iter().any(|(put, _)| *put == key) || batch.delete.contains(&key);
        self.queued.contains(&key) || self.in_flight.as_ref().is_some_and(in_flight)
    }

    /// Whether no batch can start: one is in flight, or the queue is empty.
    pub(super) fn is_blocked(&self) -> bool {
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

    /// Takes the batch of `ticket`, if it is the one in flight.
    pub(super) fn arrive(&mut self, ticket: Ticket) -> Option<InFlight> {
        self.in_flight.take_if(|batch| batch.ticket == ticket)
    }

    /// Returns the batch's keys to the front of the queue.
    pub(super) fn put_back(&mut self, batch: InFlight) {
        let keys = batch.put.into_iter().map(|(key, _)| key).chain(batch.delete);
        for key in keys.collect::<Vec<_>>().into_iter().rev() {
            if self.queued.insert(key) {
                self.queue.push_front(key);
            }
        }
    }
}
