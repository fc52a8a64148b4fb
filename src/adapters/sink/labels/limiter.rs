//! Limits concurrent requests to the API server, over all resources of the process: a request that gives traffic back
//! never waits behind other writes, neither here nor in a queue of the API server.

use std::future::Future;

use futures::future::join_all;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::decide::gate::action::Verb;

/// Writes to pods of any kind: as many as one plan sends at a time.
const WRITES: usize = 32;
/// Further writes that give traffic back, which may use the others' permits, too.
const RESERVED_FOR_RESTORES: usize = 8;
/// Confirmations: a LIST and the owners that are read after it.
const CONFIRMATIONS: usize = 8;

/// The permits of one process.
#[derive(Debug)]
pub struct WriteLimiter {
    writes: Semaphore,
    unprivileged: Semaphore,
    confirmations: Semaphore,
}

/// One write's permit, returned on drop.
pub(super) struct WritePermit<'a> {
    _write: Option<SemaphorePermit<'a>>,
    _unprivileged: Option<SemaphorePermit<'a>>,
}

impl Default for WriteLimiter {
    fn default() -> Self {
        let [writes, unprivileged, confirmations] =
            [WRITES + RESERVED_FOR_RESTORES, WRITES, CONFIRMATIONS].map(Semaphore::new);
        Self { writes, unprivileged, confirmations }
    }
}

impl WriteLimiter {
    /// A permit for one write, first come first served; [`RESERVED_FOR_RESTORES`] are kept for `Admit` and `Cancel`.
    pub(super) async fn write(&self, verb: Verb) -> WritePermit<'_> {
        let urgent = matches!(verb, Verb::Admit | Verb::Cancel);
        // Acquiring fails only on a closed semaphore; these are never closed.
        let _unprivileged = if urgent { None } else { self.unprivileged.acquire().await.ok() };
        WritePermit { _unprivileged, _write: self.writes.acquire().await.ok() }
    }

    /// A permit for one confirmation.
    pub(super) async fn confirmation(&self) -> Option<SemaphorePermit<'_>> {
        self.confirmations.acquire().await.ok()
    }
}

/// Runs the writes of one plan, at most [`WRITES`] of them at a time, each begun as soon as any other has ended.
/// The answers are in the order of the writes.
pub(super) async fn run_all<T>(writes: impl Iterator<Item = impl Future<Output = T> + Send>) -> Vec<T> {
    let plan = Semaphore::new(WRITES);
    let permitted = |write| async {
        // Fails only on a closed semaphore; this one is never closed.
        let _permit = plan.acquire().await.ok();
        write.await
    };
    join_all(writes.map(permitted)).await
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use futures::FutureExt;
    use tokio::{sync::Notify, time::timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_write_keeps_no_other_waiting_and_the_answers_stay_in_order() {
        let (slow, ended) = (Notify::new(), AtomicUsize::new(0));
        let write = |at: usize| {
            let (slow, ended) = (&slow, &ended);
            async move {
                if at == 0 {
                    slow.notified().await;
                } else if ended.fetch_add(1, Ordering::Relaxed) + 1 == 3 * WRITES {
                    slow.notify_one();
                }
                at
            }
        };
        let answers = timeout(Duration::from_secs(60), run_all((0..=3 * WRITES).map(write))).await;
        assert_eq!(answers, Ok((0..=3 * WRITES).collect::<Vec<_>>()));
    }

    #[test]
    fn restores_get_a_permit_while_other_writes_wait() {
        let limiter = WriteLimiter::default();
        let taken = |verb| std::iter::from_fn(|| limiter.write(verb).now_or_never()).collect::<Vec<_>>();
        let withheld = taken(Verb::Withhold);
        assert_eq!(withheld.len(), WRITES);
        assert!(limiter.write(Verb::Claim).now_or_never().is_none());
        let admitted = taken(Verb::Admit);
        assert_eq!(admitted.len(), RESERVED_FOR_RESTORES);
        drop(withheld);
        assert!(limiter.write(Verb::Kill).now_or_never().is_some(), "a permit is returned");
        assert_eq!(taken(Verb::Cancel).len(), WRITES, "and a restore may use it");
    }
}
