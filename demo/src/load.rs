//! The client: steady load on the addresses in the endpoints file, in turn, and a log of the results.
//!
//! The load is open: requests are sent at a fixed rate, whether or not earlier ones are answered, so that a slow app
//! cannot slow the client down and hide its own faults.

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

/// Time between two requests.
const GAP: Duration = Duration::from_millis(8);
/// A request without an answer after this time has failed.
const DEADLINE: Duration = Duration::from_secs(1);

/// One request.
#[derive(Clone, Copy, Debug)]
struct SentRequest {
    sent: Instant,
    failed: bool,
}

/// The client's log; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestLog(Arc<Mutex<Vec<SentRequest>>>);

/// Requests and failures of a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) requests: usize,
    pub(super) failures: usize,
}

/// Sends until the task is aborted.
pub(super) fn start(endpoints: PathBuf) -> anyhow::Result<(RequestLog, JoinHandle<()>)> {
    let client = client(DEADLINE)?;
    let log = RequestLog::default();
    let kept = log.clone();
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
    Ok((log, sending))
}

async fn ask(client: reqwest::Client, address: SocketAddrV4, log: RequestLog) {
    let sent = Instant::now();
    let answer = client.get(format!("http://{address}/")).send().await;
    let failed = !answer.is_ok_and(|answer| answer.status().is_success());
    log.lock().push(SentRequest { sent, failed });
}

impl RequestLog {
    /// Answered requests that were sent from `from` until before `to`.
    pub(super) fn between(&self, from: Instant, to: Instant) -> Tally {
        let log = self.lock();
        // Answers are in the order of arrival; none is later than its deadline.
        let recent = log.iter().rev().take_while(|answer| answer.sent + 2 * DEADLINE >= from);
        let mut tally = Tally::default();
        for answer in recent.filter(|answer| answer.sent >= from && answer.sent < to) {
            tally.requests += 1;
            tally.failures += usize::from(answer.failed);
        }
        tally
    }

    /// Answered requests that were sent since `from`.
    pub(super) fn since(&self, from: Instant) -> Tally {
        self.between(from, Instant::now())
    }

    /// The most failures within any one second since `from`.
    pub(super) fn worst_second(&self, from: Instant) -> usize {
        let mut failed: Vec<Instant> = {
            let log = self.lock();
            log.iter()
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

    fn lock(&self) -> MutexGuard<'_, Vec<SentRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_counts_by_the_time_of_sending() {
        let (log, origin) = (RequestLog::default(), Instant::now());
        let at = |millis| origin + Duration::from_millis(millis);
        for (sent, failed) in [(0, true), (900, true), (100, false), (1050, true), (1901, true)] {
            log.lock().push(SentRequest { sent: at(sent), failed });
        }
        assert_eq!(log.between(at(0), at(1000)), Tally { requests: 3, failures: 2 });
        assert_eq!(log.between(at(1000), at(5000)), Tally { requests: 2, failures: 2 });
        assert_eq!(log.worst_second(at(0)), 2);
        assert_eq!(log.worst_second(at(1901)), 1);
        assert_eq!(log.worst_second(at(2000)), 0);
    }
}
