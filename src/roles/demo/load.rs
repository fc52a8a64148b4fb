//! The client: steady load on the addresses in the endpoints file, each in its turn, and a book of what came of it.
//!
//! The load is open: a request is sent when its time has come, whether or not the ones before have been answered. A slow
//! app therefore cannot slow the client down and hide its own faults.

use std::{
    net::SocketAddrV4,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{client, listing::Listing};

/// One request each time.
const GAP: Duration = Duration::from_millis(8);
/// An answer that takes longer is a failure.
const DEADLINE: Duration = Duration::from_secs(1);

/// One request.
#[derive(Clone, Copy, Debug)]
struct Answer {
    sent: Instant,
    failed: bool,
}

/// The client's book; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Book(Arc<Mutex<Vec<Answer>>>);

/// Requests and failures of a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) requests: usize,
    pub(super) failures: usize,
}

/// Sends until the task is aborted.
pub(super) fn start(endpoints: PathBuf) -> anyhow::Result<(Book, JoinHandle<()>)> {
    let client = client(DEADLINE)?;
    let book = Book::default();
    let kept = book.clone();
    let sending = tokio::spawn(async move {
        let mut listing = Listing::new(endpoints);
        let mut turn = 0usize;
        let mut next = interval(GAP);
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            next.tick().await;
            listing.refresh();
            let count = listing.addresses().len();
            if count == 0 {
                continue;
            }
            turn = turn.wrapping_add(1);
            if let Some(&address) = listing.addresses().iter().nth(turn % count) {
                tokio::spawn(ask(client.clone(), address, kept.clone()));
            }
        }
    });
    Ok((book, sending))
}

async fn ask(client: reqwest::Client, address: SocketAddrV4, book: Book) {
    let sent = Instant::now();
    let answer = client.get(format!("http://{address}/")).send().await;
    let failed = !answer.is_ok_and(|answer| answer.status().is_success());
    book.lock().push(Answer { sent, failed });
}

impl Book {
    /// What was sent from `from` until before `to`, as far as it was answered.
    pub(super) fn between(&self, from: Instant, to: Instant) -> Tally {
        let book = self.lock();
        // Answers arrive out of order, but none later than its deadline.
        let recent = book.iter().rev().take_while(|answer| answer.sent + 2 * DEADLINE >= from);
        let mut tally = Tally::default();
        for answer in recent.filter(|answer| answer.sent >= from && answer.sent < to) {
            tally.requests += 1;
            tally.failures += usize::from(answer.failed);
        }
        tally
    }

    /// What was sent since `from`.
    pub(super) fn since(&self, from: Instant) -> Tally {
        self.between(from, Instant::now())
    }

    /// The most failures within any one second since `from`.
    pub(super) fn worst_second(&self, from: Instant) -> usize {
        let mut failed: Vec<Instant> = {
            let book = self.lock();
            book.iter()
                .filter(|answer| answer.failed && answer.sent >= from)
                .map(|answer| answer.sent)
                .collect()
        };
        failed.sort_unstable();
        let second = Duration::from_secs(1);
        let within = |(first, from): (usize, &Instant)| {
            failed[first..].iter().take_while(|at| **at < *from + second).count()
        };
        failed.iter().enumerate().map(within).max().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_book_counts_by_the_time_of_sending() {
        let (book, origin) = (Book::default(), Instant::now());
        let at = |millis| origin + Duration::from_millis(millis);
        for (sent, failed) in [(0, true), (900, true), (100, false), (1050, true), (1901, true)] {
            book.lock().push(Answer { sent: at(sent), failed });
        }
        assert_eq!(book.between(at(0), at(1000)), Tally { requests: 3, failures: 2 });
        assert_eq!(book.between(at(1000), at(5000)), Tally { requests: 2, failures: 2 });
        assert_eq!(book.worst_second(at(0)), 2);
        assert_eq!(book.worst_second(at(1901)), 1);
        assert_eq!(book.worst_second(at(2000)), 0);
    }
}
