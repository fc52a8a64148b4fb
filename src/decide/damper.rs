//! The callback's schedule: runs after changes have settled, after a start, on request (`again`), and after a failure.
//!
//! A change waits for one damper, each further change restarts the wait, up to ten dampers after the first. A change
//! during a run is due after it: only changes from before a run's start are cleared.

use std::time::Duration;

use crate::decide::time::Moment;

/// The longest delay of a run by continual changes, in dampers.
pub const MAX_DAMPERS: u32 = 10;

/// Bounds of a callback's `again`.
pub const AGAIN_LIMITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(86_400));

/// First wait after a failed run, or the last `again` if that is shorter.
pub const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Upper bound of the doubled wait after failures, in first waits: 60 s grow to 5 minutes.
const RETRY_FACTOR: u32 = 5;

/// The kind of a leadership's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// No leader before: the first run waits for the damper, so that pods can report.
    Fresh,
    /// Another master led before: the first run is due at once.
    FailOver,
}

/// The cause of a run: the one that is due first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A start or a fail-over.
    Start,
    /// Settled changes.
    Change,
    /// The callback's `again`.
    Again,
    /// The last run failed.
    Retry,
}

/// The result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOutcome {
    /// Whether it succeeded.
    pub ok: bool,
    /// Requested time to the next run; clamped to [`AGAIN_LIMITS`].
    pub again: Option<Duration>,
}

/// First and last change since the last run's start.
#[derive(Clone, Copy, Debug)]
struct ChangeWindow {
    first: Moment,
    last: Moment,
}

/// The callback's schedule; its caller reports events and waits for [`next_wakeup`](Self::next_wakeup).
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    damper: Duration,
    running: bool,
    start: Option<Moment>,
    changes: Option<ChangeWindow>,
    again: Option<Moment>,
    retry: Option<Moment>,
    last_again: Option<Duration>,
    failures: u32,
}

impl Schedule {
    /// A schedule with nothing due.
    pub fn new(damper: Duration) -> Self {
        Self { damper, ..Self::default() }
    }

    /// Leadership began: resets the schedule and makes one run due.
    pub fn started(&mut self, now: Moment, start: Start) {
        let wait = match start {
            Start::Fresh => self.damper,
            Start::FailOver => Duration::ZERO,
        };
        *self = Self { start: Some(now + wait), ..Self::new(self.damper) };
    }

    /// The snapshot changed.
    pub fn changed(&mut self, now: Moment) {
        let changes = self.changes.get_or_insert(ChangeWindow { first: now, last: now });
        changes.last = changes.last.max(now);
    }

    /// The cause of a due run; `None` while one is running.
    pub fn due(&self, now: Moment) -> Option<Cause> {
        self.earliest().filter(|(at, _)| *at <= now).map(|(_, cause)| cause)
    }

    /// When a run will be due if no event precedes it.
    pub fn next_wakeup(&self) -> Option<Moment> {
        self.earliest().map(|(at, _)| at)
    }

    /// A run begins; it covers all changes up to now.
    pub fn begin(&mut self) {
        self.running = true;
        (self.start, self.changes, self.again, self.retry) = (None, None, None, None);
    }

    /// Clears the changes without a run, because the digest equals the last run's.
    pub fn skip(&mut self) {
        self.changes = None;
    }

    /// A run ended.
    pub fn finished(&mut self, now: Moment, outcome: RunOutcome) {
        self.running = false;
        if !outcome.ok {
            self.retry = Some(now + self.retry_delay());
            self.failures = self.failures.saturating_add(1);
            return;
        }
        let (shortest, longest) = AGAIN_LIMITS;
        self.failures = 0;
        self.last_again = outcome.again.map(|again| again.clamp(shortest, longest));
        self.again = self.last_again.map(|again| now + again);
    }

