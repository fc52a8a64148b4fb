//! The only place that reads clocks.
//!
//! The wall clock is read once, at the start; after that it advances with the monotonic one. A
//! wall clock that jumps by an hour therefore moves nothing in a running process, and under
//! tokio's paused time both clocks are virtual.

use std::time::UNIX_EPOCH;

use tokio::time::Instant;

use crate::decide::time::{Moment, Timestamp};

/// The process's clocks. Cheap to copy; make one at the start and hand it on.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    wall_at_origin: Timestamp,
}

impl Clock {
    /// Reads both clocks.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn start() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            origin: Instant::now(),
            wall_at_origin: Timestamp::from_unix_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(0)),
        }
    }

    /// Now, on the monotonic clock.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::after_origin(self.origin.elapsed())
    }

    /// Now, on the wall clock.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.wall_at_origin + self.origin.elapsed()
    }

    /// The instant to hand to `tokio::time::sleep_until` for `moment`.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> Instant {
        self.origin + moment.since_origin()
    }

    /// Sleeps until `moment`; for ever without one. What is due already is not left to the timer, whose
    /// grain is a millisecond.
    pub async fn sleep_until(&self, moment: Option<Moment>) {
        match moment {
            Some(moment) if moment <= self.now() => {}
            Some(moment) => tokio::time::sleep_until(self.instant(moment)).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_already_waits_for_no_timer() {
        let (clock, before) = (Clock::start(), Instant::now());
        clock.sleep_until(Some(clock.now())).await;
        assert_eq!(Instant::now(), before);
    }
}
