//! How often a report is written that comes without a ledger: in a burst, then one by one.

use std::time::Duration;

use tokio::time::Instant;

/// Reports without a ledger to store: this many at once, then one each [`REPORT_EVERY`].
const BURST: u32 = 5;
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Reports wait this long after writes to pods, which leaves the endpoint controllers CPU.
const DEFER: Duration = Duration::from_secs(1);

/// How many reports without a ledger may still be written.
pub(super) struct Allowance {
    left: u32,
    since: Instant,
    /// Reports wait until then.
    deferred_until: Option<Instant>,
}

impl Allowance {
    pub(super) fn new(since: Instant) -> Self {
        Self { left: BURST, since, deferred_until: None }
    }

    /// Reports wait for [`DEFER`].
    pub(super) fn defer(&mut self) {
        self.deferred_until = Some(Instant::now() + DEFER);
    }

    pub(super) fn hasten(&mut self) {
        self.deferred_until = None;
    }

    /// Takes one; `None`: it may be written now, otherwise after this.
    pub(super) fn take(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let grown = now.duration_since(self.since).as_secs() / REPORT_EVERY.as_secs();
        if grown > 0 {
            self.left = self.left.saturating_add(u32::try_from(grown).unwrap_or(BURST)).min(BURST);
            self.since = now;
        }
        let refilled = (self.left == 0).then_some(self.since + REPORT_EVERY);
        let wait = self.deferred_until.max(refilled).map(|until| until.saturating_duration_since(now));
        let wait = wait.filter(|wait| !wait.is_zero());
        if wait.is_none() {
            self.left = self.left.saturating_sub(1);
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reports_come_in_bursts_and_then_one_by_one_and_none_right_after_a_withdrawal() {
        let mut allowance = Allowance::new(Instant::now());
        assert!((0..BURST).all(|_| allowance.take().is_none()));
        assert_eq!(allowance.take(), Some(REPORT_EVERY));
        tokio::time::advance(REPORT_EVERY).await;
        assert_eq!((allowance.take(), allowance.take()), (None, Some(REPORT_EVERY)));
        tokio::time::advance(REPORT_EVERY).await;
        allowance.deferred_until = Some(Instant::now() + DEFER);
        assert_eq!(allowance.take(), Some(DEFER));
        tokio::time::advance(DEFER).await;
        assert_eq!(allowance.take(), None);
    }
}
