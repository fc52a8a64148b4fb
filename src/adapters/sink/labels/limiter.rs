//! How much may be under way at the API server at a time, for all resources of the process together: as
//! many connections as there are places, and no queue there that a restore would have to stand in.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::decide::gate::action::Verb;

/// Writes to pods, whatever they do: as many as one plan has in line.
const WRITES: usize = super::AT_ONCE;
/// And more for what gives traffic back, which may take the others' places too.
const KEPT_FREE: usize = 8;
/// LISTs, with the owners that are asked for after each.
const PROOFS: usize = 8;

/// The places.
#[derive(Debug)]
pub struct WriteLimiter {
    writes: Semaphore,
    patient: Semaphore,
    proofs: Semaphore,
}

/// One place, until it is dropped.
pub(super) struct WritePermit<'a> {
    _write: Option<SemaphorePermit<'a>>,
    _patient: Option<SemaphorePermit<'a>>,
}

impl Default for WriteLimiter {
    fn default() -> Self {
        let [writes, patient, proofs] = [WRITES + KEPT_FREE, WRITES, PROOFS].map(Semaphore::new);
        Self { writes, patient, proofs }
    }
}

impl WriteLimiter {
    /// A place for one write, in turn; who gives traffic back never stands behind all the others.
    pub(super) async fn write(&self, verb: Verb) -> WritePermit<'_> {
        let urgent = matches!(verb, Verb::Admit | Verb::Cancel);
        // An error only says that nobody has places any more, and nobody takes them away.
        let _patient = if urgent { None } else { self.patient.acquire().await.ok() };
        WritePermit { _patient, _write: self.writes.acquire().await.ok() }
    }

    /// A place for one confirmation.
    pub(super) async fn confirmation(&self) -> Option<SemaphorePermit<'_>> {
        self.proofs.acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn restores_find_a_place_when_everybody_else_waits() {
        let limiter = WriteLimiter::default();
        let taken = |verb| std::iter::from_fn(|| limiter.write(verb).now_or_never()).collect::<Vec<_>>();
        let withheld = taken(Verb::Withhold);
        assert_eq!(withheld.len(), WRITES);
        assert!(limiter.write(Verb::Claim).now_or_never().is_none());
        let admitted = taken(Verb::Admit);
        assert_eq!(admitted.len(), KEPT_FREE);
        drop(withheld);
        assert!(limiter.write(Verb::Kill).now_or_never().is_some(), "a place is given back");
        assert_eq!(taken(Verb::Cancel).len(), WRITES, "and may be a restore's");
    }
}
