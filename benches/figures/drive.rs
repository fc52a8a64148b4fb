//! The client of the throughput figures: prepared bytes, blocking sockets, a fixed window in flight on
//! each connection. Answers are counted in bytes, so that the client costs next to nothing.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::fleet::Link;

/// Requests that travel together.
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) requests: usize,
}

/// One connection with what it sends, round and round.
pub(crate) struct Lane {
    link: Link,
    batches: Vec<Batch>,
    next: usize,
}

impl Lane {
    pub(crate) fn new(link: Link, batches: Vec<Batch>) -> Self {
        Self { link, batches, next: 0 }
    }

    fn send(&mut self, reply: usize) -> io::Result<usize> {
        let batch = &self.batches[self.next % self.batches.len()];
        self.next += 1;
        self.link.send(&batch.bytes, batch.requests * reply)?;
        Ok(batch.requests)
    }

    /// The answers to the oldest of `window` batches in flight.
    fn take(&mut self, window: usize, reply: usize) -> io::Result<()> {
        let oldest = &self.batches[(self.next - window) % self.batches.len()];
        self.link.take(oldest.requests * reply)
    }
}

/// Drives all connections for `time`, each with `window` batches in flight; returns requests and the time they took.
pub(crate) fn drive(
    connections: &mut [Lane],
    window: usize,
    reply: usize,
    time: Duration,
) -> io::Result<(usize, Duration)> {
    let began = Instant::now();
    let mut requests = 0;
    for _ in 0..window {
        for lane in &mut *connections {
            requests += lane.send(reply)?;
        }
    }
    while began.elapsed() < time {
        for lane in &mut *connections {
            lane.take(window, reply)?;
            requests += lane.send(reply)?;
        }
    }
    for lane in &mut *connections {
        lane.link.settle()?;
    }
    Ok((requests, began.elapsed()))
}