    fn earliest(&self) -> Option<(Moment, Cause)> {
        if self.running {
            return None;
        }
        [
            self.start.map(|at| (at, Cause::Start)),
            self.changes.map(|changes| (self.settled(changes), Cause::Change)),
            self.again.map(|at| (at, Cause::Again)),
            self.retry.map(|at| (at, Cause::Retry)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    fn settled(&self, changes: ChangeWindow) -> Moment {
        (changes.last + self.damper).min(changes.first + self.damper.saturating_mul(MAX_DAMPERS))
    }

    fn retry_delay(&self) -> Duration {
        let base = self.last_again.map_or(RETRY_AFTER, |again| again.min(RETRY_AFTER));
        let longest = RETRY_AFTER.max(base.saturating_mul(RETRY_FACTOR));
        base.saturating_mul(1 << self.failures.min(16)).min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAMPER: Duration = Duration::from_secs(10);
    const OK: RunOutcome = RunOutcome { ok: true, again: None };
    const FAILED: RunOutcome = RunOutcome { ok: false, again: None };

    fn at(seconds: u64) -> Moment {
        Moment::after_origin(Duration::from_secs(seconds))
    }

    fn again(seconds: f64) -> RunOutcome {
        RunOutcome { ok: true, again: Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)) }
    }

    #[test]
    fn a_change_is_due_after_the_damper_and_a_further_one_moves_it() {
        let mut schedule = Schedule::new(DAMPER);
        assert_eq!(schedule.next_wakeup(), None);
        schedule.changed(at(100));
        schedule.changed(at(105));
        assert_eq!(schedule.next_wakeup(), Some(at(115)));
        assert_eq!((schedule.due(at(114)), schedule.due(at(115))), (None, Some(Cause::Change)));
    }

    #[test]
    fn steady_churn_waits_for_ten_dampers_at_most() {
        let mut schedule = Schedule::new(DAMPER);
        for second in 0..500 {
            schedule.changed(at(second));
            assert!(schedule.next_wakeup() <= Some(at(100)));
        }
    }

    #[test]
    fn a_damper_of_zero_means_at_once() {
        let mut schedule = Schedule::new(Duration::ZERO);
        schedule.changed(at(3));
        assert_eq!(schedule.due(at(3)), Some(Cause::Change));
    }

    #[test]
    fn a_change_during_a_run_is_due_after_the_run_and_after_its_damper() {
        for (end, due) in [(105, 112), (130, 130)] {
            let mut schedule = Schedule::new(DAMPER);
            schedule.changed(at(90));
            schedule.begin();
            schedule.changed(at(102));
            assert_eq!((schedule.due(at(120)), schedule.next_wakeup()), (None, None));
            schedule.finished(at(end), OK);
            assert_eq!(schedule.due(at(due)), Some(Cause::Change));
            assert_eq!(schedule.due(at(111)), None);
        }
    }

    #[test]
    fn a_start_waits_for_the_damper_and_a_fail_over_does_not() {
        let mut schedule = Schedule::new(DAMPER);
        schedule.started(at(5), Start::Fresh);
        assert_eq!(schedule.next_wakeup(), Some(at(15)));
        schedule.started(at(5), Start::FailOver);
        assert_eq!(schedule.due(at(5)), Some(Cause::Start));
        schedule.begin();
        schedule.finished(at(6), OK);
        assert_eq!(schedule.next_wakeup(), None);
    }

    #[test]
    fn again_bypasses_the_damper_is_clamped_and_the_earliest_wins() {
        let mut schedule = Schedule::new(DAMPER);
        let wakeup_after = |schedule: &mut Schedule, outcome| {
            schedule.begin();
            schedule.finished(at(50), outcome);
            schedule.next_wakeup().unwrap().since(at(50))
        };
        assert_eq!(wakeup_after(&mut schedule, again(2.0)), Duration::from_secs(2));
        assert_eq!(wakeup_after(&mut schedule, again(0.0)), AGAIN_LIMITS.0);
        assert_eq!(wakeup_after(&mut schedule, again(1e300)), AGAIN_LIMITS.1);
        schedule.changed(at(50));
        assert_eq!(schedule.next_wakeup(), Some(at(60)));
        assert_eq!(wakeup_after(&mut schedule, again(3.0)), Duration::from_secs(3));
    }

    #[test]
    fn a_failed_run_is_retried_with_doubled_waits() {
        let mut schedule = Schedule::new(DAMPER);
        let delays = |schedule: &mut Schedule, runs: usize| {
            let delay = |_| {
                schedule.begin();
                schedule.finished(at(0), FAILED);
                schedule.next_wakeup().unwrap().since_origin().as_secs_f64()
            };
            (0..runs).map(delay).collect::<Vec<_>>()
        };
        assert_eq!(delays(&mut schedule, 5), [60.0, 120.0, 240.0, 300.0, 300.0]);
        schedule.begin();
        schedule.finished(at(0), again(4.0));
        assert_eq!(delays(&mut schedule, 6), [4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert_eq!(schedule.due(at(60)), Some(Cause::Retry));
    }

    #[test]
    fn skip_clears_the_changes_and_nothing_else() {
        let mut schedule = Schedule::new(DAMPER);
        schedule.begin();
        schedule.finished(at(0), again(30.0));
        schedule.changed(at(0));
        schedule.skip();
        assert_eq!(schedule.next_wakeup(), Some(at(30)));
    }

    #[test]
    fn a_clock_that_goes_backwards_moves_nothing_forward() {
        let mut schedule = Schedule::new(DAMPER);
        schedule.changed(at(100));
        schedule.changed(at(20));
        assert_eq!(schedule.next_wakeup(), Some(at(110)));
    }
}
